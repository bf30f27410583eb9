"""A run as frozen data. A transition changes a draft of it; if a state fails, the last saved copy is restored."""

import enum
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeVar

import msgspec

from flowrun.core.approvals import Approved
from flowrun.core.events import Effect, Move, Outcome, ToolDeclaration
from flowrun.core.messages import KeptReply, Log, Message, Reply, Usage
from flowrun.core.slots import Slots
from flowrun.core.views import LazyError, LazyOutputs, LazyReply, LazyResults, LazyThreads, RunView, Value
from flowrun.errors import Failure
from flowrun.spec.model import JSON, ResponseFormat, TokenLimits
from flowrun.templates import Lazy, as_condition, compile_condition, is_path

T = TypeVar("T")


class Mark(enum.Enum):
    """The content of a slot without a result."""

    PENDING = "pending"
    """The effect has no result yet."""

    ASKED = "asked"
    """A person is asked whether the call is made."""

    HELD = "held"
    """The call has not begun: it waits for others."""

    ANSWERED = "answered"
    """No effect is needed: a message of the thread answers the call already."""


PENDING: Final = Mark.PENDING
ASKED: Final = Mark.ASKED
HELD: Final = Mark.HELD
ANSWERED: Final = Mark.ANSWERED


CallSlot = Value | Failure | Mark
ChildSlot = Outcome | Mark


class Feedback(NamedTuple):
    """A reply that failed, and the user's message about it: the next attempt reads both, and keeps neither."""

    reply: Reply
    text: str


EMPTY: Final[dict[Any, Any]] = {}


class Made(NamedTuple):
    """The values of the tool calls of a thread's message at index ``at``; ``PENDING`` for a call without a value.

    ``approved`` are the calls that a person has approved, by their indices.
    """

    at: int
    values: tuple[CallSlot, ...]
    approved: Mapping[int, Approved] = EMPTY


class RequestSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a model is asked with, besides the messages. ``offered`` are the names of ``tools``.

    ``state`` is the name of the state that asks. ``computed_form`` is the form of the reply, if templates give a part
    of it. ``keeps_reasoning`` says whether the reasoning of the reply stays in the thread.
    """

    state: str
    model: str
    sampling: Mapping[str, JSON]
    tools: tuple[ToolDeclaration, ...]
    offered: tuple[str, ...]
    tool_choice: str
    response_format: ResponseFormat | None
    computed_form: ResponseFormat | None = None
    keeps_reasoning: bool = True


def _empty() -> dict[Any, Any]:
    """Return the empty mapping that all new runs share. Mappings of a run are replaced, never changed in place."""
    return EMPTY


class Draft(msgspec.Struct, gc=False, kw_only=True):
    """A run that a transition may change. ``Run`` explains the fields."""

    id: str = ""
    status: Literal["new", "running", "waiting", "sleeping", "succeeded", "failed", "cancelled"] = "new"
    inputs: Mapping[str, JSON] = {}
    state: str = ""
    step: int = 0
    rounds: int = 0
    attempt: int = 1
    call_count: int = 0
    threads: Mapping[str, Log[Message]] = msgspec.field(default_factory=_empty)
    asked: Mapping[str, RequestSettings] = msgspec.field(default_factory=_empty)
    vars: Mapping[str, JSON] = msgspec.field(default_factory=_empty)
    outputs: Mapping[str, Any] = msgspec.field(default_factory=_empty)
    reply: LazyReply | None = None
    results: LazyResults | None = None
    error: LazyError | None = None
    awaiting: Literal["", "effect", "calls", "children", "sleep"] = ""
    left: int = 0
    returned: Value | None = None
    calls: Slots[CallSlot] | None = None
    children: Slots[ChildSlot] | None = None
    memo: tuple[Any, ...] = ()
    started: int = 0
    own_from: int = 0
    approved: Mapping[int, Approved] = msgspec.field(default_factory=_empty)
    made: Mapping[str, Made] = msgspec.field(default_factory=_empty)
    unread: frozenset[str] = frozenset()
    replaced: Mapping[str, Log[Message]] = msgspec.field(default_factory=_empty)
    max_rounds: int = 0
    max_steps: int = 0
    tool_calls: int = 0
    max_tool_calls: int | None = None
    token_limits: TokenLimits | None = None
    child_steps: int = 0
    path: Log[str] = Log()
    usage: Usage = Usage()
    outcome: Outcome | None = None
    timeout: float | None = None
    feedback: Feedback | None = None
    seed: int | None = None
    replies: Log[KeptReply] = Log()


class Run(Draft, frozen=True, gc=False, kw_only=True):  # type: ignore[misc]  # mypy has a rule of dataclasses here
    """One run of a flow, as the fold of its events so far.

    Attributes:
        step: the number of states entered, where each further attempt counts again.
        asked: by thread, what a model was last asked with.
        outputs: by state; those of chat and tools states become plain data when a template reads them.
        awaiting: the source of the next event: one effect, the calls of a tools state, the children of a state that
            runs sub-flows, or the pause before another attempt.
        left: the number of calls or children without a result.
        started: in a state that runs sub-flows, the number of children that were started; in a tools state with
            ``max_concurrency``, the number of calls that are not held back; in a chat state, 1 once its own messages
            are on the thread.
        own_from: in a state that reads its thread in its own way, the index of its first own message on the thread.
        approved: in a tools state, the calls that a person has approved, by their indices.
        tool_calls: the tool calls of the run and its children; counted only if ``max_tool_calls`` limits them.
        token_limits: those that hold for ``usage``; runs that share them use them up too, so they fall meanwhile.
        returned, calls, children: the results of the current state; another attempt reuses those that succeeded.
        memo: what the current state remembers of this visit: the items of a map state, the ``Loop`` of an agent.
        timeout: the seconds that the current state may take, if a template gives them.
        feedback: what the next request of the current state shows of an attempt that failed.
        made: by thread, the values of tool calls whose state failed afterwards: the next tools state reuses them.
        replaced: by thread that began anew, the messages that it held when a model was last asked about it, until a
            model has replied to the new ones.
        replies: of the run and its children, those whose tokens are kept.
        seed: what the seeds of the run's requests are made of; None: they have those of the spec, if any.
        unread: the threads whose last reply has tool calls that no state has handled and no template has read.
    """


def mixed_seed(seed: int | None, *place: int | str) -> int | None:
    """Return a seed for one place under another one, of 31 bits, which every backend takes; None if there is none."""
    return None if seed is None else zlib.crc32(repr((seed, *place)).encode()) & 0x7FFFFFFF


def without(mapping: Mapping[str, T], key: str) -> dict[str, T]:
    """Return a mapping of a run without one of its keys."""
    return {name: value for name, value in mapping.items() if name != key}


_CALLING: Final = re.compile(r"""\s*reply is calling\(\s*(?:'([\w-]+)'|"([\w-]+)")\s*\)\s*""")
"""The condition whether the last reply calls a tool."""

_set_class: Final[Callable[[Draft, type[Draft]], None]] = object.__dict__["__class__"].__set__
"""Sets the class of an object, which the ``__setattr__`` of a frozen struct refuses to do."""


copy_of: Final[Callable[[Draft], Draft]] = msgspec.structs.replace
"""Copies a run; the copy is frozen if the run is."""


def thaw(run: Draft) -> Draft:
    """Return a copy of a run that can be changed."""
    draft = copy_of(run)
    _set_class(draft, Draft)
    return draft


class Transition(NamedTuple):
    """The machine's decision on an event: the run after it, the effects to perform, and the moves that were made."""

    run: Run
    effects: tuple[Effect, ...] = ()
    moves: tuple[Move, ...] = ()


VARIABLES: Final[Mapping[str, Callable[[Draft], Any]]] = {
    "inputs": lambda run: run.inputs,
    "vars": lambda run: run.vars,
    "outputs": lambda run: LazyOutputs(run.outputs),
    "reply": lambda run: run.reply,
    "results": lambda run: run.results,
    "error": lambda run: run.error,
    "run": lambda run: {name: getattr(run, name) for name in RunView.__annotations__},
    "threads": lambda run: LazyThreads(run.threads) if run.threads else None,
}
"""How the variables that templates see are read from a run; None: the variable is absent."""


class RunScope(Mapping[str, Any]):
    """The variables that templates see in a run. One without a value is absent, so a template that reads it fails."""

    __slots__ = ("_extra", "_run")

    def __init__(self, run: Draft, extra: Mapping[str, Any] = EMPTY) -> None:
        self._run = run
        self._extra = extra

    def __getitem__(self, name: str) -> Any:
        if self._extra and name in self._extra:
            return self._extra[name]
        if (value := VARIABLES[name](self._run)) is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        yield from (name for name, read in VARIABLES.items() if read(self._run) is not None)
        yield from self._extra

    def __len__(self) -> int:
        return sum(1 for _ in self)


def is_about_calls(text: str) -> bool:
    """Return whether a condition only asks for the calls of the last reply: where there is a reply, it cannot fail."""
    return text.strip() == "reply.tool_calls" or _CALLING.fullmatch(text) is not None


def compile_route_condition(text: str) -> Callable[[Draft], bool]:
    """Compile the condition of a route. A bare path is read from the run itself, without a scope.

    Raises:
        TemplateError: the text is not an expression; the returned function raises it if its value is no condition.
    """
    in_scope = compile_condition(text)
    root, *keys = text.strip().split(".")
    if (root, *keys) == ("reply", "tool_calls"):  # in the routes of every agent: no view of the calls is made
        return lambda run: in_scope(RunScope(run)) if run.reply is None else bool(run.reply.message.tool_calls)
    if (calling := _CALLING.fullmatch(text)) is not None:
        tool = calling[1] or calling[2]
        return lambda run: (
            in_scope(RunScope(run))
            if run.reply is None
            else any(call.name == tool for call in run.reply.message.tool_calls)
        )
    if not keys or root not in VARIABLES or not is_path(text.strip()):
        return lambda run: in_scope(RunScope(run))
    read = VARIABLES[root]

    def holds(run: Draft) -> bool:
        value = read(run)
        try:
            for key in keys:
                value = value[key]
        except (KeyError, TypeError):
            return in_scope(RunScope(run))
        return bool(value) if isinstance(value, Lazy) else as_condition(value, text)

    return holds
