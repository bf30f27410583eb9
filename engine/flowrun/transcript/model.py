"""What happened in a run, as data: its visits of states, what each of them asked of the world, and what came of it.

Times are in seconds since the epoch, as the journal wrote them down: an effect begins with the event that led to it (a
function call with the intent that was written before it) and ends with its own event.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from flowrun.core.events import Outcome
from flowrun.core.messages import Message, Reply, Usage
from flowrun.drawing.picture import Kind
from flowrun.errors import Failure
from flowrun.spec.model import JSON

Status = Literal["running", "waiting", "needs_attention", "interrupted", "given_up", "succeeded", "failed", "cancelled"]
"""How a run stands. ``given_up``: its parent left the state that had started it before it ended."""

CallStatus = Literal["returned", "failed", "running", "in_doubt", "open", "given_up", "refused"]
"""How a call stands. ``refused``: it was never made, because the tool or its arguments are wrong. ``in_doubt``: it was
about to be made, nobody knows whether it was, and to make it again might do harm.
"""


class _Activity(msgspec.Struct, frozen=True, kw_only=True, tag=str.lower, tag_field="kind"):
    """Base of what a visit asks of the world. ``seconds`` is None if it has not ended, or never did."""

    index: int = 0
    began: float
    seconds: float | None = None


class Round(_Activity, frozen=True, kw_only=True):
    """A reply asked of a model. ``messages`` are those that no earlier round on the thread had shown it.

    ``earlier`` counts the others. The tokens of messages and replies are left out.
    """

    thread: str
    model: str
    earlier: int
    messages: tuple[Message, ...]
    tools: tuple[str, ...]
    tool_choice: str
    sampling: Mapping[str, JSON]
    reply: Reply | None = None
    failure: Failure | None = None


class FunctionCall(_Activity, frozen=True, kw_only=True, tag="call"):
    """A Python function called; ``tool`` is its name if the model chose it. ``begins`` counts the intents written."""

    tool: str | None
    entrypoint: str
    arguments: JSON
    call_id: str | None = None
    idempotent: bool = False
    begins: int = 0
    status: CallStatus
    value: JSON = None
    failure: Failure | None = None

    @property
    def name(self) -> str:
        """The tool's name, or the function's own."""
        return self.tool or self.entrypoint


class Question(_Activity, frozen=True, kw_only=True):
    """A person asked. ``answer`` counts only if ``answered``."""

    prompt: str
    schema: Mapping[str, JSON]
    answered: bool = False
    answer: JSON = None


class Pause(_Activity, frozen=True, kw_only=True):
    """A rest before another attempt, ``planned`` seconds and up to the share ``jitter`` of it more."""

    planned: float
    jitter: float


class Child(_Activity, frozen=True, kw_only=True):
    """A sub-flow started. ``story`` is None if nothing was recorded of it; ``outcome`` as its parent was told."""

    run: str
    flow: str
    label: str
    inputs: Mapping[str, JSON]
    outcome: Outcome | None = None
    story: "Transcript | None" = None


Activity = Round | FunctionCall | Question | Pause | Child


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """How a visit ended.

    ``route`` and ``catch`` lead ``to`` another state by the way of that ``number`` (from 0), on the condition ``when``;
    ``retry`` leads to another attempt; ``end`` is that of the run.
    """

    how: Literal["route", "catch", "retry", "end"]
    to: str = ""
    number: int = 0
    when: str = ""
    failure: Failure | None = None


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a state: what it asked for, the variables that it set, and how it was left (None: not yet)."""

    state: str
    type: Kind
    step: int
    attempt: int
    began: float
    seconds: float | None
    acts: tuple[Activity, ...]
    sets: Mapping[str, JSON]
    left: Exit | None


class Attention(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody has to do something about: a question without an answer, or a call in doubt, and where it is."""

    run: str
    step: int
    state: str
    about: Question | FunctionCall


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """What a run and its children took together."""

    steps: int = 0
    rounds: int = 0
    calls: int = 0
    children: int = 0
    usage: Usage = Usage()

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            steps=self.steps + other.steps,
            rounds=self.rounds + other.rounds,
            calls=self.calls + other.calls,
            children=self.children + other.children,
            usage=self.usage + other.usage,
        )


class Transcript(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. ``seconds`` are those from its first event to the last one of it or its children.

    ``departed`` is the place of the first event after which the machine is in another state than was recorded, because
    another version of flowrun recorded it or a secret decided: what is told from there on is not what happened.
    """

    run: str
    flow: str
    version: str
    description: str
    status: Status
    began: float
    seconds: float
    inputs: Mapping[str, JSON]
    path: tuple[str, ...]
    visits: tuple[Visit, ...]
    outcome: Outcome | None
    attention: tuple[Attention, ...]
    totals: Totals
    departed: int | None = None
