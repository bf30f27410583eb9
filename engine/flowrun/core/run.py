"""A run as data. It is frozen; a transition works on a draft, and copies it where a state may fail from there on."""

import enum
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec

from flowrun.core.events import Effect, Move, Outcome
from flowrun.core.messages import Log, Message, Usage
from flowrun.core.slots import Slots
from flowrun.core.views import LazyOutputs, LazyReply, LazyResults, Value, see_error
from flowrun.errors import Failure
from flowrun.spec.model import JSON
from flowrun.templates import Scope


class Mark(enum.Enum):
    """What stands in a slot in place of a result."""

    PENDING = "pending"
    """The effect has no result yet."""

    ANSWERED = "answered"
    """No effect is needed: a message of the thread answers the call already."""


PENDING: Final = Mark.PENDING
ANSWERED: Final = Mark.ANSWERED


CallSlot = Value | Failure | Mark
ChildSlot = Outcome | Mark


class Made(NamedTuple):
    """The values of those tool calls of one message that succeeded; ``at`` is the message's index in its thread."""

    at: int
    values: tuple[CallSlot, ...]


EMPTY: Final[dict[str, Any]] = {}


def _empty() -> dict[str, Any]:
    """Return the one empty mapping that all runs begin with: a run's mappings are replaced, never changed."""
    return EMPTY


class Draft(msgspec.Struct, gc=False, kw_only=True):
    """A run that a transition works on. Its fields are those of ``Run``."""

    id: str = ""
    status: Literal["new", "running", "waiting", "succeeded", "failed", "cancelled"] = "new"
    inputs: Mapping[str, JSON] = {}
    state: str = ""
    step: int = 0
    rounds: int = 0
    attempt: int = 1
    call_count: int = 0
    threads: Mapping[str, Log[Message]] = msgspec.field(default_factory=_empty)
    asked: Mapping[str, str] = msgspec.field(default_factory=_empty)
    vars: Mapping[str, JSON] = msgspec.field(default_factory=_empty)
    outputs: Mapping[str, Any] = msgspec.field(default_factory=_empty)
    reply: LazyReply | None = None
    results: LazyResults | None = None
    error: Failure | None = None
    awaiting: Literal["", "effect", "calls", "children", "sleep"] = ""
    left: int = 0
    returned: Value | None = None
    calls: Slots[CallSlot] | None = None
    children: Slots[ChildSlot] | None = None
    items: tuple[JSON, ...] = ()
    started: int = 0
    made: Mapping[str, Made] = msgspec.field(default_factory=_empty)
    unread: frozenset[str] = frozenset()
    max_rounds: int = 0
    max_steps: int = 0
    child_steps: int = 0
    path: Log[str] = Log()
    usage: Usage = Usage()
    outcome: Outcome | None = None


class Run(Draft, frozen=True, gc=False, kw_only=True):  # type: ignore[misc]  # mypy has a rule of dataclasses here
    """One run of a flow, as the fold of its events so far.

    Attributes:
        step: counts the states entered, further attempts included.
        asked: the chat state that last asked a model on a thread.
        outputs: by state; what a chat or tools state left is made into data when a template asks for it.
        awaiting: what an event may answer: one effect, the calls of a tools state, the children of a state that runs
            sub-flows, or the pause before another attempt.
        left: the calls or children without a result.
        started: in a map state the children that were started; in a chat state 1 once its own messages are on the
            thread.
        returned, calls, children: results in the state's visit; those that succeeded stay for another attempt.
        items: the list of a map state.
        made: values of a thread's tool calls, for whichever state makes these calls next.
        unread: the threads whose last reply has tool calls that no state and no template has looked at yet.
    """


_set_class: Final[Callable[[Draft, type[Draft]], None]] = object.__dict__["__class__"].__set__
"""Sets the class of an object. The ``__setattr__`` of a frozen struct refuses to."""


copy_of: Final[Callable[[Draft], Draft]] = msgspec.structs.replace
"""Copies a run; the copy is frozen if the run is."""


def thaw(run: Draft) -> Draft:
    """Return a copy of a run that can be changed."""
    draft = copy_of(run)
    _set_class(draft, Draft)
    return draft


def freeze(draft: Draft) -> Run:
    """Turn a draft into a run, without a copy: nobody else may hold the draft."""
    draft.__class__ = Run
    return draft  # type: ignore[return-value]


class Transition(NamedTuple):
    """What the machine decided on an event: the run after it, the effects to perform, the moves that were made."""

    run: Run
    effects: tuple[Effect, ...] = ()
    moves: tuple[Move, ...] = ()


class RunScope(Mapping[str, Any]):
    """The names that templates see in a run; a name that has no value yet is not there, so using it is an error."""

    __slots__ = ("_extra", "_run")

    def __init__(self, run: Draft, extra: Mapping[str, Any] = EMPTY) -> None:
        self._run = run
        self._extra = extra

    def __getitem__(self, name: str) -> Any:
        if self._extra and name in self._extra:
            return self._extra[name]
        run = self._run
        match name:
            case "reply" if run.reply is not None:
                return run.reply
            case "inputs":
                return run.inputs
            case "vars":
                return run.vars
            case "outputs":
                return LazyOutputs(run.outputs)
            case "results" if run.results is not None:
                return run.results
            case "error" if run.error is not None:
                return see_error(run.error)
            case "run":
                return {name: getattr(run, name) for name in ("id", "state", "step", "rounds", "attempt")}
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        run = self._run
        there = {"reply": run.reply, "results": run.results, "error": run.error}
        yield from ("inputs", "vars", "outputs", "run")
        yield from (name for name, value in there.items() if value is not None)
        yield from self._extra

    def __len__(self) -> int:
        return sum(1 for _ in self)


def scope_of(run: Draft) -> Scope:
    """Return the names that templates see in a run."""
    return RunScope(run)
