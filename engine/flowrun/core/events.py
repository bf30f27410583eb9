"""Effects, which a run requests from the runner, and events, which are their results. Data only.

Both have their place in the run: ``step`` counts the states entered, from 1, and ``index`` counts the effects of that
step, from 0. An event whose place has no pending effect changes nothing.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import msgspec

from flowrun.core.messages import KeptReply, Log, Message, Reply, Usage
from flowrun.errors import Failure
from flowrun.spec.model import JSON, Isolation, ResponseFormat, TokenLimits


class _Data(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True, tag=True, tag_field="kind"):
    """The base of effects and events: their JSON form has the tag of the class as ``kind``."""


# --- events -------------------------------------------------------------------------------------------------------


class Started(_Data, frozen=True, kw_only=True):
    """The run starts. ``inputs`` contain the spec's defaults.

    A child run may use the rounds, steps, tool calls and tokens that its parent has left, unless its own limits are
    lower. ``forked_from`` is the run and the step, as ``RUN/STEP``, that a fork begins at. ``seed`` gives each request
    of the run a seed of its own. ``keeps_tokens`` says for whoever resumes the run that the tokens of its replies, and
    of its children's, are kept.
    """

    run: str
    inputs: Mapping[str, JSON]
    max_rounds: int | None = None
    max_steps: int | None = None
    max_tool_calls: int | None = None
    token_limits: TokenLimits | None = None
    forked_from: str | None = None
    seed: int | None = None
    keeps_tokens: bool = False


class CallStarted(_Data, frozen=True, kw_only=True, tag="Began"):
    """A ``CallFunction`` is about to be performed. Changes no run; after a crash, it shows which calls are in doubt."""

    step: int
    index: int = 0


class Replied(_Data, frozen=True, kw_only=True):
    """The model replied to an ``AskModel``.

    ``tokens_left`` is what the limits of the runs above leave to a child, which other children use up meanwhile.
    """

    step: int
    reply: Reply
    tokens_left: TokenLimits | None = None


class Returned(_Data, frozen=True, kw_only=True):
    """The function of a ``CallFunction`` returned ``value``."""

    step: int
    index: int = 0
    value: JSON = None


class Failed(_Data, frozen=True, kw_only=True):
    """An effect failed."""

    step: int
    index: int = 0
    failure: Failure


class ChildEnded(_Data, frozen=True, kw_only=True):
    """The child run of a ``StartChild`` ended, after ``rounds`` requests to models and ``steps`` entered states.

    ``tool_calls`` are those that its models made, ``replies`` those whose tokens are kept.
    """

    step: int
    index: int = 0
    outcome: "Outcome"
    rounds: int = 0
    steps: int = 0
    tool_calls: int = 0
    usage: Usage = Usage()
    replies: tuple[KeptReply, ...] = ()


class Answered(_Data, frozen=True, kw_only=True):
    """A person or a program answered a ``RequestInput``."""

    step: int
    index: int = 0
    value: JSON = None


class Slept(_Data, frozen=True, kw_only=True):
    """A ``Sleep`` is over."""

    step: int


class TimedOut(_Data, frozen=True, kw_only=True):
    """The timeout of the run (``step`` 0) or of the state of that step has expired."""

    step: int = 0


class Cancelled(_Data, frozen=True, kw_only=True):
    """The run is cancelled from outside, and its children with it, which had used these rounds, steps and tokens."""

    reason: str = ""
    rounds: int = 0
    steps: int = 0
    tool_calls: int = 0
    usage: Usage = Usage()


Answer: TypeAlias = Replied | Returned | Failed | ChildEnded | Answered | Slept
"""An event that is the result of an effect, in the step that it names."""

ANSWERS: Final = (Replied, Returned, Failed, ChildEnded, Answered, Slept)
"""The classes of ``Answer``."""

Closing: TypeAlias = Answered | TimedOut | Failed
"""An event that closes a question: its answer, its own timeout (``wait.timeout``), or that of its state."""

Event: TypeAlias = Started | CallStarted | Answer | TimedOut | Cancelled


# --- effects ------------------------------------------------------------------------------------------------------


class ToolDeclaration(msgspec.Struct, frozen=True, kw_only=True):
    """A tool in the form that models receive. ``parameters`` is a JSON Schema of an object."""

    name: str
    description: str
    parameters: Mapping[str, JSON]
    strict: bool = False

    def as_openai(self) -> dict[str, Any]:
        """Return the tool in the form of the OpenAI chat API."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function | {"strict": True} if self.strict else function}


class AskModel(_Data, frozen=True, kw_only=True):
    """Request one reply of a model to ``messages``: the full thread, unless the state reads it in another way.

    ``tool_choice`` is auto, required, none or a tool's name. ``flow`` is the name of the flow that asks. ``round`` is
    the number of this request in the run and its children, from 1. ``previous`` is the thread as the last round left
    it, if ``messages`` do not simply continue it: the state reads another part of it, or it began anew. With
    ``labels``, the reply has their probabilities: the last message letters them A, B, C and so on, in this order.
    """

    step: int
    state: str
    run: str
    flow: str = ""
    round: int = 1
    thread: str
    model: str
    messages: Log[Message]
    previous: Log[Message] | None = None
    tools: tuple[ToolDeclaration, ...] = ()
    tool_choice: str = "auto"
    sampling: Mapping[str, JSON] = {}
    response_format: ResponseFormat | None = None
    labels: tuple[str, ...] = ()

    @property
    def last_thread(self) -> Log[Message]:
        """The thread as the last round left it, with what was added since if ``messages`` simply continue it."""
        return self.messages if self.previous is None else self.previous


class CallFunction(_Data, frozen=True, kw_only=True):
    """Call a Python function: the tool named ``tool``, which the model chose, or, if None, that of a call state.

    ``attempt`` counts the attempts of the state, from 1. ``max_concurrency`` is that of the tool. ``isolation`` says
    where the function runs.
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
    max_concurrency: int | None = None
    isolation: Isolation = "thread"

    @property
    def key(self) -> str:
        """The idempotency key, the same for all attempts: each attempt is one more step."""
        return f"{self.run}/{self.step - self.attempt + 1}/{self.index}"


class StartChild(_Data, frozen=True, kw_only=True):
    """Run a sub-flow to its end, within the rounds, steps, tool calls and tokens that its parent has left.

    With ``cancel``, the run that an earlier effect of this index started is cancelled, and its end is awaited still.
    """

    step: int
    index: int = 0
    state: str
    flow: str
    inputs: Mapping[str, JSON]
    max_rounds: int
    max_steps: int
    max_tool_calls: int | None = None
    token_limits: TokenLimits | None = None
    seed: int | None = None
    cancel: bool = False

    def child_id(self, run: str) -> str:
        """Return the id of the child run: that of its parent, with this effect's step and index."""
        return f"{run}.{self.step}.{self.index}"


class RequestInput(_Data, frozen=True, kw_only=True, tag="AskPerson"):
    """Wait for an answer to ``prompt``, a value that matches ``schema``; after ``timeout`` seconds it is ``Failed``.

    ``call`` is the tool call that the question is about: its ``id``, ``name``, ``arguments``, and those ``hidden`` from
    the model.
    """

    step: int
    index: int = 0
    state: str
    run: str
    prompt: str
    schema: Mapping[str, JSON]
    timeout: float | None = None
    call: Mapping[str, JSON] | None = None

    @property
    def id(self) -> str:
        """The id of the question, which an answer from outside names: run, step and index."""
        return f"{self.run}/{self.step}/{self.index}"


class Sleep(_Data, frozen=True, kw_only=True):
    """Wait ``seconds``, plus a random time of up to ``jitter`` times ``seconds``; or ``until`` a point in time.

    ``until`` is in seconds since the epoch. A pause state requests it, and so does each pause before another attempt.
    """

    step: int
    seconds: float
    jitter: float = 0.0
    until: float | None = None


class Outcome(_Data, frozen=True, kw_only=True):
    """The end of a run; the last effect of every run."""

    status: Literal["succeeded", "failed", "cancelled"]
    output: JSON = None
    error: Failure | None = None


Effect = AskModel | CallFunction | StartChild | RequestInput | Sleep | Outcome


class SaidMessages(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """Messages that a state put onto a thread when it was left; with ``replace``, the thread began anew with them."""

    thread: str
    messages: tuple[Message, ...]
    replace: bool = False


class Move(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The move that ends a visit of a state: to the next state, to another attempt, or to the end of the run.

    Attributes:
        to: the next state; empty at the end of the run.
        index: the index of the route or catch, from 0.
        failure: the failure that was caught, led to the retry, or ended the run.
        sets: the variables that the state set.
        said: the messages that it said.
    """

    state: str
    step: int
    how: Literal["route", "catch", "retry", "end"]
    to: str = ""
    index: int | None = None
    failure: Failure | None = None
    sets: Mapping[str, JSON] = {}
    said: tuple[SaidMessages, ...] = ()


class Notice(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A message to observers: an event, the state of the run after it, and the effects and moves that it caused."""

    run: str
    state: str
    step: int
    event: Event
    effects: tuple[Effect, ...]
    moves: tuple[Move, ...] = ()


class Written(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A message to observers: a piece of what a model is writing, without secrets. No event: no journal holds it.

    Attributes:
        run, state, step: those of the request.
        text: None if the reply is written anew, so that what came before is void; see ``ports.OnText``.
    """

    run: str
    state: str
    step: int
    text: str | None


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """An event in a journal.

    Attributes:
        seq: its number in the run, from 0.
        at: when it was written, in seconds since the epoch.
        state: the state of the run after it.
    """

    seq: int
    at: float
    state: str
    event: Event
