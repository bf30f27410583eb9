"""Runs resume after a crash at any event; in-doubt calls need a resolution."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from flowrun.backends.scripted import ScriptedBackend
from flowrun.core.events import AskModel, CallFunction, CallStarted, Cancelled, Event, Outcome, RequestInput, Returned
from flowrun.core.graph import Graph
from flowrun.core.messages import Reply, ToolCall
from flowrun.errors import NoResponderError
from flowrun.functions.python import PythonFunctions
from flowrun.runtime.runner import AssumeDone, CallAgain, Resolve, Runner, RunResult
from flowrun.spec.model import JSON
from flowrun.testing.truncatable_journal import TruncatableJournal
from tests.flows import ADD, AGENT, graph_of

WHOLE = """\
inputs: {question: {type: string}}
messages: [{role: user, content: "{{ inputs.question }}"}]
flows:
  square:
    inputs: {n: {type: integer}}
    states:
      call: {type: call, entrypoint: "tools.numbers:square", with: {n: "{{ inputs.n }}"}, next: e}
      e: {type: end, output: "{{ outputs.call }}"}
states:
  ask:
    type: chat
    routes: [{when: reply.tool_calls, to: act}, {to: many}]
  act: {type: tools, next: ask}
  many: {type: map, flow: "#square", for_each: "[1, 2, 3]", as: n, max_concurrency: 2, next: consent}
  consent: {type: wait, prompt: Is it right?, schema: {type: boolean}, next: done}
  done: {type: end, output: {answer: "{{ reply.content }}", squares: "{{ outputs.many }}", ok: "{{ outputs.consent }}"}}
limits: {max_rounds: 5, max_steps: 60}
"""
"""Every kind of effect except a pause: rounds, parallel calls, parallel children, and a question."""

EXPECTED = Outcome(status="succeeded", output={"answer": "7", "squares": [1, 4, 9], "ok": True})
QUESTION = {"question": "1 + 2, 3 + 4?"}


class Sayer:
    """The port ``HumanInput`` with one fixed answer."""

    def __init__(self, value: JSON) -> None:
        self.value = value

    async def answer(self, effect: RequestInput) -> JSON:
        if self.value is None:
            raise NoResponderError
        return self.value


class World:
    """The model and the functions of a run, which count their calls through any number of crashes."""

    def __init__(self) -> None:
        self.done: Counter[str] = Counter()

    async def add(self, a: int, b: int) -> int:
        self.done[f"{a} + {b}"] += 1
        await asyncio.sleep(0)
        return a + b

    async def square(self, n: int) -> int:
        self.done[f"{n} squared"] += 1
        await asyncio.sleep(0)
        return n * n

    def reply(self, request: AskModel) -> Reply:
        rounds = sum(1 for message in request.messages if message.role == "assistant")
        self.done[f"round {rounds}"] += 1
        if rounds:
            return Reply(content="7")
        texts = ('{"a": 1, "b": 2}', '{"a": 3, "b": 4}')
        return Reply(tool_calls=tuple(ToolCall(id="", name="add", arguments=text) for text in texts))

    def runner(
        self,
        journal: TruncatableJournal | None,
        *,
        says: JSON = True,
        resolve: Resolve | None = None,
        now: Callable[[], float] = time.time,
    ) -> Runner:
        return Runner(
            backends={"default": ScriptedBackend.from_function(self.reply)},
            functions=PythonFunctions({"tools.numbers:add": self.add, "tools.numbers:square": self.square}),
            human_input=Sayer(says),
            journal=journal,
            resolve=resolve,
            now=now,
        )


def graph(idempotent: bool = False) -> Graph:
    return graph_of(ADD.replace("timeout: 5s", f"timeout: 5s\n    idempotent: {str(idempotent).lower()}"), WHOLE)


def undisturbed() -> tuple[TruncatableJournal, World]:
    journal, world = TruncatableJournal(), World()
    result = asyncio.run(world.runner(journal).run(graph(), QUESTION, run_id="r"))
    assert result.run.outcome == EXPECTED
    return journal, world


JOURNAL, WORLD = undisturbed()


def resume(journal: TruncatableJournal, world: World, **how: Any) -> RunResult:
    return asyncio.run(world.runner(journal, **how).resume(graph(), "r"))


@pytest.mark.parametrize("count", range(1, len(JOURNAL.order) + 1))
def test_wherever_it_crashes_a_run_ends_as_it_would_have(count: int) -> None:
    journal, world = JOURNAL.cut(count), World()
    seen: list[CallFunction] = []

    def again(call: CallFunction) -> CallAgain:
        seen.append(call)
        return CallAgain()

    result = resume(journal, world, resolve=again)
    assert result.run.outcome == EXPECTED
    begun = Counter(_place(run, event) for run, event in _events(JOURNAL.cut(count)) if isinstance(event, CallStarted))
    returned = Counter(_place(run, event) for run, event in _events(JOURNAL.cut(count)) if isinstance(event, Returned))
    assert Counter(f"{call.run} {call.step} {call.index}" for call in seen) == begun - returned
    assert set(world.done.values()) <= {1}
    assert set(world.done) <= set(WORLD.done)


@pytest.mark.parametrize("count", range(1, len(JOURNAL.order) + 1))
def test_what_is_written_down_is_not_done_again(count: int) -> None:
    world = World()
    resume(JOURNAL.cut(count), world, resolve=lambda call: CallAgain())
    before = [event for _, event in _events(JOURNAL.cut(count))]
    answered = Counter(type(event).__name__ for event in before)
    whole = Counter(type(event).__name__ for _, event in _events(JOURNAL))
    rounds = sum(count for name, count in world.done.items() if name.startswith("round"))
    assert rounds == whole["Replied"] - answered["Replied"]
    assert world.done.total() - rounds == whole["Returned"] - answered["Returned"]


def _events(journal: TruncatableJournal) -> list[tuple[str, Event]]:
    return [(run, one.event) for run, kept in journal.records.items() for one in kept]


def _place(run: str, event: CallStarted | Returned) -> str:
    return f"{run} {event.step} {event.index}"


def cut_after(is_last: Callable[[str, Event], bool]) -> TruncatableJournal:
    """Return the journal up to the first event that a condition holds for."""
    places = Counter[str]()
    for count, run in enumerate(JOURNAL.order, 1):
        event = JOURNAL.records[run][places[run]].event
        places[run] += 1
        if is_last(run, event):
            return JOURNAL.cut(count)
    raise AssertionError("there is no such event")


def test_a_call_in_doubt_stops_the_run() -> None:
    journal, world = cut_after(lambda run, event: isinstance(event, CallStarted)), World()
    result = resume(journal, world)
    assert [(call.tool, call.arguments) for call in result.in_doubt] == [("add", {"a": 1, "b": 2})]
    assert (result.run.outcome, journal.statuses["r"], world.done) == (None, "needs_attention", Counter())
    assert resume(journal, world, resolve=lambda call: CallAgain()).run.outcome == EXPECTED


def test_a_call_in_doubt_of_a_child_stops_its_parent_too() -> None:
    journal, world = cut_after(lambda run, event: run == "r.4.1" and isinstance(event, CallStarted)), World()
    result = resume(journal, world)
    assert {call.run for call in result.in_doubt} >= {"r.4.1"}
    assert (journal.statuses["r"], journal.statuses["r.4.1"]) == ("needs_attention", "needs_attention")
    assert resume(journal, world, resolve=lambda call: CallAgain()).run.outcome == EXPECTED


def test_what_somebody_knows_of_a_call_in_doubt_is_taken_for_its_value() -> None:
    journal, world = cut_after(lambda run, event: isinstance(event, CallStarted)), World()
    result = resume(journal, world, resolve=lambda call: AssumeDone(3) if call.run == "r" else None)
    assert result.run.outcome == EXPECTED
    assert "1 + 2" not in world.done
    assert [message.content for message in result.run.threads["main"]][2:4] == ["3", "7"]


def test_a_function_that_may_be_called_twice_is_never_in_doubt() -> None:
    journal, world = TruncatableJournal(), World()
    asyncio.run(world.runner(journal).run(graph(idempotent=True), QUESTION, run_id="r"))
    assert not [event for event in journal.all_events("r") if isinstance(event, CallStarted)]
    cut = journal.cut(2)
    result = asyncio.run(world.runner(cut).resume(graph(idempotent=True), "r"))
    assert result.run.outcome == EXPECTED
    assert world.done["1 + 2"] == 2


def test_a_run_that_waits_resumes_with_the_answer() -> None:
    journal, world = TruncatableJournal(), World()
    waiting = asyncio.run(world.runner(journal, says=None).run(graph(), QUESTION, run_id="r"))
    assert ([ask.prompt for ask in waiting.waiting], journal.statuses["r"]) == (["Is it right?"], "waiting")
    again = resume(journal, world, says=None)
    assert again.waiting == waiting.waiting
    assert resume(journal, world).run.outcome == EXPECTED
    assert resume(journal, world).run.outcome == EXPECTED  # it had ended
    assert set(world.done.values()) == {1}


def test_a_parent_waits_while_its_child_does() -> None:
    flow = graph_of(
        "flows: {child: {states: {ask: {type: wait, prompt: Well?, schema: {type: boolean}, next: e}, "
        "e: {type: end, output: '{{ outputs.ask }}'}}}}\n"
        "states: {s: {type: flow, flow: '#child', with: {}, next: e}, e: {type: end, output: '{{ outputs.s }}'}}\n"
    )
    journal, world = TruncatableJournal(), World()
    asyncio.run(world.runner(journal, says=None).run(flow, {}, run_id="r"))
    assert journal.statuses == {"r": "waiting", "r.1.0": "waiting"}
    assert journal.parents == {"r": None, "r.1.0": "r"}
    assert asyncio.run(world.runner(journal).resume(flow, "r")).run.outcome == Outcome(status="succeeded", output=True)
    assert journal.statuses == {"r": "succeeded", "r.1.0": "succeeded"}


@pytest.mark.parametrize(
    ("later", "status"), [pytest.param(59, "waiting", id="in time"), pytest.param(61, "failed", id="too late")]
)
def test_the_time_for_an_answer_passes_while_nobody_drives_the_run(later: float, status: str) -> None:
    flow = graph_of("states: {w: {type: wait, prompt: Well?, schema: {}, timeout: 1m, next: e}, e: {type: end}}\n")
    journal = TruncatableJournal()
    runner = World().runner(journal, says=None, now=lambda: later)
    asyncio.run(runner.run(flow, {}, run_id="r"))
    assert asyncio.run(runner.resume(flow, "r")).run.status == status


@pytest.mark.parametrize(
    ("later", "pauses"),
    [
        pytest.param(0, [100.0, 200.0], id="at once"),
        pytest.param(40, [60.0, 200.0], id="within the delay"),
        pytest.param(400, [0.0, 200.0], id="long after it"),
    ],
)
def test_the_delay_of_a_retry_goes_on_where_it_was(later: float, pauses: list[float]) -> None:
    class Crash(Exception):
        pass

    slept: list[float] = []

    async def crash(seconds: float) -> None:
        raise Crash

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    def fail() -> None:
        raise ValueError("no")

    flow = graph_of(
        "states: {c: {type: call, entrypoint: 'm:fail', next: e,"
        " retry: {max_attempts: 3, errors: [tool.failed], delay: 100, max_delay: 1h, jitter: 0}}, e: {type: end}}\n"
    )
    runner = Runner(backends={}, functions=PythonFunctions({"m:fail": fail}), journal=TruncatableJournal())
    with pytest.raises(Crash):
        asyncio.run(runner.using(sleep=crash).run(flow, {}, run_id="r"))
    resumed = runner.using(sleep=sleep, now=lambda: later)
    assert (asyncio.run(resumed.resume(flow, "r")).run.status, slept) == ("failed", pauses)


def test_a_run_that_waits_is_cancelled() -> None:
    journal, world = TruncatableJournal(), World()
    asyncio.run(world.runner(journal, says=None).run(graph(), QUESTION, run_id="r"))
    result = asyncio.run(world.runner(journal).resume(graph(), "r", then=Cancelled(reason="enough")))
    assert (result.run.status, journal.statuses["r"]) == ("cancelled", "cancelled")


def test_a_run_in_progress_is_cancelled() -> None:
    journal = TruncatableJournal()
    begun = asyncio.Event()

    class HangingWorld(World):
        async def add(self, a: int, b: int) -> int:
            begun.set()
            return await asyncio.get_running_loop().create_future() or 0

    async def go() -> RunResult:
        runner = HangingWorld().runner(journal)
        running = asyncio.create_task(runner.run(graph_of(ADD, AGENT), QUESTION, run_id="r"))
        await begun.wait()
        assert not runner.deliver("other", Cancelled())
        assert runner.deliver("r", Cancelled(reason="enough"))
        return await running

    result = asyncio.run(go())
    assert (result.run.status, journal.statuses) == ("cancelled", {"r": "cancelled"})
    assert result.run.outcome is not None
    assert result.run.outcome.error is not None
    assert result.run.outcome.error.message == "enough"


def test_nothing_is_done_after_an_event_that_could_not_be_stored() -> None:
    class Full(TruncatableJournal):
        async def append(self, run: str, event: Event, **place: Any) -> None:
            if isinstance(event, CallStarted):
                raise OSError("No space left on device")
            await super().append(run, event, **place)

    world = World()
    with pytest.raises(OSError, match="No space left"):
        asyncio.run(world.runner(Full()).run(graph(), QUESTION, run_id="r"))
    assert world.done == Counter({"round 0": 1})


def test_a_journal_changes_nothing_of_what_a_run_does() -> None:
    runner = World().runner(None)
    assert asyncio.run(runner.run(graph(), QUESTION, run_id="r")).run.outcome == EXPECTED
