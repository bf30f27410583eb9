"""What happens in a run, as events for users: made from the notices that observers get."""

from collections.abc import Iterator, Mapping
from typing import Literal

import msgspec

from flowrun.core.events import (
    CallFunction,
    Failed,
    Move,
    Notice,
    Outcome,
    RequestInput,
    Returned,
    Slept,
    Started,
    Written,
)
from flowrun.errors import Failure
from flowrun.runtime.run_result import InputRequest, as_request
from flowrun.spec.model import JSON


class _RunEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened in a run.

    Attributes:
        run: the id of the run; that of a sub-flow's run begins with its parent's.
        state: the state that the event belongs to.
        step: the number of the state visit in its run, from 1; each further attempt counts again.
    """

    run: str
    state: str
    step: int


class StateEntered(_RunEvent, frozen=True, kw_only=True):
    """A state was entered, or is tried again."""


class TextDelta(_RunEvent, frozen=True, kw_only=True):
    """The model wrote a piece of text, in which secrets are masked. Reasoning and tool calls are no text."""

    text: str


class TextDiscarded(_RunEvent, frozen=True, kw_only=True):
    """What the model wrote so far in this step is void: its reply failed, was not accepted, or is written anew."""


class ToolCalled(_RunEvent, frozen=True, kw_only=True):
    """A function is called: a tool that the model chose, or the function of a call state.

    Attributes:
        id: the id of the call in the run; the same in its ``ToolReturned``.
        name: the name of the tool, or the entrypoint of a call state.
        call_id: the id that the model gave to the call; None for a call state.
    """

    id: str
    name: str
    arguments: Mapping[str, JSON]
    call_id: str | None = None


class ToolReturned(_RunEvent, frozen=True, kw_only=True):
    """A function returned ``value``, or its call failed with ``error``."""

    id: str
    name: str
    value: JSON = None
    error: Failure | None = None


class InputRequested(_RunEvent, frozen=True, kw_only=True):
    """The run asks a question, which ``Session.answer`` answers."""

    request: InputRequest


class StateLeft(_RunEvent, frozen=True, kw_only=True):
    """A state was left.

    Attributes:
        how: ``route``: to the next state; ``catch``: to the state that catches ``error``; ``retry``: to another
            attempt; ``end``: to the end of the run.
        to: the next state; empty at the end of the run.
    """

    how: Literal["route", "catch", "retry", "end"]
    to: str = ""
    error: Failure | None = None


class RunEnded(_RunEvent, frozen=True, kw_only=True):
    """A run has ended, the top one or that of a sub-flow."""

    status: Literal["succeeded", "failed", "cancelled"]
    output: JSON = None
    error: Failure | None = None


RunEvent = StateEntered | TextDelta | TextDiscarded | ToolCalled | ToolReturned | InputRequested | StateLeft | RunEnded


class RunEvents:
    """Translates the notices of one run and its children.

    Holds the calls that have not returned, and the steps whose text is neither accepted nor void.
    """

    def __init__(self) -> None:
        self._texts: dict[tuple[str, int], str] = {}  # the states, by run and step
        self._calls: dict[tuple[str, int, int], CallFunction] = {}

    def of(self, notice: Notice) -> Iterator[RunEvent]:
        """Yield the events of a notice, in the order in which they happened."""
        event, moves = notice.event, notice.moves
        if isinstance(event, Started | Slept) and (moves or notice.state):  # with invalid inputs it enters no state
            yield _entered(notice, 0)
        yield from self._answered(notice)
        yield from self._discarded(notice)
        for number, move in enumerate(moves, 1):
            yield StateLeft(
                run=notice.run, state=move.state, step=move.step, how=move.how, to=move.to, error=move.failure
            )
            if move.how in ("route", "catch"):
                yield _entered(notice, number)
        if moves:
            self._forget(notice.run, before=notice.step)
        for effect in notice.effects:
            match effect:
                case CallFunction():
                    self._calls[notice.run, effect.step, effect.index] = effect
                    yield ToolCalled(
                        run=notice.run,
                        state=effect.state,
                        step=effect.step,
                        id=effect.key,
                        name=effect.tool or effect.entrypoint,
                        arguments=effect.arguments,
                        call_id=effect.call_id,
                    )
                case RequestInput():
                    request = as_request(effect)
                    yield InputRequested(run=notice.run, state=effect.state, step=effect.step, request=request)
                case Outcome():
                    last = moves[-1] if moves else None
                    yield RunEnded(
                        run=notice.run,
                        state=notice.state if last is None else last.state,
                        step=notice.step if last is None else last.step,
                        status=effect.status,
                        output=effect.output,
                        error=effect.error,
                    )

    def of_text(self, written: Written) -> TextDelta | TextDiscarded:
        """Return the event of a piece of what a model writes."""
        run, state, step = written.run, written.state, written.step
        if written.text is None:
            self._texts.pop((run, step), None)
            return TextDiscarded(run=run, state=state, step=step)
        self._texts[run, step] = state
        return TextDelta(run=run, state=state, step=step, text=written.text)

    def _discarded(self, notice: Notice) -> Iterator[TextDiscarded]:
        """Forget the texts of steps that end; yield those that failed, and those of children that are given up."""
        run = notice.run
        over = {move.step: f"{run}.{move.step}." for move in notice.moves}
        failed = {move.step for move in notice.moves if move.failure is not None}
        for (writer, step), state in [*self._texts.items()]:
            is_own = writer == run and (step in over or step < notice.step)
            if is_own or writer.startswith(tuple(over.values())):
                del self._texts[writer, step]
                if not is_own or step in failed:
                    yield TextDiscarded(run=writer, state=state, step=step)

    def _answered(self, notice: Notice) -> Iterator[RunEvent]:
        """Yield the events of a call's end."""
        event = notice.event
        match event:
            case Returned() | Failed():
                call = self._calls.pop((notice.run, event.step, event.index), None)
                if call is not None:
                    yield ToolReturned(
                        run=notice.run,
                        state=call.state,
                        step=call.step,
                        id=call.key,
                        name=call.tool or call.entrypoint,
                        value=event.value if isinstance(event, Returned) else None,
                        error=event.failure if isinstance(event, Failed) else None,
                    )

    def _forget(self, run: str, *, before: int) -> None:
        """Forget the calls of states that the run has left."""
        for key in [key for key in self._calls if key[0] == run and key[1] < before]:
            del self._calls[key]


def _entered(notice: Notice, number: int) -> StateEntered:
    """Return the entering of the state that the move ``number`` leaves, or of the state where the run is now."""
    moves: tuple[Move, ...] = notice.moves
    if number < len(moves):
        return StateEntered(run=notice.run, state=moves[number].state, step=moves[number].step)
    return StateEntered(run=notice.run, state=notice.state, step=notice.step)
