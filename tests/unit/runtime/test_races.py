"""Races as they are driven: the others are cancelled wherever they are, and what they have used counts."""

import asyncio
from collections.abc import Mapping

import pytest

from flowrun.backends.scripted import ScriptedBackend
from flowrun.core.events import AskModel, Cancelled, Outcome
from flowrun.core.messages import Reply, Usage
from flowrun.functions.python import PythonFunctions
from flowrun.runtime.runner import CallAgain, Runner, RunResult
from flowrun.testing.truncatable_journal import TruncatableJournal
from tests.flows import graph_of

FLOW = """\
flows:
  quick: {states: {go: {type: call, entrypoint: "m:quick", next: e}, e: {type: end, output: quick}}}
  slow: {states: {go: {type: call, entrypoint: "m:slow", next: e}, e: {type: end, output: slow}}}
  deep:
    flows: {slow: {states: {go: {type: call, entrypoint: "m:slow", next: e}, e: {type: end}}}}
    states: {go: {type: flow, flow: "#slow", next: e}, e: {type: end}}
  talk:
    messages: [{role: user, content: Hi.}]
    states: {ask: {type: chat, next: go}, go: {type: call, entrypoint: "m:slow", next: e}, e: {type: end}}
  wait: {states: {go: {type: wait, prompt: Well?, next: e}, e: {type: end}}}
  nap: {states: {go: {type: pause, for: 1h, next: e}, e: {type: end}}}
states:
  race: {type: parallel, until: first, branches: {a: {flow: "#quick"}, b: {flow: "#OTHER"}}, next: e}
  e: {type: end, output: "{{ outputs.race }}"}
"""
WON = Outcome(status="succeeded", output={"branch": "a", "output": "quick"})


class Functions:
    """``quick`` returns once ``slow`` was called, or at once; ``slow`` never returns."""

    def __init__(self, *, awaits: bool) -> None:
        self.called = asyncio.Event()
        self.ended: list[str] = []
        if not awaits:
            self.called.set()

    async def quick(self) -> int:
        await self.called.wait()
        await asyncio.sleep(0.01)
        return 1

    async def slow(self) -> None:
        self.called.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.ended.append("slow")

    def runner(self, journal: TruncatableJournal | None, *, park: bool = False) -> Runner:
        def reply(request: AskModel) -> Reply:
            return Reply(content="Hello.", usage=Usage(prompt_tokens=5, completion_tokens=2))

        return Runner(
            backends={"default": ScriptedBackend.from_function(reply)},
            functions=PythonFunctions({"m:quick": self.quick, "m:slow": self.slow}),
            journal=journal,
            park=park,
            now=lambda: 0.0,
            resolve=lambda call: CallAgain(),
        )


async def race(other: str, journal: TruncatableJournal | None, *, awaits: bool) -> tuple[RunResult, Functions]:
    functions = Functions(awaits=awaits)
    result = await functions.runner(journal, park=True).run(graph_of(FLOW.replace("OTHER", other)), {}, run_id="r")
    await asyncio.sleep(0)
    return result, functions


@pytest.mark.parametrize("journal", [None, TruncatableJournal()], ids=["in memory", "durable"])
@pytest.mark.parametrize(
    ("other", "awaits", "ended", "usage"),
    [
        pytest.param("slow", True, ["slow"], Usage(), id="in a call"),
        pytest.param("deep", True, ["slow"], Usage(), id="in a call of its child"),
        pytest.param("talk", True, ["slow"], Usage(prompt_tokens=5, completion_tokens=2), id="after a round"),
        pytest.param("wait", False, [], Usage(), id="waiting"),
        pytest.param("nap", False, [], Usage(), id="sleeping"),
    ],
)
def test_the_other_branch_is_cancelled(
    other: str, awaits: bool, ended: list[str], usage: Usage, journal: TruncatableJournal | None
) -> None:
    journal = None if journal is None else TruncatableJournal()
    result, functions = asyncio.run(race(other, journal, awaits=awaits))
    assert (result.run.outcome, result.waiting, result.wakes) == (WON, (), None)
    assert (functions.ended, result.usage) == (ended, usage)
    if journal is not None:
        deep: Mapping[str, str] = {"r.1.1.1.0": "cancelled"} if other == "deep" else {}
        assert journal.statuses == {"r": "succeeded", "r.1.0": "succeeded", "r.1.1": "cancelled", **deep}


@pytest.mark.parametrize("other", ["slow", "deep", "talk", "wait", "nap"])
def test_a_crash_at_any_event_changes_nothing(other: str) -> None:
    async def go() -> None:
        whole = TruncatableJournal()
        result, _ = await race(other, whole, awaits=other not in ("wait", "nap"))
        assert result.run.outcome == WON
        graph = graph_of(FLOW.replace("OTHER", other))
        for cut in range(1, len(whole.order) + 1):
            journal = whole.cut(cut)
            functions = Functions(awaits=False)
            resumed = await functions.runner(journal, park=True).resume(graph, "r")
            assert (cut, resumed.run.outcome) == (cut, WON)
            assert "r.1.1" not in whole.order[:cut] or journal.statuses.get("r.1.1", "cancelled") == "cancelled"

    asyncio.run(go())


def test_a_run_that_is_cancelled_takes_its_children_with_it() -> None:
    async def go() -> tuple[RunResult, TruncatableJournal]:
        functions, journal = Functions(awaits=True), TruncatableJournal()
        graph = graph_of(FLOW.replace('{flow: "#quick"}', '{flow: "#slow"}').replace("OTHER", "talk"))
        runner = functions.runner(journal)
        running = asyncio.create_task(runner.run(graph, {}, run_id="r"))
        await functions.called.wait()
        await asyncio.sleep(0.02)
        runner.deliver("r", Cancelled(reason="enough"))
        return await running, journal

    result, journal = asyncio.run(go())
    assert (result.status, result.usage.prompt_tokens, result.rounds) == ("cancelled", 5, 1)
    assert journal.statuses == {"r": "cancelled", "r.1.0": "cancelled", "r.1.1": "cancelled"}
