"""The transcript of a run, as data: its visits of states, with the activities of each visit and their results.

Times are those of the journal, in seconds since the epoch: an activity begins with the event that caused its effect (a
function call with its recorded intent) and ends with the event of its effect. The names in the JSON form are stable;
some differ from the attributes.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from flowrun.core.events import Outcome, SaidMessages
from flowrun.core.messages import Message, Reply, Usage
from flowrun.errors import Failure
from flowrun.spec.model import JSON

Status = Literal[
    "running",
    "waiting",
    "sleeping",
    "needs_attention",
    "interrupted",
    "given_up",
    "succeeded",
    "failed",
    "cancelled",
]
"""The status of a run. ``given_up``: its parent left the state that had started it before it ended."""

CallStatus = Literal["returned", "failed", "running", "in_doubt", "open", "given_up", "refused"]
"""The status of a call. ``refused``: it was not made, because the tool or its arguments are wrong. ``in_doubt``: its
intent was recorded, but no result, and the function is not idempotent.
"""


class _Activity(msgspec.Struct, frozen=True, kw_only=True, tag=str.lower, tag_field="kind"):
    """The base of activities: the effect of a visit with its result. ``seconds`` is None if it has not ended."""

    index: int = 0
    began: float
    seconds: float | None = None


class Round(_Activity, frozen=True, kw_only=True):
    """A request to a model, and its reply. The tokens of messages and replies are left out.

    ``messages`` are the ones that are new since the last round of the thread, without those that a state said, and then
    those of this request only; ``earlier`` counts the others. ``left_out`` counts those of the thread that the model
    did not read, and ``system`` is the state's own system message.
    """

    thread: str
    model: str
    earlier: int
    messages: tuple[Message, ...]
    system: str | None = None
    left_out: int = 0
    tools: tuple[str, ...]
    tool_choice: str
    sampling: Mapping[str, JSON]
    reply: Reply | None = None
    failure: Failure | None = None


class FunctionCall(_Activity, frozen=True, kw_only=True, tag="call"):
    """A call of a Python function; ``tool`` is set if the model chose it. ``begins`` counts the recorded intents."""

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
        """The name of the tool, or else the entrypoint."""
        return self.tool or self.entrypoint


class Question(_Activity, frozen=True, kw_only=True):
    """A question of a ``wait`` state, or about a tool's ``call``. ``answer`` is valid only if ``answered``."""

    prompt: str
    schema: Mapping[str, JSON]
    call: Mapping[str, JSON] | None = None
    answered: bool = False
    answer: JSON = None
    failure: Failure | None = None


class Pause(_Activity, frozen=True, kw_only=True):
    """A pause: ``planned`` seconds, plus a random time of up to ``jitter`` times them; or ``until`` a point in time."""

    planned: float
    jitter: float
    until: float | None = None

    @property
    def ends(self) -> float:
        """When it was to end, without the random time, in seconds since the epoch."""
        return self.began + self.planned if self.until is None else self.until


class Child(_Activity, frozen=True, kw_only=True):
    """A child run. ``transcript`` is None if it has no recorded events; ``outcome`` is what its parent received."""

    run: str
    flow: str
    label: str
    inputs: Mapping[str, JSON]
    outcome: Outcome | None = None
    transcript: "Transcript | None" = msgspec.field(default=None, name="story")

    @property
    def status(self) -> Status:
        """The status of the run; ``interrupted`` if nothing is known of it."""
        known = self.outcome or self.transcript
        return "interrupted" if known is None else known.status


Activity = Round | FunctionCall | Question | Pause | Child


class Exit(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a visit.

    ``route`` and ``catch`` move ``to`` the next state: ``number`` is the index of the route or catch, from 0, and
    ``when`` its condition. ``retry`` starts another attempt. ``end`` ends the run.
    """

    how: Literal["route", "catch", "retry", "end"]
    to: str = ""
    number: int = 0
    when: str = ""
    failure: Failure | None = None


class Visit(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a state: its activities, what it set and said, and its exit (None: not yet).

    ``type`` is the look of the state: its type, or the status of an end.
    """

    state: str
    type: str
    step: int
    attempt: int
    began: float
    seconds: float | None
    activities: tuple[Activity, ...] = msgspec.field(name="acts")
    sets: Mapping[str, JSON]
    said: tuple[SaidMessages, ...] = ()
    exit: Exit | None = msgspec.field(name="left")


class Attention(msgspec.Struct, frozen=True, kw_only=True):
    """A question without an answer, or an in-doubt call, that a person has to resolve, with its place.

    ``visit`` is the step with which the visit of the state began.
    """

    run: str
    step: int
    visit: int
    state: str
    about: Question | FunctionCall


class Totals(msgspec.Struct, frozen=True, kw_only=True):
    """The steps, rounds, calls, children and tokens of a run and its children together."""

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
    """A full run. ``seconds`` is the time from its first event to the last one of it or its children.

    ``forked_from`` is the run and the step, as ``RUN/STEP``, that a fork began at: it did nothing before that step.

    ``diverged_at`` is the number of the first event after which the machine is in another state than was recorded:
    another version of flowrun recorded the run, or a route depended on a secret. The transcript is wrong from there on.
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
    forked_from: str | None = None
    diverged_at: int | None = msgspec.field(default=None, name="departed")
