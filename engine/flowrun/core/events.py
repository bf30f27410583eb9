"""What a run asks the world for (effects), and what the world answers (events). Data only.

Both name their place in the run: ``step`` counts the states entered, from 1, and ``index`` the effects of
that step, from 0. An event whose place is not awaited any more changes nothing.
"""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

import msgspec

from flowrun.core.messages import Log, Message, Reply, Usage
from flowrun.errors import Failure
from flowrun.spec.model import JSON, ResponseFormat


class _Data(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag=True, tag_field="kind"):
    """Base of effects and events: their JSON form carries the class's name as ``kind``."""


# --- events -------------------------------------------------------------------------------------------------------


class Started(_Data, frozen=True, kw_only=True):
    """The run begins. ``inputs`` are whole: the spec's defaults are filled in.

    A child run's limits are what its parent has left of its own, unless its own are lower.
    """

    run: str
    inputs: Mapping[str, JSON]
    max_rounds: int | None = None
    max_steps: int | None = None


class CallStarted(_Data, frozen=True, kw_only=True, tag="Began"):
    """A ``CallFunction`` is about to be made. It changes no run: after a crash it says which calls are in doubt."""

    step: int
    index: int = 0


class Replied(_Data, frozen=True, kw_only=True):
    """The model answered an ``AskModel``."""

    step: int
    reply: Reply


class Returned(_Data, frozen=True, kw_only=True):
    """A ``CallFunction`` gave ``value``, a JSON value."""

    step: int
    index: int = 0
    value: JSON = None


class Failed(_Data, frozen=True, kw_only=True):
    """An effect failed."""

    step: int
    index: int = 0
    failure: Failure


class ChildEnded(_Data, frozen=True, kw_only=True):
    """A ``StartChild`` came to its end, having asked for ``rounds`` replies and entered ``steps`` states."""

    step: int
    index: int = 0
    outcome: "Outcome"
    rounds: int = 0
    steps: int = 0
    usage: Usage = Usage()


class Answered(_Data, frozen=True, kw_only=True):
    """Somebody answered a ``RequestInput``."""

    step: int
    value: JSON = None


class Slept(_Data, frozen=True, kw_only=True):
    """A ``Sleep`` is over."""

    step: int


class TimedOut(_Data, frozen=True, kw_only=True):
    """The time of the run (``step`` 0) or of the state that it is in is up."""

    step: int = 0


class Cancelled(_Data, frozen=True, kw_only=True):
    """Somebody outside wants the run to end."""

    reason: str = ""


Answer: TypeAlias = Replied | Returned | Failed | ChildEnded | Answered | Slept
"""An event that answers an effect of the step that it names."""

ANSWERS: Final = (Replied, Returned, Failed, ChildEnded, Answered, Slept)
"""The classes of ``Answer``."""

Event: TypeAlias = Started | CallStarted | Answer | TimedOut | Cancelled


# --- effects ------------------------------------------------------------------------------------------------------


class ToolDeclaration(msgspec.Struct, frozen=True, kw_only=True):
    """A tool as the model is told of it. ``parameters`` is a JSON Schema of an object."""

    name: str
    description: str
    parameters: Mapping[str, JSON]
    strict: bool = False


class AskModel(_Data, frozen=True, kw_only=True):
    """Ask a model for one reply to the whole thread ``messages``.

    ``tool_choice`` is auto, required, none or a tool's name.
    """

    step: int
    state: str
    run: str
    thread: str
    model: str
    messages: Log[Message]
    tools: tuple[ToolDeclaration, ...] = ()
    tool_choice: str = "auto"
    sampling: Mapping[str, JSON] = {}
    response_format: ResponseFormat | None = None


class CallFunction(_Data, frozen=True, kw_only=True):
    """Call a Python function: a tool that the model chose (``tool`` is its name) or a call state's (None).

    ``attempt`` counts the state's attempts from 1.
    """

    step: int
    index: int = 0
    state: str
    run: str
    entrypoint: str
    arguments: Mapping[str, JSON]
    timeout: float | None = None
    tool: str | None = None
    call_id: str | None = None
    idempotent: bool = False
    attempt: int = 1

    @property
    def key(self) -> str:
        """The idempotency key: the same on each attempt, for each of which the run enters one step more."""
        return f"{self.run}/{self.step - self.attempt + 1}/{self.index}"


class StartChild(_Data, frozen=True, kw_only=True):
    """Run a sub-flow to its end, within what is left of the parent's limits."""

    step: int
    index: int = 0
    state: str
    flow: str
    inputs: Mapping[str, JSON]
    max_rounds: int
    max_steps: int


class RequestInput(_Data, frozen=True, kw_only=True, tag="AskPerson"):
    """Wait until somebody answers ``prompt`` with a value that matches ``schema``."""

    step: int
    state: str
    run: str
    prompt: str
    schema: Mapping[str, JSON]


class Sleep(_Data, frozen=True, kw_only=True):
    """Wait before the next attempt: ``seconds``, and up to the share ``jitter`` of it more, as chance has it."""

    step: int
    seconds: float
    jitter: float = 0.0


class Outcome(_Data, frozen=True, kw_only=True):
    """How a run ended; the last effect of every run."""

    status: Literal["succeeded", "failed", "cancelled"]
    output: JSON = None
    error: Failure | None = None


Effect = AskModel | CallFunction | StartChild | RequestInput | Sleep | Outcome


class Move(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """How a visit of a state ended: by which route or catch, from 0, and to which state; by a retry, or with the run.

    ``sets`` are the variables that the state set, ``failure`` is what was caught, retried, or ended the run.
    """

    state: str
    step: int
    how: Literal["route", "catch", "retry", "end"]
    to: str = ""
    index: int | None = None
    failure: Failure | None = None
    sets: Mapping[str, JSON] = {}


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What an observer is told: an event, the state that the run is in after it, and the effects and moves that it led
    to.
    """

    run: str
    state: str
    step: int
    event: Event
    effects: tuple[Effect, ...]
    moves: tuple[Move, ...] = ()


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """An event as a journal keeps it: its place in the run, when it was written down (seconds since the epoch), and
    the state that the run was in after it.
    """

    seq: int
    at: float
    state: str
    event: Event
