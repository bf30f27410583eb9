"""The part of a replica that runs in its own process, without Ray."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from flowrun.backends.scripted import ScriptedBackend
from flowrun.batch import Row
from flowrun.batch.distributed.ports import ReplicaReport
from flowrun.batch.distributed.replica import HostedReplica, ReplicaConfig, ReplicaStart
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply
from flowrun.core.ports import ModelBackend, OnText
from flowrun.errors import ModelError
from flowrun.runtime.project import CompiledFlow, Project
from tests.batches import SPEC


class Counted(ScriptedBackend):
    """A backend that replies by a function; ``stops`` counts the calls of ``stop``."""

    def __init__(self, answer: Callable[[AskModel], Awaitable[Reply]]) -> None:
        super().__init__(())
        self.stops = 0
        self._answer = answer

    async def reply(self, request: AskModel, *, on_text: OnText | None = None) -> Reply:
        return await self._answer(request)

    async def stop(self) -> None:
        self.stops += 1


async def reply_fine(request: AskModel) -> Reply:
    return Reply(content="fine")


async def unavailable(request: AskModel) -> Reply:
    raise ModelError("backend.unavailable", "the engine died")


def flow_of(kind: str, backend: ModelBackend) -> CompiledFlow:
    """Return the flow of these tests, whose models have a backend of this kind, in whose place ``backend`` runs."""
    flow = Project().compile(SPEC)
    models = {
        name: msgspec.structs.replace(bound, model=msgspec.structs.replace(bound.model, backend=kind))
        for name, bound in flow.models.items()
    }
    return msgspec.structs.replace(flow, models=models, backends={"default": backend})


def replica(backend: ModelBackend, *, kind: str = "scripted", **options: Any) -> HostedReplica:
    return HostedReplica(lambda: flow_of(kind, backend), ReplicaConfig(**options))


def rows(*numbers: int) -> list[Row]:
    return [Row(number=number, id=number, inputs={"number": number}) for number in numbers]


async def collect_all(hosted: HostedReplica, session: int, count: int) -> list[ReplicaReport]:
    """Collect reports until there are so many results, or the session is lost."""
    reports: list[ReplicaReport] = []
    while sum(len(report.results) for report in reports) < count and not (reports and reports[-1].lost):
        reports.append(await hosted.collect(session))
    return reports


def test_rows_come_back_as_results() -> None:
    async def go() -> None:
        hosted = replica(Counted(reply_fine), max_live=5)
        assert (await hosted.start(1)).error is None
        assert (await hosted.collect(1)).capacity == 5
        assert await hosted.feed(1, rows(1, 2, 3))
        reports = await collect_all(hosted, 1, 3)
        results = {number: result["output"] for report in reports for number, result in report.results}
        assert results == {number: {"doubled": number * 2, "note": "none"} for number in (1, 2, 3)}
        assert sum(report.rounds for report in reports) == 6
        assert (reports[-1].capacity, reports[-1].received) == (5, 3)
        await hosted.stop()

    asyncio.run(go())


def test_the_rows_of_an_older_session_are_cancelled() -> None:
    async def go() -> None:
        backend = Counted(reply_fine)
        hosted = replica(backend)
        await hosted.start(1)
        await hosted.feed(1, rows(1500))
        await hosted.start(2)
        assert backend.stops == 1
        assert not await hosted.feed(1, rows(1))
        assert await hosted.collect(1) == ReplicaReport(lost="its process was started again")
        assert (await hosted.collect(2)).received == 0
        await hosted.stop()
        assert await hosted.collect(2) == ReplicaReport(lost="its process was started again")

    asyncio.run(go())


def test_a_replica_is_lost_if_a_model_in_its_process_is_unavailable() -> None:
    async def go(kind: str) -> list[ReplicaReport]:
        hosted = replica(Counted(unavailable), kind=kind)
        await hosted.start(1)
        await hosted.feed(1, rows(1, 2))
        reports = await collect_all(hosted, 1, 2)
        await hosted.stop()
        return reports

    lost = asyncio.run(go("vllm"))
    assert ([report.results for report in lost], lost[-1].lost) == ([[]], "the engine died")
    server = asyncio.run(go("openai"))
    names = [result["error"]["name"] for report in server for _, result in report.results]
    assert (names, server[-1].lost) == (["backend.unavailable"] * 2, None)


def test_another_version_of_flowrun_is_refused() -> None:
    started = asyncio.run(replica(Counted(reply_fine), version="0.0.1").start(1))
    assert (started.error or "").endswith(", and 0.0.1 in the batch")


def test_a_variable_that_its_host_lacks_is_reported(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "flowrun: v1\nname: keyed\nversion: 1.0.0\n"
        "model: {backend: openai, name: m, base_url: http://x/v1, api_key: '${FLOWRUN_TEST_KEY}'}\n"
    )

    hosted = HostedReplica(lambda: Project().compile(spec), ReplicaConfig())
    started = asyncio.run(hosted.start(1))
    assert isinstance(started, ReplicaStart)
    assert "spec.yaml:4:" in (started.error or "")
    assert "FLOWRUN_TEST_KEY" in (started.error or "")
