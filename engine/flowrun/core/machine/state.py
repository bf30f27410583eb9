"""A run as data, what templates see of it, and how it ends."""

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec

from flowrun.core.events import Effect, Outcome
from flowrun.core.messages import Log, Message, Usage
from flowrun.errors import Failure
from flowrun.spec.model import JSON
from flowrun.templates import Scope

PENDING: Final = msgspec.UNSET
"""Stands in ``Run.awaiting`` for an effect that has not answered yet."""

ASLEEP: Final = ("asleep",)
"""What ``Run.awaiting`` is between two attempts."""


_NOTHING: Final[dict[str, Any]] = {}


def _nothing() -> dict[str, Any]:
    """Give the one empty mapping that all runs begin with: what is put into a run's mappings makes new ones."""
    return _NOTHING


class Made(NamedTuple):
    """The values of those tool calls of one message that succeeded; ``at`` is the message's place in its thread.

    ``values`` has a place for each of the message's calls: a ``Value``, or ``PENDING`` where there is none.
    """

    at: int
    values: tuple[Any, ...]


class Run(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One run of a flow, as the fold of its events so far.

    ``step`` counts the states entered. ``awaiting`` has a place for each effect of this step that an event may answer,
    and ``left`` counts those still open. ``asked`` says which chat state last spoke on a thread. ``reply`` and
    ``results`` are as templates see them. In a map state, ``items`` are its list and ``started`` counts the children;
    in a chat state it says that the state's own messages are on the thread.

    What succeeded in a state that failed is not done again: ``kept`` are the outcomes of its children, for another
    attempt at it; ``made`` the values of a thread's tool calls, for whichever state takes those calls up next.
    ``unread`` is the chat state whose tool calls nothing has looked at yet.
    """

    id: str = ""
    status: Literal["new", "running", "waiting", "succeeded", "failed", "cancelled"] = "new"
    inputs: Mapping[str, JSON] = {}
    state: str = ""
    step: int = 0
    rounds: int = 0
    attempt: int = 1
    call_count: int = 0
    threads: Mapping[str, Log[Message]] = msgspec.field(default_factory=_nothing)
    asked: Mapping[str, str] = msgspec.field(default_factory=_nothing)
    vars: Mapping[str, JSON] = msgspec.field(default_factory=_nothing)
    outputs: Mapping[str, JSON] = msgspec.field(default_factory=_nothing)
    reply: Mapping[str, JSON] | None = None
    results: JSON = None
    error: Failure | None = None
    awaiting: tuple[Any, ...] = ()
    left: int = 0
    items: tuple[JSON, ...] = ()
    started: int = 0
    kept: tuple[Any, ...] = ()
    made: Mapping[str, "Made"] = msgspec.field(default_factory=_nothing)
    unread: str = ""
    max_rounds: int = 0
    max_steps: int = 0
    child_steps: int = 0
    path: Log[str] = Log()
    usage: Usage = Usage()
    outcome: Outcome | None = None


class Step(NamedTuple):
    """What ``advance`` gives: the run after the event, and what it wants done."""

    run: Run
    effects: tuple[Effect, ...]


replace = msgspec.structs.replace


class StateFailure(Exception):
    """Carries a failure from where it is found to where the state's retry and catch are looked up."""

    def __init__(self, name: str, message: str) -> None:
        self.failure = Failure(name=name, message=message)
        super().__init__(message)


class Next(msgspec.Struct, frozen=True, gc=False):
    """What entering or leaving a state gives: effects to wait for, or the next state to enter at once."""

    run: Run
    effects: tuple[Effect, ...] = ()
    target: str | None = None


class Value(msgspec.Struct, frozen=True, gc=False):
    """A value that a function returned, told apart from a failure and from an effect still pending."""

    value: JSON


def finish(run: Run, status: Literal["succeeded", "failed", "cancelled"], output: JSON, error: Failure | None) -> Step:
    """End a run."""
    outcome = Outcome(status=status, output=output, error=error)
    return Step(replace(run, status=status, outcome=outcome, awaiting=()), (outcome,))


def succeeded(answer: Any) -> bool:
    """Tell whether an answer in ``Run.awaiting`` is one that another attempt need not ask for again."""
    return isinstance(answer, Value) or (isinstance(answer, Outcome) and answer.status == "succeeded")


def take(run: Run, index: int, value: Any) -> Run | None:
    """Put an effect's answer into its place; None if the place is not awaited."""
    if not 0 <= index < len(run.awaiting) or run.awaiting[index] is not PENDING:
        return None
    awaiting = (*run.awaiting[:index], value, *run.awaiting[index + 1 :])
    return replace(run, awaiting=awaiting, left=run.left - 1)


def scope_of(run: Run) -> Scope:
    """Give the names that templates see in a run; what does not exist yet is left out, so using it is an error."""
    scope: dict[str, Any] = {
        "inputs": run.inputs,
        "vars": run.vars,
        "outputs": run.outputs,
        "run": {"id": run.id, "state": run.state, "step": run.step, "rounds": run.rounds, "attempt": run.attempt},
    }
    if run.reply is not None:
        scope["reply"] = run.reply
    if run.results is not None:
        scope["results"] = run.results
    if run.error is not None:
        scope["error"] = {"name": run.error.name, "message": run.error.message, "state": run.error.state}
    return scope
