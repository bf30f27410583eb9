"""How many rows run at once, and which failures stop a batch."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowrun.backends.scripted import ScriptedBackend
from flowrun.batch import Batch, BatchStopped, Fingerprint, Meter, OneFile, Options, Results, Row, run_in_this_process
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply, Usage
from flowrun.core.ports import OnText
from flowrun.errors import Bug, ModelError
from flowrun.functions.python import PythonFunctions
from flowrun.runtime.flow_runs import FlowRuns
from flowrun.runtime.runner import Runner
from tests.flows import AGENT, graph_of

GRAPH = graph_of(AGENT)


class Narrow(ScriptedBackend):
    """A backend with a limit of requests at once; ``most`` is the highest number of requests that it had in flight."""

    def __init__(self, limit: int, answer: Callable[[AskModel], Awaitable[Reply]]) -> None:
        super().__init__(())
        self.most = self._now = 0
        self._limit = limit
        self._answer = answer

    @property
    def concurrency(self) -> int | None:
        return self._limit

    async def reply(self, request: AskModel, *, on_text: OnText | None = None) -> Reply:
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            return await self._answer(request)
        finally:
            self._now -= 1


def rows(count: int) -> Iterator[Row]:
    return (Row(number=number, id=number, inputs={"question": str(number)}) for number in range(1, count + 1))


def run(
    backend: ScriptedBackend, source: Iterator[Row], path: Path, **options: Any
) -> tuple[list[dict[str, Any]], Meter]:
    """Run rows, and return the results in the order of the rows, and the meter."""
    results = Results(OneFile(path), Fingerprint(spec="", input=""))
    meter = Meter()

    async def go() -> None:
        runner = Runner(backends={"default": meter.wrap("default", backend)}, functions=PythonFunctions({}))
        runs = FlowRuns(runner, GRAPH)
        row = run_in_this_process(runs, messages=False)
        await Batch(row, results, meter, Options(**options), meter=meter).run(source)

    try:
        asyncio.run(go())
    finally:
        results.close()
    return written(path), meter


def written(path: Path) -> list[dict[str, Any]]:
    return sorted(map(json.loads, path.read_text().splitlines()), key=lambda result: int(result["row"]))


async def echo(request: AskModel) -> Reply:
    await asyncio.sleep(0)
    usage = Usage(prompt_tokens=10, completion_tokens=2, cached_tokens=8)
    return Reply(content=request.messages[-1].content, usage=usage)


def test_every_row_has_its_result(tmp_path: Path) -> None:
    found, meter = run(ScriptedBackend.from_function(echo), rows(50), tmp_path / "out.jsonl")
    assert [result["output"]["answer"] for result in found] == [str(number) for number in range(1, 51)]
    assert (meter.rounds, meter.usage) == (50, Usage(prompt_tokens=500, completion_tokens=100, cached_tokens=400))


def test_a_backend_gets_a_few_more_requests_than_its_limit(tmp_path: Path) -> None:
    async def slowly(request: AskModel) -> Reply:
        for _ in range(100):
            await asyncio.sleep(0)
        return await echo(request)

    gate = Narrow(16, slowly)
    asked: list[int] = []

    def counted() -> Iterator[Row]:
        for row in rows(1000):
            asked.append(gate.most)
            yield row

    run(gate, counted(), tmp_path / "out.jsonl")
    assert max(asked[:800]) == 18
    assert gate.most > 18  # the last rows start together: otherwise the last one would run alone on the model


def test_rows_are_read_one_by_one(tmp_path: Path) -> None:
    read: list[int] = []
    gate = asyncio.Event()
    most = 0

    def counted() -> Iterator[Row]:
        for row in rows(30):
            read.append(row.number)
            yield row

    async def wait(request: AskModel) -> Reply:
        nonlocal most
        if len(read) == 4:
            most = max(most, len(read))
            asyncio.get_running_loop().call_soon(gate.set)
        await gate.wait()
        return Reply(content="x")

    found, _ = run(ScriptedBackend.from_function(wait), counted(), tmp_path / "out.jsonl", max_live=4)
    assert (most, len(found)) == (4, 30)


def test_slow_rows_block_no_others(tmp_path: Path) -> None:
    order: list[str] = []
    slow = asyncio.Event()

    async def answer(request: AskModel) -> Reply:
        question = str(request.messages[0].content)
        if question == "1":
            await slow.wait()
        order.append(question)
        if len(order) == 9:
            slow.set()
        return Reply(content=question)

    run(ScriptedBackend.from_function(answer), rows(10), tmp_path / "out.jsonl", max_live=3)
    assert order == ["2", "3", "4", "5", "6", "7", "8", "9", "10", "1"]


def test_a_bad_row_stops_no_other(tmp_path: Path) -> None:
    def source() -> Iterator[Row]:
        yield Row(number=1, id="a", wrong="line 1 is no JSON")
        yield Row(number=2, id="b", inputs={"nothing": 1})
        yield Row(number=3, id="c", inputs={"question": "3"})

    found, _ = run(ScriptedBackend.from_function(echo), source(), tmp_path / "out.jsonl")
    assert [(one["id"], one["status"], (one["error"] or {}).get("name")) for one in found] == [
        ("a", "failed", "input.invalid"),
        ("b", "failed", "input.invalid"),
        ("c", "succeeded", None),
    ]


@pytest.mark.parametrize("bug", [Bug("this cannot be"), ZeroDivisionError("division by zero")], ids=["Bug", "other"])
def test_a_bug_of_ours_fails_only_its_row(tmp_path: Path, bug: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def answer(request: AskModel) -> Reply:
        if request.messages[0].content == "2":
            raise bug
        return Reply(content="fine")

    found, _ = run(ScriptedBackend.from_function(answer), rows(3), tmp_path / "out.jsonl")
    assert [one["status"] for one in found] == ["succeeded", "failed", "succeeded"]
    assert found[1]["error"] == {"name": "flowrun.bug", "message": f"{type(bug).__name__}: {bug}"}
    assert "row 2: a bug in flowrun" in caplog.text


def test_fail_after(tmp_path: Path) -> None:
    async def answer(request: AskModel) -> Reply:
        raise ModelError("model.request_refused", "no")

    with pytest.raises(BatchStopped, match="3 rows failed, which is --fail-after"):
        run(ScriptedBackend.from_function(answer), rows(50), tmp_path / "out.jsonl", fail_after=3, max_live=2)
    assert len(written(tmp_path / "out.jsonl")) == 3


def test_max_tokens_lets_no_further_row_begin_and_those_under_way_end(tmp_path: Path) -> None:
    async def answer(request: AskModel) -> Reply:
        for _ in range(int(str(request.messages[0].content))):  # those that begin later are slower
            await asyncio.sleep(0)
        return await echo(request)

    reason = (
        r"^84 tokens are used, and --max-tokens gives 50: no further row began; run the same command again to continue "
        r"with as many more$"
    )
    backend = ScriptedBackend.from_function(answer)
    with pytest.raises(BatchStopped, match=reason):
        run(backend, rows(50), tmp_path / "out.jsonl", max_tokens=50, max_live=3)
    assert [(one["row"], one["status"]) for one in written(tmp_path / "out.jsonl")] == [
        (number, "succeeded") for number in range(1, 8)
    ]


@pytest.mark.parametrize("max_tokens", [1000, 120, 119])
def test_a_budget_that_the_last_row_uses_up_stops_nothing(tmp_path: Path, max_tokens: int) -> None:
    found, _ = run(
        ScriptedBackend.from_function(echo), rows(10), tmp_path / "out.jsonl", max_tokens=max_tokens, max_live=1
    )
    assert len(found) == 10


def test_an_unavailable_backend_ends_the_batch_and_its_rows_get_no_result(tmp_path: Path) -> None:
    async def answer(request: AskModel) -> Reply:
        if int(str(request.messages[0].content)) > 5:
            raise ModelError("backend.unavailable", "the engine died")
        return Reply(content="fine")

    with pytest.raises(BatchStopped, match=r"16 rows in a row ended in backend.unavailable: the engine died"):
        run(ScriptedBackend.from_function(answer), rows(100), tmp_path / "out.jsonl", max_live=4)
    assert [one["row"] for one in written(tmp_path / "out.jsonl")] == [1, 2, 3, 4, 5]


def test_a_backend_that_is_unavailable_for_a_while_fails_the_rows_of_that_time(tmp_path: Path) -> None:
    async def answer(request: AskModel) -> Reply:
        if 3 <= int(str(request.messages[0].content)) <= 12:
            raise ModelError("backend.unavailable", "try later")
        return Reply(content="fine")

    found, _ = run(ScriptedBackend.from_function(answer), rows(20), tmp_path / "out.jsonl", max_live=4)
    assert [one["row"] for one in found if one["status"] == "failed"] == list(range(3, 13))
    assert len(found) == 20
