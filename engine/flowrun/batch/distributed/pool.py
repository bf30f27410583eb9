"""Performs the decisions of a ``Scheduler`` on replicas, and sends it facts about them. Decides nothing itself.

Nothing here depends on Ray.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, NoReturn, assert_never

from flowrun.batch.batch import row_result
from flowrun.batch.distributed.facts import (
    Assign,
    Decision,
    Delivered,
    Drop,
    EndBatch,
    EndRow,
    Fact,
    FailRow,
    Lost,
    ReadRows,
    Ready,
    Reported,
    Restart,
    RowRead,
    RowWithdrawn,
    RunAgain,
    StartFailed,
    Stopped,
)
from flowrun.batch.distributed.ports import Replica, ReplicaLost
from flowrun.batch.distributed.scheduler import Scheduler
from flowrun.batch.rows import Row
from flowrun.errors import BackendError, Bug, FlowrunError
from flowrun.runtime.meter import Meter
from flowrun.runtime.run_result import failed_result

_REMINDER_SECONDS: Final = 60.0  # between two messages that no replica is ready yet


class _RowTask:
    """A row and the future of its result."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.result: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

    def end(self, result: dict[str, Any]) -> None:
        """Set the result, unless the row was cancelled."""
        if not self.result.done():
            self.result.set_result(result)


class Pool:
    """The replicas of a batch: a ``Capacity``. ``run_row`` is a ``RunRow``."""

    def __init__(self, replicas: Iterable[Replica], meter: Meter, say: Callable[[str], None]) -> None:
        self.on_capacity: Callable[[], None] = lambda: None
        self._replicas = dict(enumerate(replicas, 1))
        self._scheduler = Scheduler(len(self._replicas))
        self._meter = meter
        self._say = say
        self._rows: dict[int, _RowTask] = {}
        self._sessions: dict[int, asyncio.Task[None]] = {}
        self._assigned: dict[int, asyncio.Queue[Sequence[Row]]] = {}  # rows to send, by replica
        self._failure: FlowrunError | None = None
        self._ready = asyncio.Event()

    @property
    def max_live(self) -> int:
        """Return no limit: each replica limits its own live rows. See ``loop.Capacity.max_live``."""
        return sys.maxsize

    @property
    def has_capacity(self) -> bool:
        """Return whether more rows should be read."""
        return self._scheduler.wants_rows

    async def start(self) -> None:
        """Start the replicas, and wait until the first is ready.

        Raises:
            FlowrunError: no replica can start.
        """
        for number in self._replicas:
            self._start_session(number)
        while not self._ready.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ready.wait(), _REMINDER_SECONDS)
                break
            self._say("no replica is ready yet: there are no resources for one, or it is loading its model")
        if self._failure is not None:
            raise self._failure

    async def stop(self) -> None:
        """Stop the replicas, and cancel their rows."""
        self._handle(Stopped())
        for session in self._sessions.values():
            session.cancel()
        await asyncio.gather(*self._sessions.values(), return_exceptions=True)
        await asyncio.gather(*(replica.stop() for replica in self._replicas.values()), return_exceptions=True)

    async def run_row(self, row: Row) -> dict[str, Any]:
        """Run a row on some replica.

        Raises:
            FlowrunError: no replica is left, or one reported that the batch cannot continue.
        """
        if self._failure is not None:
            raise self._failure
        task = self._rows[row.place] = _RowTask(row)
        try:
            self._handle(RowRead(row=row.place))
            return await task.result
        except asyncio.CancelledError:
            self._handle(RowWithdrawn(row=row.place))
            raise
        finally:
            del self._rows[row.place]

    def _fail(self, exc: FlowrunError) -> None:
        """End the batch: raise the error in all rows that wait for a result."""
        self._failure = self._failure or exc
        self._ready.set()
        for task in self._rows.values():
            if not task.result.done():
                task.result.set_exception(exc)
        self._handle(Stopped())

    # --- decisions

    def _handle(self, fact: Fact) -> None:
        for decision in self._scheduler.handle(fact):
            self._perform(decision)

    def _perform(self, decision: Decision) -> None:
        match decision:
            case Assign():
                self._assigned[decision.replica].put_nowait([self._rows[row].row for row in decision.rows])
            case EndRow():
                self._rows[decision.row].end(dict(decision.result))
            case FailRow():
                self._rows[decision.row].end(row_result(failed_result("", decision.failure)))
            case RunAgain():
                again = f"{len(decision.rows)} rows are run again"
                self._say(f"replica {decision.replica} is lost: {decision.reason}; {again}")
            case Restart():
                self._start_session(decision.replica, pause=decision.seconds)
            case Drop():
                self._say(f"replica {decision.replica} is given up: {decision.reason}")
            case EndBatch():
                self._fail(BackendError(decision.reason))
            case ReadRows():
                self.on_capacity()
            case _:
                assert_never(decision)

    # --- the session of a replica

    def _start_session(self, number: int, *, pause: float = 0.0) -> None:
        self._sessions[number] = asyncio.create_task(self._run_session(number, pause))

    async def _run_session(self, number: int, pause: float) -> None:
        await asyncio.sleep(pause)
        try:
            self._handle(await self._session(number, self._replicas[number]))
        except FlowrunError as exc:
            self._fail(exc)
        except Exception as exc:
            self._fail(Bug(f"{type(exc).__name__}: {exc}"))
            raise

    async def _session(self, number: int, replica: Replica) -> Lost | StartFailed:
        """Start a replica, run rows on it until it is lost, and return the fact that ended the session."""
        try:
            location = await replica.start()
        except BackendError as exc:
            return StartFailed(replica=number, reason=str(exc))
        except ReplicaLost as exc:
            return Lost(replica=number, reason=str(exc))
        self._say(f"replica {number} of {len(self._replicas)} is ready: {location}")
        self._assigned[number] = asyncio.Queue()
        self._ready.set()
        self._handle(Ready(replica=number))
        try:
            await _run_both(self._feed(number, replica), self._collect(number, replica))
        except ReplicaLost as exc:
            return Lost(replica=number, reason=str(exc))

    async def _feed(self, number: int, replica: Replica) -> NoReturn:
        while True:
            await replica.feed(await self._assigned[number].get())
            self._handle(Delivered(replica=number))

    async def _collect(self, number: int, replica: Replica) -> NoReturn:
        while True:
            report = await replica.collect()
            self._meter.rounds += report.rounds
            self._meter.usage += report.usage
            ends = report.error is not None or report.lost is not None
            capacity = 0 if ends else report.capacity
            self._handle(Reported(replica=number, results=report.results, capacity=capacity, received=report.received))
            if report.error is not None:
                raise FlowrunError(report.error)
            if report.lost is not None:
                raise ReplicaLost(report.lost)


async def _run_both(one: Coroutine[Any, Any, NoReturn], other: Coroutine[Any, Any, NoReturn]) -> NoReturn:
    """Run two coroutines until one raises an error; cancel the other, and raise the error."""
    both = [asyncio.create_task(one), asyncio.create_task(other)]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_EXCEPTION)
    finally:
        for task in both:
            task.cancel()
        ended = await asyncio.gather(*both, return_exceptions=True)
    raise next(exc for exc in ended if isinstance(exc, Exception))
