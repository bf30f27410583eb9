"""The map state: runs a sub-flow for each item of a list; the outputs keep the items' order."""

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
    """A map state: ``items`` gives the list, ``item`` is the name that each has in ``arguments``."""

    flow: str
    items: Evaluator
    item: str
    arguments: Evaluator
    max_concurrency: int | None
    on_item_error: Literal["fail", "collect", "skip"]

    def enter(self, turn: Turn) -> None:
        """Start as many children as may run at once, each for one item; another attempt keeps its items."""
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
        """Start the next item in place of one that ended, or leave after the last."""
        if self.on_item_error == "fail":
            output_of(event.outcome, f"item {event.index}")
        if turn.run.left:
            self._start(turn, 1)
        else:
            self._leave(turn)

    def _start(self, turn: Turn, count: int) -> None:
        """Start the next ``count`` items that have no outcome yet, as far as there are so many."""
        run = turn.run
        assert run.children is not None
        while count and run.started < len(run.items):
            index = run.started
            if run.children[index] is PENDING:
                scope = RunScope(run, {self.item: run.items[index], "index": index})
                turn.effects.append(start_child(run, index, self.flow, self.arguments(scope)))
                count -= 1
            run.started += 1

    def _leave(self, turn: Turn) -> None:
        """Leave with the outputs: with ``collect`` each beside its error, with ``skip`` the good ones."""
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
    """Compile a map state; without ``with``, a child's input is the item by its name."""
    return MapNode(
        flow=state.flow,
        items=compile_expression(state.for_each),
        item=state.item,
        arguments=compile_value(state.arguments or {state.item: f"{{{{ {state.item} }}}}"}),
        max_concurrency=state.max_concurrency,
        on_item_error=state.on_item_error,
        **compiler.common(name, state),
    )
