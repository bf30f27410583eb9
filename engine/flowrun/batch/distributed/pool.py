"""Distributes rows over replicas: each gets rows while it has capacity, and the rows of a lost replica are run again.

Nothing here depends on Ray. A row is blamed for the loss of a replica only if it ran there alone. Rows that ran on
several lost replicas are run in smaller and smaller groups, so that a row that kills its replica fails no other row.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

import msgspec

from flowrun.batch.batch import failed_result
from flowrun.batch.meter import Meter
from flowrun.batch.rows import Row
from flowrun.core.messages import Usage
from flowrun.errors import BackendError, Bug, Failure, FlowrunError

LOSSES_OF_A_ROW: Final = 3
"""The number of lost replicas after which a row fails, if it ran alone on the last of them."""

LOSSES_BEFORE_SMALLER_GROUPS: Final = 2
"""The number of lost replicas after which a row runs in a smaller group: a quarter of the rows of the last of them."""

LOSSES_OF_A_REPLICA: Final = 3
"""The number of consecutive losses without a row in between after which a replica is dropped."""

_AHEAD: Final = 16  # rows to read ahead at least, so that no replica waits for them to be read
_REMINDER_SECONDS: Final = 60.0  # between two messages that no replica is ready yet
_RESTART_SECONDS: Final = 1.0  # before a lost replica is started again


class ReplicaReport(msgspec.Struct, frozen=True, kw_only=True):
    """A report of a replica on its session.

    Attributes:
        results: (row number, result) of the rows that ended since the report before.
        capacity: the number of further rows that the replica can start.
        received: the number of rows that the session had received when ``capacity`` was computed.
        rounds: the rounds since the report before.
        usage: the tokens used since the report before.
        lost: why the rows of the session must be run again.
        error: why the batch cannot continue.
    """

    results: Sequence[tuple[int, dict[str, Any]]] = ()
    capacity: int = 0
    received: int = 0
    rounds: int = 0
    usage: Usage = Usage()
    lost: str | None = None
    error: str | None = None


class ReplicaLost(Exception):
    """A replica died or cannot be reached. Its rows must be run again."""


class Replica(Protocol):
    """A process that runs rows. Each start begins a new session and cancels the rows of the session before."""

    async def start(self) -> str:
        """Start the backends, and return the process and host as text.

        Raises:
            BackendError: it cannot start, and another attempt would fail too.
            ReplicaLost: it died during the start.
        """

    async def feed(self, rows: Sequence[Row]) -> None:
        """Start rows.

        Raises:
            ReplicaLost: it died or cannot be reached.
        """

    async def collect(self) -> ReplicaReport:
        """Wait for the next report.

        Raises:
            ReplicaLost: it died or cannot be reached.
        """

    async def stop(self) -> None:
        """Stop the replica and cancel its rows."""


class _RowTask:
    """A row, the future of its result, and the number of replicas that were lost while they ran it."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.result: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.losses = 0
        self.group_size: int | None = None  # maximum rows on a replica together with it, itself included


class _ReplicaState:
    """The pool's view of a replica: the rows that it runs, and its capacity for more.

    Attributes:
        assigned: the rows that the replica runs, by row number.
        capacity: the number of further rows that it can start.
        fed: the number of rows sent to its session.
        wake: set when the replica may get more rows.
    """

    def __init__(self, number: int, port: Replica) -> None:
        self.number = number
        self.port = port
        self.wake = asyncio.Event()
        self.reset()

    def reset(self) -> None:
        """Forget the session before."""
        self.assigned: dict[int, _RowTask] = {}
        self.capacity = self.fed = 0

    @property
    def group_size(self) -> int | None:
        """Return the maximum number of rows here at once, given the rows that it runs; None: no limit."""
        return min((task.group_size for task in self.assigned.values() if task.group_size is not None), default=None)


class Pool:
    """The replicas of a batch: a ``Capacity``. ``run_row`` is a ``RunRow``."""

    def __init__(self, replicas: Iterable[Replica], meter: Meter, say: Callable[[str], None]) -> None:
        self.on_capacity: Callable[[], None] = lambda: None
        self._ports = list(replicas)
        self._replicas = [_ReplicaState(number, port) for number, port in enumerate(self._ports, 1)]
        self._meter = meter
        self._say = say
        self._queue: deque[_RowTask] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: FlowrunError | None = None
        self._ready = asyncio.Event()

    @property
    def max_live(self) -> int:
        """Return no limit: each replica limits its own live rows. See ``loop.Capacity.max_live``."""
        return sys.maxsize

    @property
    def has_capacity(self) -> bool:
        """Return whether more rows should be read."""
        return len(self._queue) < max(_AHEAD, sum(max(0, replica.capacity) for replica in self._replicas))

    async def start(self) -> None:
        """Start the replicas, and wait until the first is ready.

        Raises:
            FlowrunError: no replica can start.
        """
        self._tasks = [asyncio.create_task(self._serve(replica)) for replica in self._replicas]
        while not self._ready.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ready.wait(), _REMINDER_SECONDS)
                break
            self._say("no replica is ready yet: there is no place for one, or it is loading its model")
        if self._failure is not None:
            raise self._failure

    async def stop(self) -> None:
        """Stop the replicas, and cancel their rows."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(port.stop() for port in self._ports), return_exceptions=True)

    async def run_row(self, row: Row) -> dict[str, Any]:
        """Run a row on some replica.

        Raises:
            FlowrunError: no replica is left, or one reported that the batch cannot continue.
        """
        if self._failure is not None:
            raise self._failure
        task = _RowTask(row)
        self._queue.append(task)
        self._wake()
        return await task.result

    def _wake(self) -> None:
        for replica in self._replicas:
            replica.wake.set()

    # --- one replica

    async def _serve(self, replica: _ReplicaState) -> None:
        try:
            await self._keep_running(replica)
        except FlowrunError as exc:
            self._fail(exc)
        except Exception as exc:
            self._fail(Bug(f"{type(exc).__name__}: {exc}"))
            raise

    async def _keep_running(self, replica: _ReplicaState) -> None:
        """Start a replica, send it rows, and start it again whenever it is lost."""
        losses_without_rows = 0
        while True:
            replica.reset()
            try:
                location = await replica.port.start()
                self._say(f"replica {replica.number} of {len(self._ports)} is ready: {location}")
                self._ready.set()
                await self._run_session(replica)
            except BackendError as exc:
                return self._drop(replica, exc)
            except ReplicaLost as exc:
                losses_without_rows = 0 if replica.fed else losses_without_rows + 1
                self._requeue(replica, str(exc))
                if losses_without_rows == LOSSES_OF_A_REPLICA:
                    return self._drop(replica, BackendError(f"it died {losses_without_rows} times in a row: {exc}"))
                await asyncio.sleep(_RESTART_SECONDS)

    async def _run_session(self, replica: _ReplicaState) -> None:
        both = [asyncio.create_task(self._feed(replica)), asyncio.create_task(self._collect(replica))]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in both:
                task.cancel()
            ended = await asyncio.gather(*both, return_exceptions=True)
        for exc in ended:
            if isinstance(exc, Exception):
                raise exc

    async def _feed(self, replica: _ReplicaState) -> None:
        while True:
            replica.wake.clear()
            if chunk := self._next_rows(replica):
                replica.assigned |= {task.row.number: task for task in chunk}
                replica.fed += len(chunk)
                replica.capacity -= len(chunk)
                self.on_capacity()
                await replica.port.feed([task.row for task in chunk])
            else:
                await replica.wake.wait()

    def _next_rows(self, replica: _ReplicaState) -> list[_RowTask]:
        """Remove rows from the queue for a replica, within its capacity and the group sizes of its rows."""
        chunk: list[_RowTask] = []
        skipped: list[_RowTask] = []
        group_size = replica.group_size
        while (
            self._queue
            and len(chunk) < replica.capacity
            and (group_size is None or len(replica.assigned) + len(chunk) < group_size)
        ):
            task = self._queue.popleft()
            if task.result.done():
                continue
            if task.group_size is not None and len(replica.assigned) + len(chunk) >= task.group_size:
                skipped.append(task)
                continue
            chunk.append(task)
            group_size = _smaller(group_size, task.group_size)
        self._queue.extendleft(reversed(skipped))
        return chunk

    async def _collect(self, replica: _ReplicaState) -> None:
        while True:
            report = await replica.port.collect()
            for number, result in report.results:
                if (task := replica.assigned.pop(number, None)) is not None and not task.result.done():
                    task.result.set_result(result)
            self._meter.rounds += report.rounds
            self._meter.usage += report.usage
            if report.error is not None:
                raise FlowrunError(report.error)
            if report.lost is not None:
                raise ReplicaLost(report.lost)
            replica.capacity = report.capacity - (replica.fed - report.received)
            self.on_capacity()
            replica.wake.set()

    # --- lost replicas

    def _requeue(self, replica: _ReplicaState, reason: str) -> None:
        """Put the rows of a lost replica at the head of the queue; a row that is to blame fails instead."""
        tasks = [task for task in replica.assigned.values() if not task.result.done()]
        replica.reset()
        again: list[_RowTask] = []
        for task in tasks:
            task.losses += 1
            if task.losses >= LOSSES_OF_A_ROW and len(tasks) == 1:
                task.result.set_result(failed_result(_blame(task.losses, reason)))
                continue
            if task.losses >= LOSSES_BEFORE_SMALLER_GROUPS:
                task.group_size = max(1, len(tasks) // 4)
            again.append(task)
        self._say(f"replica {replica.number} is lost: {reason}; {len(again)} rows are run again")
        self._queue.extendleft(reversed(again))
        self._wake()

    def _drop(self, replica: _ReplicaState, exc: BackendError) -> None:
        self._replicas.remove(replica)
        if not self._replicas:
            self._fail(exc)
            return
        self._say(f"replica {replica.number} is given up: {exc}")

    def _fail(self, exc: FlowrunError) -> None:
        """End the batch: raise the error in all rows that wait for a result."""
        self._failure = self._failure or exc
        self._ready.set()
        for task in (*self._queue, *(task for replica in self._replicas for task in replica.assigned.values())):
            if not task.result.done():
                task.result.set_exception(exc)
        self._queue.clear()


def _blame(losses: int, reason: str) -> Failure:
    return Failure(
        name="backend.unavailable",
        message=f"{losses} replicas died while they ran this row, the last while it ran no other: {reason}",
    )


def _smaller(one: int | None, other: int | None) -> int | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)
