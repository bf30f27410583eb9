"""The runs of a server: begun by requests, answered by people, and resumed in the background until they end."""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

from flowrun.errors import FlowrunError, StoreError, UsageError
from flowrun.journal import History, RunRow
from flowrun.runtime.flow_runs import find_pending_work, unanswered
from flowrun.runtime.project import CompiledFlow
from flowrun.runtime.run_events import RunEvent
from flowrun.runtime.run_result import InputRequest, Resolve, RunResult
from flowrun.runtime.session import Session
from flowrun.runtime.watch import Watch
from flowrun.serving.answers import unmask_arguments
from flowrun.serving.reader import Reader
from flowrun.serving.shown_flows import ShownFlows
from flowrun.spec import mask

T = TypeVar("T")

BATCH: Final = "serve"
"""The label of the runs that a server begins, in its journal."""

_REMEMBERED: Final = 1000
"""The runs of which it is remembered why they could not be resumed."""

_AGAIN_SECONDS: Final = 5.0
"""After so long it is tried again to read a journal."""

_LOOK_SECONDS: Final = 0.05
"""How often a run is looked at that somebody else drives."""

_log = logging.getLogger(__name__)


class Full(FlowrunError):
    """As many runs are live as the server allows."""


class Draining(FlowrunError):
    """The server is about to stop, and begins no further run."""


class Stopped(FlowrunError):
    """The server stops before a run has ended that a request waits for.

    Attributes:
        run: the id of the run.
    """

    def __init__(self, message: str, *, run: str) -> None:
        super().__init__(message)
        self.run = run


class NoSuchRun(FlowrunError):
    """The journal has no run with this id."""


class ServedRuns:
    """Begins, answers, resumes and cancels the runs of a session with a journal, from which all of them can be read.

    Attributes:
        draining: the server is about to stop.
        shown: the flows of runs, as they are shown.
        refused: why the runs that could not be resumed here were not, by their ids.
    """

    def __init__(self, session: Session, shown: ShownFlows, *, max_live: int, outlives_requests: bool) -> None:
        """Bind the runs to an open session.

        Args:
            shown: the flows of runs that are shown or answered.
            max_live: the most runs that requests may have in progress at once.
            outlives_requests: a run goes on if the request that began it goes away; else it is cancelled.
        """
        self.session = session
        self.shown = shown
        self.draining = False
        self._max_live = max_live
        self._outlives_requests = outlives_requests
        self.refused: dict[str, str] = {}
        self._resuming: dict[str, bool] = {}  # whether to look again, once the run has stopped: an answer came in
        self._path = session.journal.history.path
        self._readers: list[Reader] = []
        self._live: set[asyncio.Task[Any]] = set()
        self._background: set[asyncio.Task[Any]] = set()
        self._watches: set[asyncio.Task[Any]] = set()
        self._waiting: dict[asyncio.Future[RunResult], str] = {}

    @property
    def history(self) -> History:
        """Return the reader of the journal."""
        return self.session.journal.history

    def make_reader(self) -> Reader:
        """Return one more reader of the journal; ``close_readers`` closes it."""
        reader = Reader(self._path)
        self._readers.append(reader)
        return reader

    def close_readers(self) -> None:
        """Close the readers, so that the last process that leaves the journal leaves one file."""
        for reader in self._readers:
            reader.close()

    @property
    def live(self) -> int:
        """Return the number of runs in progress."""
        return len(self._live) + len(self._background)

    async def run(
        self,
        flow: CompiledFlow,
        inputs: Mapping[str, Any],
        *,
        run_id: str,
        listen: Callable[[RunEvent], None] | None = None,
    ) -> RunResult:
        """Run a flow until it ends or waits, and return its result.

        Args:
            listen: receives the events of the run as they happen.

        Raises:
            Full: as many runs are live as may be.
            Draining: the server is about to stop.
            Stopped: the server stops before the run has ended.
            UsageError: the inputs do not match what the spec declares.
            BackendError: an engine cannot start.
        """
        self.refuse_if_busy()
        return await self._for_request(run_id, self._run(flow, inputs, run_id, listen))

    async def go_on(self, run_id: str) -> RunResult:
        """Resume a run for a request, and return its result when it has ended or waits again.

        Raises:
            UsageError: there is no such run, or it has ended.
        """
        try:
            return await self._for_request(run_id, self.session.resume(run_id))
        except UsageError:
            await self._until_released(run_id)
            return self.pending(run_id)

    async def _until_released(self, run_id: str) -> None:
        """Return when nobody drives a run any more."""
        while True:
            row = self.history.run(run_id)
            if row.holder is None or row.ended is not None:
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _for_request(self, run_id: str, work: Coroutine[Any, Any, RunResult]) -> RunResult:
        """Return the result of a run. If its request ends before it, it goes on, or its end is recorded too."""
        task = _begin(work, self._live)
        result = asyncio.shield(task)
        self._waiting[result] = run_id
        try:
            return await result
        finally:
            del self._waiting[result]
            if not task.done():
                task.add_done_callback(partial(self._note_failure, run_id))
                if not self._outlives_requests:
                    _begin(self._abandon(run_id), self._background)

    async def _abandon(self, run_id: str) -> None:
        with suppress(UsageError):  # it has ended meanwhile
            await self.session.cancel(run_id, reason="the request that began it has ended")

    def refuse_if_busy(self) -> None:
        """Raise if no run can begin now.

        Raises:
            Full: as many runs are live as may be.
            Draining: the server is about to stop.
        """
        if self.draining:
            raise Draining("the server is about to stop: ask again in a moment")
        if len(self._live) >= self._max_live:
            raise Full(f"{len(self._live)} runs are live, and --max-live allows no more: ask again in a moment")

    async def _run(
        self, flow: CompiledFlow, inputs: Mapping[str, Any], run_id: str, listen: Callable[[RunEvent], None] | None
    ) -> RunResult:
        if listen is None:
            return await self.session.run(flow, inputs, run_id=run_id)
        async with self.session.stream(flow, inputs, run_id=run_id) as run:
            async for event in run:
                listen(event)
            return run.result

    def find(self, run_id: str) -> RunRow:
        """Return a run by its whole id; of a child, the run that it belongs to.

        Raises:
            NoSuchRun: there is none. The message does not say where the journal is: clients read it.
        """
        try:
            if self.history.run(run_id).id == run_id:  # the journal finds runs by the beginnings of their ids too
                return self.history.top_run(run_id)
        except UsageError:
            pass
        raise NoSuchRun(f"there is no run {run_id!r}")

    async def answer(self, request_id: str, value: Any) -> None:
        """Answer a question, and let its run go on in the background unless another process drives it.

        Args:
            value: a secret in it that was shown as ``${NAME}`` stays what it was.

        Raises:
            NoSuchRun: there is no run that could have asked it.
            Draining: the server is about to stop, and the run with it.
            UsageError: the question is not open, was answered already, or the value does not match its schema. The
                message is without secrets.
        """
        row = self.find(request_id.rsplit("/", 2)[0])
        if self.draining and not self._outlives_requests:
            raise Draining("the server is about to stop, and its runs with it")
        flow = self.flow_to_show(row)
        asked = find_pending_work(flow.graph, row.id, self.history.events).pending if flow.secrets else ()
        question = next((ask for ask in asked if ask.id == request_id), None)
        if question is not None:
            value = unmask_arguments(value, question, flow.secrets)
        try:
            await self.session.answer(request_id, value)
        except UsageError as exc:
            raise UsageError(mask(str(exc), flow.secrets)) from exc
        if self.find(row.id).holder is None and not self.draining:
            self.resume(row.id)

    def resume(self, run_id: str, *, resolve: Resolve | None = None) -> "asyncio.Task[None] | None":
        """Resume a top run in the background. Why it cannot be resumed is said in the log and in ``refused``.

        Return the task that does it; None if it is being resumed already, and will look again.

        Args:
            resolve: resolves the run's calls that are in doubt.
        """
        if run_id in self._resuming:
            self._resuming[run_id] = True
            return None
        self._resuming[run_id] = False
        self.refused.pop(run_id, None)
        return _begin(self._resume(run_id, resolve), self._background)

    def is_resuming(self, run_id: str) -> bool:
        """Return whether a run was resumed here and has not ended or stopped to wait since: its engines may start."""
        return run_id in self._resuming

    async def _resume(self, run_id: str, resolve: Resolve | None) -> None:
        try:
            result = await self.session.resume(run_id, resolve=resolve)
            while self._resuming[run_id] and result.run.outcome is None and not self.draining:
                self._resuming[run_id] = False
                result = await self.session.resume(run_id)
        except FlowrunError as exc:
            if not self._goes_on(run_id):
                _log.warning("run %s cannot be resumed: %s", run_id, exc)
                self.refused[run_id] = str(exc)
                while len(self.refused) > _REMEMBERED:
                    del self.refused[next(iter(self.refused))]
        except RuntimeError:
            if not self.draining:  # the session was closed, and the run can be resumed later
                raise
        finally:
            del self._resuming[run_id]

    def _goes_on(self, run_id: str) -> bool:
        """Return whether somebody else drives a run, or has driven it to its end."""
        try:
            row = self.history.run(run_id)
        except FlowrunError:
            return False
        return row.holder is not None or row.ended is not None

    def _note_failure(self, run_id: str, task: "asyncio.Task[Any]") -> None:
        """Log why a run does not go on that no request waits for: it cannot, the server stops, or a bug."""
        if not task.cancelled() and (exc := task.exception()) is not None:
            bug = None if self.draining or isinstance(exc, FlowrunError) else exc
            _log.warning("run %s does not go on: %s", run_id, exc, exc_info=bug)

    async def cancel(self, run_id: str, *, reason: str = "") -> None:
        """Cancel a run, here or in the process that drives it.

        Raises:
            NoSuchRun: there is no such run.
            UsageError: it has ended.
        """
        await self.session.cancel(self.find(run_id).id, reason=reason)

    def pending(self, run_id: str) -> RunResult:
        """Return a run as it is now, with the questions that it waits for.

        Raises:
            NoSuchRun: there is no such run.
        """
        row = self.find(run_id)
        return find_pending_work(self.flow_to_show(row).graph, row.id, self.history.events)

    def unanswered(self, result: RunResult) -> list[InputRequest]:
        """Return the questions that a run waits for, but those whose answer it has only not read yet."""
        return unanswered(result, self.history.inbox)

    def flow_to_show(self, row: RunRow) -> CompiledFlow:
        """Return the flow that a run started with, without its functions. Its ``secrets`` are to be masked."""
        return self.shown.flow_of(self.history, row)

    def watch(self, flows: Collection[str]) -> None:
        """Resume the runs of servers in the journal as they become due: those of an earlier process, and timers.

        Args:
            flows: the names of the flows that this server serves; the runs of others are left to theirs.
        """

        async def resume(row: RunRow) -> None:
            if not self.draining and (task := self.resume(row.id)) is not None:
                await asyncio.wait({task})

        def report(row: RunRow, error: FlowrunError) -> None:
            _log.warning("run %s of %s cannot be resumed: %s", row.id, row.flow, error)

        def is_wanted(row: RunRow) -> bool:
            return row.batch == BATCH and row.flow in flows

        watch = Watch(self.history, resume, load_flow=self.flow_to_show, report=report, is_wanted=is_wanted)
        _begin(_watch_on(watch), self._watches)

    async def drain(self, seconds: float) -> None:
        """Begin no further run, and give those in progress some seconds to end or to wait."""
        self.draining = True
        for task in self._watches:
            task.cancel()
        if tasks := self._live | self._background:
            await asyncio.wait(tasks, timeout=seconds)
        self.stop_waiting()

    def stop_waiting(self) -> None:
        """Let the requests fail that wait for runs, before their connections are closed.

        A client that only loses its connection sends the request again, and the flow would run twice.
        """
        for result, run in self._waiting.items():
            if not result.done():
                result.set_exception(Stopped(f"the server stops before run {run} has ended", run=run))


async def _watch_on(watch: Watch) -> None:
    """Watch, also after a journal could not be read."""
    while True:
        try:
            await watch.run()
        except StoreError as exc:
            _log.warning("the journal cannot be read, so no run is resumed for now: %s", exc)
            await asyncio.sleep(_AGAIN_SECONDS)


def _begin(work: Coroutine[Any, Any, T], tasks: set[asyncio.Task[Any]]) -> asyncio.Task[T]:
    task = asyncio.create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task
