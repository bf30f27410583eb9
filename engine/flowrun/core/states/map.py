"""The map state: runs a sub-flow for each item of a list; the outputs are in the order of the items."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal, TypedDict

from flowrun.core.events import ChildEnded
from flowrun.core.run import PENDING, RunScope
from flowrun.core.shapes import Shape, shape_of_output
from flowrun.core.state_node import StateFailure, Turn
from flowrun.core.states.children import (
    ParentNode,
    await_children,
    collected,
    outcome_of,
    output_of,
    shape_of_collected,
    start_child,
)
from flowrun.core.states.compiler import Compiler
from flowrun.core.states.kind import Look, StateKind
from flowrun.spec.model import JSON, MapState, Spec
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
        if run.children is None:
            items = self.items(turn.scope)
            if not isinstance(items, (list, tuple)):
                raise StateFailure("template.failed", f"for_each gave {items!r}, which is no list")
            run.memo = tuple(items)
        await_children(run, len(run.memo))
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
        while count and run.started < len(run.memo):
            index = run.started
            if run.children[index] is PENDING:
                scope = RunScope(run, {self.item: run.memo[index], "index": index})
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
            outputs: list[JSON] = [collected(outcome) for outcome in outcomes]
        else:
            outputs = [outcome.output for outcome in outcomes if outcome.status == "succeeded"]
        turn.leave(self, outputs)


class ItemView(TypedDict):
    """The names of a map state's item."""

    item: Annotated[JSON, "the item that the sub-flow runs for; `as` gives it another name"]
    index: Annotated[int, "the number of the item in the list, from 0"]


def compile_map(name: str, state: MapState, compiler: Compiler) -> MapNode:
    """Compile a map state."""
    return MapNode(
        flow=state.flow,
        items=compile_expression(state.for_each),
        item=state.item,
        arguments=compile_value(state.arguments),
        max_concurrency=state.max_concurrency,
        on_item_error=state.on_item_error,
        **compiler.common(name, state),
    )


def shape_of_map(state: MapState, flows: Mapping[str, Spec]) -> Shape:
    """Return the shape of a map state's output."""
    each = shape_of_output(flows.get(state.flow))
    if state.on_item_error == "collect":
        each = shape_of_collected(each)
    return {"type": "array", "items": each}


KIND: Final = StateKind(
    struct=MapState,
    compile=compile_map,
    output="the list of the outputs of the items; with `on_item_error: collect`, each beside its error",
    shape=shape_of_map,
    looks={"map": Look(outline="stacked", light=("#fbe9f5", "#bb4a9b"), dark=("#36182d", "#e58ac7"))},
    extra={"with": ItemView},
)
