"""The map state: runs a sub-flow for each item of a list; the outputs are in the order of the items."""

from typing import Literal

from flowrun.core.events import ChildEnded, Outcome
from flowrun.core.run import PENDING, RunScope
from flowrun.core.state_node import StateFailure, Turn
from flowrun.core.states.children import ParentNode, await_children, outcome_of, output_of, start_child
from flowrun.core.states.compiler import Compiler
from flowrun.core.views import see_error
from flowrun.spec.model import JSON, MapState
from flowrun.templates import Evaluator, compile_expression, compile_value


class MapNode(ParentNode, frozen=True, kw_only=True):
    """A map state. ``items`` evaluates to the list; ``item`` is the name of the current item in ``arguments``."""

    flow: str
    items: Evaluator
    item: str
    arguments: Evaluator
    max_concurrency: int | None
    on_item_error: Literal["fail", "collect", "skip"]

    def enter(self, turn: Turn) -> None:
        """Start a child for each of the first items, up to ``max_concurrency``. Another attempt has the same items."""
        run = turn.run
        if run.attempt == 1 or run.children is None:
            items = self.items(turn.scope)
            if not isinstance(items, (list, tuple)):
                raise StateFailure("template.failed", f"for_each gave {items!r}, which is no list")
            run.items, run.children = tuple(items), None
        await_children(run, len(run.items))
        run.started = 0
        if run.left:
            self._start(turn, self.max_concurrency or run.left)
        else:
            self._leave(turn)

    def ended(self, turn: Turn, event: ChildEnded) -> None:
        """Start the child of the next item; leave when all have ended."""
        if self.on_item_error == "fail":
            output_of(event.outcome, f"item {event.index}")
        if turn.run.left:
            self._start(turn, 1)
        else:
            self._leave(turn)

    def _start(self, turn: Turn, count: int) -> None:
        """Start the children of the next ``count`` items without an outcome, or of fewer if not so many are left."""
        run = turn.run
        assert run.children is not None
        effects = []
        while count and run.started < len(run.items):
            index = run.started
            if run.children[index] is PENDING:
                scope = RunScope(run, {self.item: run.items[index], "index": index})
                effects.append(start_child(run, index, self.flow, self.arguments(scope)))
                count -= 1
            run.started += 1
        turn.effects = tuple(effects)

    def _leave(self, turn: Turn) -> None:
        """Leave with the list of outputs: ``collect`` pairs each with its error, ``skip`` omits the failed items."""
        run = turn.run
        assert run.children is not None
        outcomes = list(map(outcome_of, run.children))
        if self.on_item_error == "collect":
            outputs: list[JSON] = [_collected(outcome) for outcome in outcomes]
        else:
            outputs = [outcome.output for outcome in outcomes if outcome.status == "succeeded"]
        turn.leave(self, outputs)


def _collected(outcome: Outcome) -> dict[str, JSON]:
    return {"output": outcome.output, "error": None if outcome.error is None else see_error(outcome.error)}


def compile_map(name: str, state: MapState, compiler: Compiler) -> MapNode:
    """Compile a map state. Without ``with``, the item is the only input of the child."""
    return MapNode(
        flow=state.flow,
        items=compile_expression(state.for_each),
        item=state.item,
        arguments=compile_value(state.arguments or {state.item: f"{{{{ {state.item} }}}}"}),
        max_concurrency=state.max_concurrency,
        on_item_error=state.on_item_error,
        **compiler.common(name, state),
    )
