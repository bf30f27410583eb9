"""Durable runs over a real journal: they are released while they wait, and go on with what came in meanwhile."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from flowrun.backends.scripted import ScriptedBackend, ScriptedReply
from flowrun.core.events import Answered, AskModel, CallFunction, Cancelled, Event, Notice, Outcome, RequestInput
from flowrun.core.ports import HumanInput, OnText
from flowrun.errors import NoResponderError, UsageError
from flowrun.functions.python import PythonFunctions
from flowrun.journal import Database, History, RunRow, SqliteJournal
from flowrun.runtime.flow_runs import FlowRuns, SpecJournal, find_pending_work
from flowrun.runtime.inbox import Inbox
from flowrun.runtime.project import Project
from flowrun.runtime.run_result import AssumeDone, Resolve, RunResult
from flowrun.runtime.runner import Runner
from flowrun.runtime.session import Session
from flowrun.runtime.stored_flow import load_stored_flow, store_flow
from flowrun.spec.model import JSON
from tests.flows import HEADER, graph_of

pytestmark = pytest.mark.anyio

GRAPH = graph_of(
    """\
flows:
  child:
    states:
      ask: {type: wait, prompt: Deep?, schema: {type: boolean}, next: pay}
      pay: {type: call, entrypoint: "tools.shop:pay", next: e}
      e: {type: end, output: "{{ [outputs.ask, outputs.pay] }}"}
states:
  both: {type: parallel, branches: {one: {flow: "#child"}, two: {flow: "#child"}}, next: ask}
  ask: {type: wait, prompt: Well?, next: done}
  done: {type: end, output: "{{ [outputs.both, outputs.ask] }}"}
"""
)
WELL = {"one": [True, "paid"], "two": [False, "paid"]}


@pytest.fixture
def anyio_backend() -> str:
    """Run async tests with asyncio, by the plugin of anyio."""
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite"


def paid() -> str:
    return "paid"


class OpenedRuns(FlowRuns):
    """The runs of the graph, with the journal and the inbox that they share with other processes."""

    def __init__(self, runner: Runner, journal: SqliteJournal, inbox: Inbox) -> None:
        stored = SpecJournal(journal, "")
        super().__init__(structs.replace(runner, journal=stored), GRAPH, stored, inbox)
        self.inbox = inbox
        self.journal = journal
        inbox.runner = runner

    async def answer(self, run: str, event: Answered) -> None:
        await self.journal.signal(run, event)
        self.inbox.receive(run, event)


@asynccontextmanager
async def opened(
    path: Path,
    *,
    human_input: HumanInput | None = None,
    pay: Callable[[], Any] = paid,
    resolve: Resolve | None = None,
) -> AsyncIterator[OpenedRuns]:
    inbox = Inbox(human_input)
    async with SqliteJournal(path, on_signal=inbox.receive) as journal:
        functions = PythonFunctions({"tools.shop:pay": pay})
        yield OpenedRuns(Runner(backends={}, functions=functions, human_input=inbox, resolve=resolve), journal, inbox)


def read(path: Path, run: str = "r") -> tuple[RunRow, RunResult]:
    """Return a run's row and its pending work, as another process reads them."""
    database = Database(path, create=False)
    try:
        history = History(database, now=time.time)
        return history.run(run), find_pending_work(GRAPH, run, history.events)
    finally:
        database.close()


def asked(waits: tuple[RequestInput, ...]) -> list[tuple[str, str]]:
    return sorted((ask.run, ask.prompt) for ask in waits)


DEEP = [("r.1.0", "Deep?"), ("r.1.1", "Deep?")]


async def test_a_run_that_waits_is_released_and_goes_on_with_each_answer(path: Path) -> None:
    async with opened(path) as runs:
        assert asked((await runs.start({}, "r")).waiting) == DEEP
        row, pending = read(path)
        assert (row.status, row.holder, asked(pending.waiting), pending.in_doubt) == ("waiting", None, DEEP, ())
        assert (pending.run.state, pending.run.step) == ("both", 1)
        await runs.answer("r.1.1", Answered(step=1, value=False))
        assert asked((await runs.resume("r")).waiting) == DEEP[:1]
        assert (read(path)[0].holder, asked(read(path)[1].waiting)) == (None, DEEP[:1])
    async with opened(path) as runs:
        await runs.answer("r.1.0", Answered(step=1, value=True))
        assert asked((await runs.resume("r")).waiting) == [("r", "Well?")]
        assert asked(read(path)[1].waiting) == [("r", "Well?")]
        await runs.answer("r", Answered(step=2, value="yes"))
        result = await runs.resume("r")
        assert result.run.outcome == Outcome(status="succeeded", output=[WELL, "yes"])
    row, pending = read(path)
    assert (row.status, row.holder, pending.waiting, pending.in_doubt) == ("succeeded", None, (), ())


async def test_an_answer_that_does_not_fit_is_thrown_away(path: Path) -> None:
    async with opened(path) as runs:
        before = await runs.start({}, "r")
        async with SqliteJournal(path) as other:
            await other.signal("r.1.0", Answered(step=1, value="neither"))
        assert asked(before.waiting) == DEEP
        for _ in range(2):
            assert asked((await runs.resume("r")).waiting) == DEEP
            assert read(path)[0].holder is None


async def test_an_answer_to_a_question_that_is_over_is_thrown_away(path: Path) -> None:
    async with opened(path) as runs, SqliteJournal(path) as other:
        await runs.start({}, "r")
        for child, value in (("r.1.0", True), ("r.1.1", False)):
            await runs.answer(child, Answered(step=1, value=value))
        before = await runs.resume("r")
        assert asked(before.waiting) == [("r", "Well?")]
        await other.signal("r", Answered(step=1, value="late"))
        assert await runs.resume("r") == before
        assert read(path)[0].holder is None
        await other.signal("r", Answered(step=2, value="yes"))
        assert (await runs.resume("r")).run.outcome == Outcome(status="succeeded", output=[WELL, "yes"])


class Says:
    """Answers each question with one value."""

    def __init__(self, value: JSON) -> None:
        self.value = value

    async def answer(self, effect: RequestInput) -> JSON:
        return self.value


class Signalling:
    """Answers no question, but sends a signal through another journal while the question is asked."""

    def __init__(self, path: Path, signals: Mapping[str, tuple[str, Answered | Cancelled]]) -> None:
        self.path = path
        self.left = dict(signals)

    async def answer(self, effect: Any, /) -> JSON:
        if (signal := self.left.pop(effect.run, None)) is not None:
            async with SqliteJournal(self.path) as other:
                await other.signal(*signal)
        raise NoResponderError


async def test_answers_that_come_in_while_the_run_is_driven_are_taken(path: Path) -> None:
    signals = {
        "r.1.0": ("r.1.0", Answered(step=1, value=True)),
        "r.1.1": ("r.1.1", Answered(step=1, value=False)),
        "r": ("r", Answered(step=2, value="yes")),
    }
    async with opened(path, human_input=Signalling(path, signals)) as runs:
        result = await runs.start({}, "r")
        assert result.run.outcome == Outcome(status="succeeded", output=[WELL, "yes"])


async def test_a_cancellation_that_comes_in_while_the_run_is_driven_ends_it(path: Path) -> None:
    signals = {"r.1.1": ("r", Cancelled(reason="enough"))}
    async with opened(path, human_input=Signalling(path, signals)) as runs:
        result = await runs.start({}, "r")
        assert result.run.outcome is not None
        assert (result.run.status, result.run.outcome.error and result.run.outcome.error.message) == (
            "cancelled",
            "enough",
        )
    assert read(path)[0].status == "cancelled"


async def test_a_run_whose_calls_hang_is_cancelled_from_another_process(path: Path) -> None:
    begun = asyncio.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with opened(path, human_input=Says(True), pay=hang) as runs, SqliteJournal(path) as other:
        task = asyncio.create_task(runs.start({}, "r"))
        await begun.wait()
        await other.signal("r", Cancelled(reason="enough"))
        assert (await task).run.status == "cancelled"
    assert [read(path, run)[0].status for run in ("r", "r.1.0", "r.1.1")] == ["cancelled"] * 3


@pytest.mark.parametrize("given", [True, False], ids=["given", "come in"])
async def test_a_run_that_waits_is_cancelled(path: Path, given: bool) -> None:
    async with opened(path) as runs:
        await runs.start({}, "r")
        cancelled = Cancelled(reason="enough")
        if not given:
            runs.inbox.receive("r", cancelled)
        result = await runs.resume("r", then=cancelled if given else None)
        assert (result.run.status, result.waiting) == ("cancelled", ())
        assert result.run.outcome is not None
        assert result.run.outcome.error is not None
        assert result.run.outcome.error.message == "enough"


async def test_a_run_that_another_process_drives_is_not_resumed(path: Path) -> None:
    async with opened(path) as runs:
        await runs.start({}, "r")
        async with SqliteJournal(path) as other:
            await other.take(["r"])
            holder = read(path)[0].holder
            assert holder is not None
            with pytest.raises(UsageError) as caught:
                await runs.resume("r")
            assert str(caught.value) == f"run r is being driven by process {holder.pid} on {holder.host}"
        assert asked((await runs.resume("r")).waiting) == DEEP


async def test_calls_that_were_cut_off_are_in_doubt_until_they_are_resolved(path: Path) -> None:
    begun = 0

    async def hang() -> None:
        nonlocal begun
        begun += 1
        await asyncio.Event().wait()

    async with opened(path, human_input=Says(True), pay=hang) as runs:
        task = asyncio.create_task(runs.start({}, "r"))
        while begun < 2:  # noqa: ASYNC110 - counted, not signalled
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])
    _, pending = read(path)
    assert (sorted(call.run for call in pending.in_doubt), pending.waiting) == (["r.1.0", "r.1.1"], ())
    async with opened(path) as runs:
        result = await runs.resume("r")
        assert sorted(call.run for call in result.in_doubt) == ["r.1.0", "r.1.1"]
    assert (read(path)[0].status, read(path)[0].holder) == ("needs_attention", None)

    def half(call: CallFunction) -> AssumeDone | None:
        return AssumeDone("paid") if call.run == "r.1.1" else None

    async with opened(path, resolve=half) as runs:
        assert [call.run for call in (await runs.resume("r")).in_doubt] == ["r.1.0"]
    async with opened(path, resolve=lambda call: AssumeDone("paid")) as runs:
        assert asked((await runs.resume("r")).waiting) == [("r", "Well?")]
        await runs.answer("r", Answered(step=2, value=1))
        both = {"one": [True, "paid"], "two": [True, "paid"]}
        assert (await runs.resume("r")).run.outcome == Outcome(status="succeeded", output=[both, 1])


# --- with its backends and its stored flow ------------------------------------------------------------------------

SPEC = HEADER + (
    "states: {ask: {type: chat, next: sure}, sure: {type: wait, prompt: Sure?, next: done}, "
    'done: {type: end, output: "{{ [reply.content, outputs.sure] }}"}}\n'
)


class Seen:
    """An observer."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def notify(self, notice: Notice) -> None:
        self.events.append(notice.event)


class Counted(ScriptedBackend):
    """A backend that keeps its life in a list."""

    def __init__(self, life: list[str]) -> None:
        super().__init__([ScriptedReply(content="Hm.")])
        self.life = life

    async def start(self) -> None:
        self.life.append("started")

    async def reply(self, request: AskModel, *, on_text: OnText | None = None) -> Any:
        self.life.append("asked")
        return await super().reply(request)

    async def stop(self) -> None:
        self.life.append("stopped")


async def test_a_flow_is_stored_with_its_runs_and_its_backends_are_started_and_stopped(
    path: Path, tmp_path: Path
) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    (tmp_path / "replies.yaml").write_text("replies: [{content: Other.}]\n")
    life: list[str] = []
    seen = Seen()
    spec = Project().compile(tmp_path / "spec.yaml")
    flow = structs.replace(spec, backends={"default": Counted(life)})
    stored = store_flow(flow)
    async with Session(journal=path, observers=[seen], batch="b") as session:
        waiting = await session.run(flow, run_id="r")
    assert [ask.prompt for ask in waiting.waiting] == ["Sure?"]
    assert life == ["started", "asked", "stopped"]
    assert [type(event).__name__ for event in seen.events] == ["Started", "Replied"]

    database = Database(path, create=False)
    try:
        history = History(database, now=time.time)
        row = history.run("r")
        assert (row.flow, row.batch, row.spec, row.status) == ("test", "b", stored.digest, "waiting")
        assert load_stored_flow(history, row) == stored
    finally:
        database.close()

    signalling = Signalling(path, {"r": ("r", Answered(step=2, value="yes"))})
    async with Session(journal=path, human_input=signalling) as session:
        result = await session.resume("r")
    assert result.run.outcome == Outcome(status="succeeded", output=["Hm.", "yes"])


@pytest.mark.parametrize("by", ["the inbox", "the run itself"])
async def test_an_answer_that_comes_twice_is_taken_once(
    tmp_path: Path, path: Path, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal delivers what this process has sent itself, and may do so while the run takes it."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        """\
flowrun: v1
name: twice
version: 1.0.0
states:
  ask: {type: wait, prompt: Well?, next: pay}
  pay: {type: call, entrypoint: "tools.shop:pay", next: done}
  done: {type: end, output: "{{ outputs.pay }}"}
"""
    )
    flow = Project(functions={"tools.shop:pay": paid}).compile(spec)
    close_question = SqliteJournal.close_question

    async with Session(journal=path) as session:

        async def close_and_deliver(self: SqliteJournal, run: str, event: Any) -> Any:
            closing = await close_question(self, run, event)
            assert session._open is not None
            if by == "the inbox":
                session._open.inbox.receive(run, closing)
            else:
                session._open.runner.deliver(run, closing)
            return closing

        monkeypatch.setattr(SqliteJournal, "close_question", close_and_deliver)
        waiting = await session.run(flow)
        await session.answer(waiting.pending[0].id, "yes")
        result = await session.resume(waiting.run_id)
        recorded = [type(one.event).__name__ for one in session.journal.history.events(result.run_id)]
    assert (result.status, result.output) == ("succeeded", "paid")
    assert recorded == ["Started", "Answered", "CallStarted", "Returned"]
