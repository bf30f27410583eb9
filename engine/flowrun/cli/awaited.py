"""What a run and its sub-runs await, since when, and where the time went. Fed with notices; prints nothing."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from flowrun.core.events import (
    ANSWERS,
    Answer,
    Answered,
    AskModel,
    CallFunction,
    ChildEnded,
    Effect,
    Notice,
    Outcome,
    Replied,
    RequestInput,
    Returned,
    Sleep,
    Slept,
    StartChild,
    Written,
)
from flowrun.core.graph import Graph
from flowrun.durations import spell_duration, spell_moment
from flowrun.spec.model import MAIN, PauseState

MODEL: Final = "model"
TOOLS: Final = "tools"
WAITING: Final = "waiting"

_KINDS: Final[dict[type, str]] = {AskModel: MODEL, CallFunction: TOOLS, RequestInput: WAITING, Sleep: WAITING}
"""What the time of an effect is spent on. A sub-run's is that of its own effects."""

_KINDS_OF_EVENTS: Final[dict[type, str]] = {Replied: MODEL, Returned: TOOLS, Answered: WAITING, Slept: WAITING}
"""The same, for events whose effects began before the run was resumed."""

_SHOWN_TOOLS: Final = 3

_KEPT: Final = 4000
"""Characters, at the end of a text that is being written, that are kept to be shown."""


class Pending(NamedTuple):
    """An effect that is under way. ``place`` is the text of ``Awaited.place``."""

    run: str
    state: str
    effect: AskModel | CallFunction | RequestInput | Sleep | StartChild
    since: float
    place: str


class Ended(NamedTuple):
    """An effect that has its event.

    Attributes:
        effect: None in a run that was resumed after the effect began.
        done, left: the number of effects of the same step that have ended, and that are under way now.
    """

    step: int
    effect: Effect | None
    seconds: float
    place: str
    done: int
    left: int


class Awaited:
    """The pending effects of a run and of its sub-runs.

    Args:
        graph: the run's graph.
    """

    def __init__(self, graph: Graph, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._graph = graph
        self._graphs: dict[str, Graph] = {}  # of the sub-runs
        self._pending: dict[tuple[str, int, int], Pending] = {}
        self._done: Counter[tuple[str, int]] = Counter()
        self._left: Counter[tuple[str, int]] = Counter()
        self._retries: Counter[tuple[str, str]] = Counter()
        self._spans: dict[str, list[tuple[float, float]]] = {MODEL: [], TOOLS: [], WAITING: []}
        self._began = clock()
        self._entered: dict[tuple[str, int], float] = {}
        self._questions = 0
        self._ended: float | None = None
        self._texts: dict[tuple[str, int, int], str] = {}  # of replies under way; the one that grew last is the last

    def begin(self) -> None:
        """Count the time from now on."""
        self._began = self._clock()

    def take(self, notice: Notice) -> Ended | None:
        """Apply a notice; return the effect whose event it is, if it is the event of an effect."""
        ended = self._end(notice, notice.event) if isinstance(notice.event, ANSWERS) else None
        for move in notice.moves:
            self._drop(notice.run, move.step)
            if move.how == "retry":
                self._retries[notice.run, move.state] += 1
            else:
                self._retries.pop((notice.run, move.state), None)
        if ended is not None and ended.step < notice.step:
            self._drop(notice.run, ended.step)  # an agent's turn ends without a move
        for effect in notice.effects:
            if not isinstance(effect, Outcome):
                self._start(notice, effect)
            elif "." not in notice.run:
                self._ended = self._clock()
        self._texts = {key: text for key, text in self._texts.items() if key in self._pending}
        return None if ended is None else ended._replace(left=self._left[notice.run, ended.step])

    def write(self, written: Written) -> None:
        """Add a piece to the text of a reply that is awaited."""
        key = written.run, written.step, 0
        known = self._texts.pop(key, "")
        if written.text is not None and key in self._pending:
            self._texts[key] = (known + written.text)[-_KEPT:]

    def text(self) -> str:
        """Return the end of the text that grew last among those that are being written, with its place.

        May be called in another thread.
        """
        for key, text in reversed([*self._texts.items()]):
            if (pending := self._pending.get(key)) is not None:
                return f"[{pending.place}] {text}"
        return ""

    @property
    def pending(self) -> bool:
        """Return whether anything is awaited."""
        return bool(self._pending)

    @property
    def asks(self) -> bool:
        """Return whether a question is open."""
        return self._questions > 0

    def attempt(self, run: str, state: str) -> int:
        """Return the number of the state's next attempt, from 1."""
        return 1 + self._retries[run, state]

    def place(self, run: str, state: str, thread: str = MAIN) -> str:
        """Return where something happens: the sub-run if it is one, the state, and the thread if it is not ``main``."""
        child = run.partition(".")[2]
        names = (f"run {child}" if child else "", state, f"thread {thread}" if thread != MAIN else "")
        return ", ".join(filter(None, names))

    def describe(self) -> tuple[str, float] | None:
        """Return what is awaited, and since when its state awaits anything; None if nothing is.

        May be called in another thread.
        """
        pending = list(self._pending.values())
        if not pending:
            return None
        first = pending[0]
        since = self._entered.get((first.run, first.effect.step), first.since)
        return f"{first.place}: {', '.join(self._parts(pending))}", since

    def times(self) -> tuple[float, dict[str, float]]:
        """Return the seconds so far, and for how many of them a model, a tool, and a person or a pause was awaited.

        In parallel branches, several are awaited at once.
        """
        now = self._clock() if self._ended is None else self._ended
        spans = {kind: list(closed) for kind, closed in self._spans.items()}
        for one in self._pending.values():
            if (kind := _KINDS.get(type(one.effect))) is not None:
                spans[kind].append((one.since, now))
        return now - self._began, {kind: covered(closed) for kind, closed in spans.items()}

    def _start(self, notice: Notice, effect: AskModel | CallFunction | RequestInput | Sleep | StartChild) -> None:
        run, state, graph = notice.run, notice.state, self._graph_of(notice.run)
        thread = getattr(graph.spec.states[state], "thread", MAIN) if graph is not None else MAIN
        if isinstance(effect, AskModel):
            thread = effect.thread
        if isinstance(effect, StartChild) and effect.cancel:
            return
        if isinstance(effect, StartChild) and graph is not None:
            self._graphs[effect.child_id(run)] = graph.flows[effect.flow]
        now = self._clock()
        pending = Pending(run, state, effect, now, self.place(run, state, thread))
        self._pending[run, effect.step, getattr(effect, "index", 0)] = pending
        self._left[run, effect.step] += 1
        if not isinstance(effect, Sleep):
            self._entered.setdefault((run, effect.step), now)
        self._questions += isinstance(effect, RequestInput)

    def _end(self, notice: Notice, event: Answer) -> Ended:
        run, now, index = notice.run, self._clock(), getattr(event, "index", 0)
        pending = self._pending.pop((run, event.step, index), None)
        step = run, event.step
        self._done[step] += not isinstance(event, Slept)  # the pause belongs to the step of the attempt after it
        if isinstance(event, ChildEnded):
            self._graphs.pop(f"{run}.{event.step}.{index}", None)
        if pending is None:
            if (kind := _KINDS_OF_EVENTS.get(type(event))) is not None:
                self._spans[kind].append((self._began, now))
            left = notice.moves[0].state if notice.moves and notice.moves[0].step == event.step else notice.state
            return Ended(event.step, None, now - self._began, self.place(run, left), self._done[step], self._left[step])
        self._left[step] -= 1
        self._close(pending, now)
        return Ended(event.step, pending.effect, now - pending.since, pending.place, self._done[step], self._left[step])

    def _drop(self, run: str, step: int) -> None:
        """Forget what is pending in a step that a run has left, and in the sub-runs of that step."""
        left, children, now = (run, step), f"{run}.{step}.", self._clock()
        self._done.pop(left, None)
        self._entered.pop(left, None)
        if self._left.pop(left, 0):
            for key in [key for key in self._pending if key[:2] == left or key[0].startswith(children)]:
                self._done.pop(key[:2], None)
                self._left.pop(key[:2], None)
                self._entered.pop(key[:2], None)
                self._close(self._pending.pop(key), now)

    def _close(self, pending: Pending, now: float) -> None:
        self._questions -= isinstance(pending.effect, RequestInput)
        if (kind := _KINDS.get(type(pending.effect))) is not None:
            self._spans[kind].append((pending.since, now))

    def _graph_of(self, run: str) -> Graph | None:
        return self._graphs.get(run) if "." in run else self._graph

    def _parts(self, pending: Iterable[Pending]) -> Iterator[str]:
        """Yield what is awaited, one kind after another."""
        models = [one.effect.model for one in pending if isinstance(one.effect, AskModel)]
        calls = [one for one in pending if isinstance(one.effect, CallFunction)]
        children = [one for one in pending if isinstance(one.effect, StartChild)]
        if models:
            name = "" if {*models} == {"default"} else f" {', '.join(dict.fromkeys(models))}"
            yield f"the model{name} is writing" + (f" {len(models)} replies" if len(models) > 1 else "")
        if calls:
            names = list(dict.fromkeys(name_of(one.effect) for one in calls if isinstance(one.effect, CallFunction)))
            more = f" and {len(names) - _SHOWN_TOOLS} more" if len(names) > _SHOWN_TOOLS else ""
            running = "is running" if len(names) == 1 else "are running"
            done, left = self._counts(calls)
            of = f", {done} of {done + left} calls done" if done + left > 1 else ""
            yield f"{', '.join(names[:_SHOWN_TOOLS])}{more} {running}{of}"
        for one in pending:
            if isinstance(one.effect, RequestInput):
                yield "an answer is awaited"
            elif isinstance(one.effect, Sleep):
                yield self.pause(one.run, one.state, one.effect)
        if children:
            done, left = self._counts(children)
            yield f"sub-runs: {left} under way" + (f", {done} ended" if done else "")

    def pause(self, run: str, state: str, effect: Sleep) -> str:
        """Return in words what a run waits for: another attempt, or the end of its pause state."""
        graph = self._graph_of(run)
        if graph is None or not isinstance(graph.spec.states[state], PauseState):
            return f"{spell_duration(effect.seconds)} until attempt {self.attempt(run, state)}"
        if effect.until is not None:
            return f"sleeping until {spell_moment(effect.until, None)}"
        return f"sleeping for {spell_duration(effect.seconds)}"

    def _counts(self, pending: Iterable[Pending]) -> tuple[int, int]:
        """Return how many effects have ended in the steps of some pending ones, and how many are under way."""
        steps = {(one.run, one.effect.step) for one in pending}
        return sum(self._done[step] for step in steps), sum(self._left[step] for step in steps)


def name_of(call: CallFunction) -> str:
    """Return the name under which people know a function: the tool's, or its entrypoint."""
    return call.tool or call.entrypoint


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of some spans of time."""
    total, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, until))
        until = max(until, end)
    return total
