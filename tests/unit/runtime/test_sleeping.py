"""Runs that sleep: by the clock, over a crash, left to whoever resumes them, and without a place in a batch."""

import asyncio
from collections.abc import Sequence

import pytest

from flowrun.core.events import Answered, Cancelled, Event, Recorded
from flowrun.functions.python import PythonFunctions
from flowrun.runtime.flow_runs import find_pending_work
from flowrun.runtime.loop import Loop
from flowrun.runtime.runner import Runner, RunResult
from flowrun.runtime.timers import NOW, due_at
from flowrun.spec.model import JSON
from flowrun.testing.truncatable_journal import TruncatableJournal
from tests.flows import graph_of

NAP = "states: {nap: {type: pause, %s, next: done}, done: {type: end, output: rested}}\n"
WAIT = "states: {ask: {type: wait, prompt: Well?, %s next: done}, done: {type: end}}\n"


class Clock:
    """A clock that sleeping advances; ``suspended`` are the seconds that each sleep takes longer."""

    def __init__(self, now: float, *, suspended: float = 0.0) -> None:
        self.now = now
        self.slept: list[float] = []
        self._suspended = suspended

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds + self._suspended


def runner(clock: Clock, journal: TruncatableJournal | None = None, *, park: bool = False) -> Runner:
    return Runner(
        backends={},
        functions=PythonFunctions({}),
        journal=journal,
        sleep=clock.sleep,
        now=lambda: clock.now,
        tick=60.0,
        park=park,
    )


@pytest.mark.parametrize(
    ("pause", "suspended", "slept"),
    [
        pytest.param("for: 100s", 0, [60.0, 40.0], id="for a time"),
        pytest.param("until: '1970-01-01T00:18:00Z'", 0, [60.0, 20.0], id="until a point in time"),
        pytest.param("until: '1970-01-01T00:16:00Z'", 0, [], id="until a point in time that is over"),
        pytest.param("for: 1h", 3000, [60.0, 60.0], id="while the machine is suspended"),
    ],
)
def test_a_pause_goes_by_the_clock(pause: str, suspended: float, slept: list[float]) -> None:
    clock = Clock(1000.0, suspended=suspended)
    result = asyncio.run(runner(clock).run(graph_of(NAP % pause), {}, run_id="r"))
    assert (result.status, result.output, clock.slept) == ("succeeded", "rested", slept)


def test_a_run_that_sleeps_is_left_there_and_resumed_when_its_time_has_come() -> None:
    graph, journal, clock = graph_of(NAP % "for: 1h"), TruncatableJournal(), Clock(0.0)

    async def resume() -> RunResult:
        return await runner(clock, journal, park=True).resume(graph, "r")

    left = asyncio.run(runner(clock, journal, park=True).run(graph, {}, run_id="r"))
    assert (left.status, left.wakes, journal.statuses["r"]) == ("sleeping", 3600.0, "sleeping")
    assert left.to_dict(messages=False)["wakes"] == "1970-01-01T01:00:00Z"
    clock.now = 3000.0
    still = asyncio.run(resume())
    assert (still.status, still.wakes) == ("sleeping", 3600.0)
    clock.now = 3600.0
    assert (asyncio.run(resume()).status, clock.slept) == ("succeeded", [])


def test_a_parent_sleeps_with_its_child_and_its_status_says_so() -> None:
    flow = "flows: {one: {" + (NAP % "for: 1h").strip() + "}}\n"
    graph = graph_of(
        flow + 'states: {s: {type: flow, flow: "#one", next: e}, e: {type: end, output: "{{ outputs.s }}"}}\n'
    )
    journal, clock = TruncatableJournal(), Clock(0.0)
    left = asyncio.run(runner(clock, journal, park=True).run(graph, {}, run_id="r"))
    assert (left.status, left.wakes, journal.statuses) == ("sleeping", 3600.0, {"r": "sleeping", "r.1.0": "sleeping"})
    clock.now = 4000.0
    assert asyncio.run(runner(clock, journal, park=True).resume(graph, "r")).output == "rested"


def test_the_time_limit_of_a_pause_counts_from_its_beginning_too() -> None:
    graph, journal, clock = graph_of(NAP % "for: 1h, timeout: 30m"), TruncatableJournal(), Clock(0.0)
    asyncio.run(runner(clock, journal, park=True).run(graph, {}, run_id="r"))
    clock.now = 2000.0
    result = asyncio.run(runner(clock, journal, park=True).resume(graph, "r"))
    assert (result.status, result.error and result.error.name) == ("failed", "state.timeout")


# --- when a run has something to do -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flow", "inbox", "due"),
    [
        pytest.param(NAP % "for: 1h", [], 3600.0, id="a pause"),
        pytest.param(NAP % "for: 1h, timeout: 10m", [], 600.0, id="the time limit of a pause"),
        pytest.param(NAP % "until: '1970-01-01T00:01:00Z'", [], 60.0, id="a point in time"),
        pytest.param(NAP % "for: 1h", [Cancelled()], NOW, id="cancelled"),
        pytest.param(WAIT % "timeout: 1m,", [], 60.0, id="the time for an answer"),
        pytest.param(WAIT % "timeout: '{{ 2 }}m',", [], 120.0, id="that a template gives"),
        pytest.param(WAIT % "", [], float("inf"), id="an answer only"),
        pytest.param(WAIT % "", [Answered(step=1, value=1)], NOW, id="answered"),
        pytest.param(WAIT % "", [Answered(step=7, value=1)], float("inf"), id="another question is answered"),
    ],
)
def test_when_a_run_has_something_to_do(flow: str, inbox: list[Event], due: float) -> None:
    graph, journal, clock = graph_of(flow), TruncatableJournal(), Clock(0.0)
    asyncio.run(runner(clock, journal, park=True).run(graph, {}, run_id="r"))
    events = asyncio.run(journal.events("r"))

    def events_of(run: str) -> Sequence[Recorded]:
        return [Recorded(seq=one.seq, at=0.0, state=one.state, event=one.event) for one in events]

    assert due_at(graph, "r", events_of, lambda run: inbox) == due


def test_a_run_whose_child_was_not_begun_has_something_to_do() -> None:
    flow = "flows: {one: {" + (NAP % "for: 1h").strip() + "}}\n"
    graph = graph_of(flow + 'states: {s: {type: flow, flow: "#one", next: e}, e: {type: end}}\n')
    journal, clock = TruncatableJournal(), Clock(0.0)
    asyncio.run(runner(clock, journal, park=True).run(graph, {}, run_id="r"))
    known = {"r": asyncio.run(journal.events("r")), "r.1.0": asyncio.run(journal.events("r.1.0"))}
    at = known["r.1.0"][0].at
    assert due_at(graph, "r", lambda run: known[run], lambda run: []) == at + 3600
    assert find_pending_work(graph, "r", lambda run: known[run]).wakes == at + 3600
    assert due_at(graph, "r", lambda run: known["r"] if run == "r" else [], lambda run: []) == NOW


# --- batches ------------------------------------------------------------------------------------------------------


class Unbounded:
    """The capacity of models that are never full."""

    def __init__(self) -> None:
        self.on_capacity = lambda: None
        self.has_capacity = True
        self.max_live = 2


def test_a_row_that_sleeps_holds_no_place() -> None:
    """Ten rows of which two may be live sleep at the same time."""
    graph = graph_of(NAP % "for: 1h")
    asleep, most = 0, 0
    everyone = asyncio.Event()

    async def sleep(seconds: float) -> None:
        nonlocal asleep, most
        asleep += 1
        most = max(most, asleep)
        if asleep == 10:
            everyone.set()
        await everyone.wait()
        clock.now += 3600

    clock = Clock(0.0)
    runs = Runner(backends={}, functions=PythonFunctions({}), sleep=sleep, now=lambda: clock.now)
    ended: list[JSON] = []

    async def run_row(number: int) -> None:
        ended.append((await runs.run(graph, {}, run_id=f"r{number}")).output)

    async def go() -> None:
        await asyncio.wait_for(Loop(run_row, Unbounded(), max_live=2).run(range(10)), 10)

    asyncio.run(go())
    assert (most, ended) == (10, ["rested"] * 10)
