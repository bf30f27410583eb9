"""The base of the states that run sub-flows. What a child uses counts against the limits of its parent."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, TypedDict

from flowrun.core.events import ChildEnded, Event, Outcome, StartChild
from flowrun.core.run import PENDING, ChildSlot, Draft, Run, mixed_seed
from flowrun.core.shapes import Shape, shape_of
from flowrun.core.slots import Slots
from flowrun.core.state_node import UNCAUGHT, StateFailure, StateNode, Turn
from flowrun.core.token_limits import tokens_left
from flowrun.core.views import StateFailureView, see_failure
from flowrun.errors import Failure
from flowrun.spec.model import JSON


class ParentNode(StateNode, frozen=True, kw_only=True):
    """A state that runs sub-flows."""

    def accepts(self, run: Run, event: Event) -> bool:
        """Return whether an event is the end of a child that was started and has not ended yet."""
        return (
            isinstance(event, ChildEnded)
            and run.children is not None
            and event.index < run.started
            and run.children.get(event.index) is PENDING
        )

    def handle(self, turn: Turn, event: Event) -> None:
        """Store a child's outcome, and count its rounds, steps and tokens, also if the state fails now."""
        assert isinstance(event, ChildEnded)
        run = turn.run
        assert run.children is not None
        run.children = run.children.changed(event.index, event.outcome)
        run.left -= 1
        run.rounds += event.rounds
        run.child_steps += event.steps
        run.tool_calls += event.tool_calls
        run.usage += event.usage
        if event.replies:
            run.replies = run.replies.extended(event.replies)
        self.ended(turn, event)

    @abstractmethod
    def ended(self, turn: Turn, event: ChildEnded) -> None:
        """Continue after the end of a child: start another, leave the state, or wait. Raises as ``enter`` does."""


def await_children(run: Draft, count: int) -> Slots[ChildSlot]:
    """Make a run await ``count`` children; return their slots. Another attempt keeps the children that succeeded."""
    if run.children is not None:
        run.children = Slots([slot if _succeeded(slot) else PENDING for slot in run.children])
    else:
        run.children = Slots([PENDING] * count)
    run.awaiting, run.started = "children", len(run.children)
    run.left = sum(slot is PENDING for slot in run.children)
    return run.children


def _succeeded(slot: ChildSlot) -> bool:
    return isinstance(slot, Outcome) and slot.status == "succeeded"


def start_child(run: Draft, index: int, flow: str, inputs: Mapping[str, JSON]) -> StartChild:
    """Return the effect that starts a child, limited to what the run has left."""
    return StartChild(
        step=run.step,
        index=index,
        state=run.state,
        flow=flow,
        inputs=inputs,
        max_rounds=run.max_rounds - run.rounds,
        max_steps=run.max_steps - run.step - run.child_steps,
        max_tool_calls=None if run.max_tool_calls is None else max(run.max_tool_calls - run.tool_calls, 0),
        token_limits=None if run.token_limits is None else tokens_left(run.token_limits, run.usage),
        seed=mixed_seed(run.seed, run.step, index),
    )


def cancel_child(run: Draft, index: int, flow: str) -> StartChild:
    """Return the effect that cancels a child that was started."""
    return StartChild(
        step=run.step, index=index, state=run.state, flow=flow, inputs={}, max_rounds=0, max_steps=0, cancel=True
    )


class CollectedView(TypedDict):
    """The output of a sub-flow whose failure is collected."""

    output: Annotated[JSON, "the output of the sub-flow; null if it failed"]
    error: Annotated[StateFailureView | None, "the failure of the sub-flow; null if it succeeded"]


def collected(outcome: Outcome) -> CollectedView:
    """Return the output of a child beside its failure."""
    return {"output": outcome.output, "error": None if outcome.error is None else see_failure(outcome.error)}


def shape_of_collected(output: Shape) -> Shape:
    """Return the shape of ``collected``, from that of the output."""
    shape = shape_of(CollectedView)
    return {**shape, "properties": {**shape["properties"], "output": output}}


def outcome_of(slot: ChildSlot) -> Outcome:
    """Return the outcome of a child that has ended."""
    assert isinstance(slot, Outcome)
    return slot


def output_of(slot: ChildSlot, what: str) -> JSON:
    """Return a child's output.

    Raises:
        StateFailure: the child did not succeed; the failure has the child's name for it, or ``flow.failed`` if no state
            can catch that name.
    """
    outcome = outcome_of(slot)
    if outcome.status == "succeeded":
        return outcome.output
    error = outcome.error or Failure(name="flow.failed", message=f"it was {outcome.status}")
    where = f" in its state {error.state!r}" if error.state else ""
    if error.name in UNCAUGHT:
        raise StateFailure("flow.failed", f"{what} failed{where}: {error.name}: {error.message}", of=error)
    raise StateFailure(error.name, f"{what} failed{where}: {error.message}", of=error)
