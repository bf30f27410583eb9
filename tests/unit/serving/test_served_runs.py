"""The runs of a server: answers and their secrets, the watch over its journal, and its end."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flowrun.errors import StoreError, UsageError
from flowrun.journal import History
from flowrun.runtime.project import CompiledFlow, Project
from flowrun.runtime.session import Session
from flowrun.serving.served_runs import BATCH, Draining, NoSuchRun, ServedRuns
from flowrun.serving.shown_flows import ShownFlows

SPEC = """\
flowrun: v1
name: NAME
version: 1.0.0
secrets: [MY_TOKEN]
inputs: {token: {type: string, default: "a ${MY_TOKEN}"}}
model: {backend: scripted, name: replies.yaml}
tools:
  send:
    entrypoint: "m:send"
    parameters: {type: object, properties: {text: {type: string}}, required: [text]}
    approve: true
messages: [{role: user, content: "{{ inputs.token }}"}]
states:
  ask: {type: chat, routes: [{when: reply.tool_calls, to: use}, {to: done}]}
  use: {type: tools, next: ask}
  done: {type: end, output: "{{ reply.content }}"}
"""
REPLIES = """\
replies:
  - when: "(request.messages | last).role == 'user'"
    tool_calls: [{name: send, arguments: {text: key S3cretValue x}}]
    repeat: true
  - {content: Sent., repeat: true}
"""


class Sent:
    """What was sent."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, text: str) -> str:
        self.texts.append(text)
        return "done"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    monkeypatch.setenv("MY_TOKEN", "S3cretValue")
    return Sent()


def flow_in(folder: Path, sent: Sent, name: str = "work") -> CompiledFlow:
    (folder / f"{name}.yaml").write_text(SPEC.replace("NAME", name))
    (folder / "replies.yaml").write_text(REPLIES)
    project = Project(environ={"MY_TOKEN": "S3cretValue"}, functions={"m:send": sent})
    return project.compile(folder / f"{name}.yaml")


def serve(folder: Path, work: Any, *, outlives: bool = True) -> Any:
    async def go() -> Any:
        async with asyncio.timeout(30), Session(journal=folder / "j.sqlite", batch=BATCH, drain=0.1) as session:
            return await work(ServedRuns(session, ShownFlows(os.environ), max_live=8, outlives_requests=outlives))

    return asyncio.run(go())


async def wait_for_async(holds: Callable[[], bool]) -> None:
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it does not become so")


async def over(runs: ServedRuns, run: str) -> Any:
    await wait_for_async(lambda: runs.history.run(run).ended is not None)
    return runs.history.run(run)


def test_a_secret_that_was_shown_by_its_name_stays_what_it_was(tmp_path: Path, sent: Sent) -> None:
    async def work(runs: ServedRuns) -> str:
        waiting = await runs.run(flow_in(tmp_path, sent), {}, run_id="r")
        (ask,) = waiting.pending
        await runs.answer(ask.id, {"ok": True, "arguments": {"text": "my key ${MY_TOKEN}"}})
        await over(runs, "r")
        with pytest.raises(UsageError, match="was answered already") as raised:
            await runs.answer(ask.id, {"ok": False})
        return str(raised.value)

    said = serve(tmp_path, work)
    assert sent.texts == ["my key S3cretValue"]
    assert "S3cretValue" not in said
    assert "${MY_TOKEN}" in said


def test_a_server_resumes_the_runs_of_its_own_flows_only(tmp_path: Path, sent: Sent) -> None:
    async def begin(runs: ServedRuns) -> None:
        for name in ("work", "other"):
            waiting = await runs.run(flow_in(tmp_path, sent, name), {}, run_id=name)
            await runs.session.answer(waiting.pending[0].id, {"ok": True})

    async def watch(runs: ServedRuns) -> list[str]:
        work = flow_in(tmp_path, sent)
        for name in ("work", "other"):
            await runs.session.runs_of(work if name == "work" else flow_in(tmp_path, sent, name))
        runs.watch(["work"])
        await over(runs, "work")
        await asyncio.sleep(1.5)  # the watch looks each second
        return [runs.history.run(name).status for name in ("work", "other")]

    serve(tmp_path, begin)
    assert serve(tmp_path, watch) == ["succeeded", "waiting"]


def test_a_watch_goes_on_when_the_journal_could_not_be_read(
    tmp_path: Path, sent: Sent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowrun.serving.served_runs._AGAIN_SECONDS", 0.01)
    real, failures = History.inbox_counts, iter([StoreError("busy"), StoreError("busy")])

    def inbox_counts(self: History) -> dict[str, int]:
        if (failure := next(failures, None)) is not None:
            raise failure
        return real(self)

    async def work(runs: ServedRuns) -> Any:
        waiting = await runs.run(flow_in(tmp_path, sent), {}, run_id="r")
        await runs.session.answer(waiting.pending[0].id, {"ok": True})
        monkeypatch.setattr(History, "inbox_counts", inbox_counts)
        runs.watch(["work"])
        return (await over(runs, "r")).status

    assert serve(tmp_path, work) == "succeeded"


def test_the_end_of_a_server_waits_for_what_the_watch_resumed(tmp_path: Path, sent: Sent) -> None:
    class Slow(Sent):
        def __call__(self, text: str) -> str:
            time.sleep(0.5)
            return super().__call__(text)

    slow = Slow()

    async def work(runs: ServedRuns) -> tuple[int, str]:
        waiting = await runs.run(flow_in(tmp_path, slow), {}, run_id="r")
        await runs.session.answer(waiting.pending[0].id, {"ok": True})
        runs.watch(["work"])
        await wait_for_async(lambda: runs.live == 1)
        live = runs.live
        await runs.drain(10.0)
        return live, runs.history.run("r").status

    assert serve(tmp_path, work) == (1, "succeeded")


@pytest.mark.parametrize("outlives", [True, False])
def test_an_answer_at_the_end_counts_only_if_its_run_goes_on(tmp_path: Path, sent: Sent, outlives: bool) -> None:
    async def work(runs: ServedRuns) -> bool:
        waiting = await runs.run(flow_in(tmp_path, sent), {}, run_id="r")
        await runs.drain(0.0)
        try:
            await runs.answer(waiting.pending[0].id, {"ok": True})
        except Draining:
            return False
        return bool(runs.history.inbox("r"))

    assert serve(tmp_path, work, outlives=outlives) is outlives


def test_runs_are_found_by_their_whole_ids(tmp_path: Path, sent: Sent) -> None:
    async def work(runs: ServedRuns) -> None:
        await runs.run(flow_in(tmp_path, sent), {}, run_id="run1")
        assert runs.find("run1").id == "run1"
        with pytest.raises(NoSuchRun, match=r"^there is no run 'run'$"):
            runs.find("run")

    serve(tmp_path, work)
