"""Rows for many replicas: each takes rows when it has room, and what a replica that died had is run again elsewhere.

Nothing here knows Ray. A row is blamed for a death only if it was alone on the replica: rows that were there at several
deaths are run in ever smaller companies, so that one row that kills its replica costs no other row its result.
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

DEATHS_OF_A_ROW: Final = 3
"""A row that was there at so many deaths, and alone at the last, is not run again."""

LONE_DEATHS: Final = 2
"""From so many deaths on, a row is run in a quarter of the company that it had at the last one."""

DEATHS_OF_A_REPLICA: Final = 3
"""A replica that died so many times in a row without having had a row is given up."""

_AHEAD: Final = 16  # rows that wait here at least, so that a replica need not wait for them to be read
_PATIENCE: Final = 60.0  # seconds between two words on that nothing happens
_PAUSE: Final = 1.0  # seconds before a replica that died is asked to begin again


class ReplicaReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a replica has to say: results by row number, and how many more rows it could begin.

    ``received`` counts all rows that had come when that was so. ``rounds`` and ``usage`` are since the answer before.
    ``lost`` says why its rows are to be run elsewhere; ``error`` why the whole batch cannot go on.
    """

    results: Sequence[tuple[int, dict[str, Any]]] = ()
    room: int = 0
    received: int = 0
    rounds: int = 0
    usage: Usage = Usage()
    lost: str | None = None
    error: str | None = None


class ReplicaLost(Exception):
    """A replica died, or cannot be reached. What it had is to be run elsewhere."""


class Replica(Protocol):
    """Runs rows somewhere. Each start is a session of its own; the rows of older ones are given up by it."""

    async def start(self) -> str:
        """Get ready for rows, and say where.

        Raises:
            BackendError: it cannot, and would not the next time either.
            ReplicaLost: it died meanwhile.
        """

    async def feed(self, rows: Sequence[Row]) -> None:
        """Begin rows.

        Raises:
            ReplicaLost: it is gone.
        """

    async def collect(self) -> ReplicaReport:
        """Wait for news.

        Raises:
            ReplicaLost: it is gone.
        """

    async def stop(self) -> None:
        """End it; its rows are given up."""


class _RowTask:
    """A row, its result to come, and what happened to the replicas that had it."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.result: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.deaths = 0
        self.company: int | None = None  # so many rows may be on a replica with it, itself included


class _ReplicaState:
    """A replica as the pool sees it: what it has, and how much more it wants."""

    def __init__(self, number: int, replica: Replica) -> None:
        self.number = number
        self.replica = replica
        self.news = asyncio.Event()
        self.begin()

    def begin(self) -> None:
        """Forget the session before."""
        self.out: dict[int, _RowTask] = {}
        self.room = self.fed = 0

    @property
    def company(self) -> int | None:
        """Give how many rows may be here at once because of those that are; None: any number."""
        return min((case.company for case in self.out.values() if case.company is not None), default=None)


class Pool:
    """Replicas at work. ``run_row`` is a ``RunRow``; ``has_room`` and ``on_room`` are as a ``Meter`` has them."""

    def __init__(self, replicas: Iterable[Replica], meter: Meter, say: Callable[[str], None]) -> None:
        self.on_room: Callable[[], None] = lambda: None
        self._replicas = list(replicas)
        self._places = [_ReplicaState(number, replica) for number, replica in enumerate(self._replicas, 1)]
        self._meter = meter
        self._say = say
        self._queue: deque[_RowTask] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self._failure: FlowrunError | None = None
        self._first = asyncio.Event()

    @property
    def max_live(self) -> int:
        """See ``loop.Room``: what is live is up to the replicas."""
        return sys.maxsize

    @property
    def has_room(self) -> bool:
        """Tell whether more rows should be read."""
        return len(self._queue) < max(_AHEAD, sum(max(0, place.room) for place in self._places))

    async def start(self) -> None:
        """Start the replicas, and wait for the first that is ready.

        Raises:
            FlowrunError: none of them can be.
        """
        self._tasks = [asyncio.create_task(self._serve(place)) for place in self._places]
        while not self._first.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._first.wait(), _PATIENCE)
                break
            self._say("no replica is ready yet: there is no place for one, or it is loading its model")
        if self._failure is not None:
            raise self._failure

    async def stop(self) -> None:
        """End the replicas, and give up the rows that they have."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(replica.stop() for replica in self._replicas), return_exceptions=True)

    async def run_row(self, row: Row) -> dict[str, Any]:
        """Run a row on some replica.

        Raises:
            FlowrunError: there is no replica any more, or one says that the batch cannot go on.
        """
        if self._failure is not None:
            raise self._failure
        case = _RowTask(row)
        self._queue.append(case)
        self._wake()
        return await case.result

    def _wake(self) -> None:
        for place in self._places:
            place.news.set()

    # --- one replica

    async def _serve(self, place: _ReplicaState) -> None:
        try:
            await self._keep(place)
        except FlowrunError as exc:
            self._fail(exc)
        except Exception as exc:
            self._fail(Bug(f"{type(exc).__name__}: {exc}"))
            raise

    async def _keep(self, place: _ReplicaState) -> None:
        """Start a replica, give it rows, and start it again whenever it is lost."""
        without_rows = 0
        while True:
            place.begin()
            try:
                where = await place.replica.start()
                self._say(f"replica {place.number} of {len(self._replicas)} is ready: {where}")
                self._first.set()
                await self._work(place)
            except BackendError as exc:
                return self._give_up(place, exc)
            except ReplicaLost as exc:
                without_rows = 0 if place.fed else without_rows + 1
                self._take_back(place, str(exc))
                if without_rows == DEATHS_OF_A_REPLICA:
                    return self._give_up(place, BackendError(f"it died {without_rows} times in a row: {exc}"))
                await asyncio.sleep(_PAUSE)

    async def _work(self, place: _ReplicaState) -> None:
        both = [asyncio.create_task(self._feed(place)), asyncio.create_task(self._collect(place))]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for task in both:
                task.cancel()
            ended = await asyncio.gather(*both, return_exceptions=True)
        for exc in ended:
            if isinstance(exc, Exception):
                raise exc

    async def _feed(self, place: _ReplicaState) -> None:
        while True:
            place.news.clear()
            if chunk := self._deal(place):
                place.out |= {case.row.number: case for case in chunk}
                place.fed += len(chunk)
                place.room -= len(chunk)
                self.on_room()
                await place.replica.feed([case.row for case in chunk])
            else:
                await place.news.wait()

    def _deal(self, place: _ReplicaState) -> list[_RowTask]:
        """Take from the queue what a replica has room for, and what may be there together."""
        chunk: list[_RowTask] = []
        passed: list[_RowTask] = []
        company = place.company
        while self._queue and len(chunk) < place.room and (company is None or len(place.out) + len(chunk) < company):
            case = self._queue.popleft()
            if case.result.done():
                continue
            if case.company is not None and len(place.out) + len(chunk) >= case.company:
                passed.append(case)
                continue
            chunk.append(case)
            company = _smaller(company, case.company)
        self._queue.extendleft(reversed(passed))
        return chunk

    async def _collect(self, place: _ReplicaState) -> None:
        while True:
            answer = await place.replica.collect()
            for number, result in answer.results:
                if (case := place.out.pop(number, None)) is not None and not case.result.done():
                    case.result.set_result(result)
            self._meter.rounds += answer.rounds
            self._meter.usage += answer.usage
            if answer.error is not None:
                raise FlowrunError(answer.error)
            if answer.lost is not None:
                raise ReplicaLost(answer.lost)
            place.room = answer.room - (place.fed - answer.received)
            self.on_room()
            place.news.set()

    # --- what a replica that died leaves

    def _take_back(self, place: _ReplicaState, why: str) -> None:
        """Put the rows of a lost replica at the head of the queue, but for one that is to blame."""
        cases = [case for case in place.out.values() if not case.result.done()]
        place.begin()
        again: list[_RowTask] = []
        for case in cases:
            case.deaths += 1
            if case.deaths >= DEATHS_OF_A_ROW and len(cases) == 1:
                case.result.set_result(failed_result(_blame(case.deaths, why)))
                continue
            if case.deaths >= LONE_DEATHS:
                case.company = max(1, len(cases) // 4)
            again.append(case)
        self._say(f"replica {place.number} is lost: {why}; {len(again)} rows are run again")
        self._queue.extendleft(reversed(again))
        self._wake()

    def _give_up(self, place: _ReplicaState, exc: BackendError) -> None:
        self._places.remove(place)
        if not self._places:
            self._fail(exc)
            return
        self._say(f"replica {place.number} is given up: {exc}")

    def _fail(self, exc: FlowrunError) -> None:
        """End the batch: every row that is under way raises."""
        self._failure = self._failure or exc
        self._first.set()
        for case in (*self._queue, *(case for place in self._places for case in place.out.values())):
            if not case.result.done():
                case.result.set_exception(exc)
        self._queue.clear()


def _blame(deaths: int, why: str) -> Failure:
    return Failure(
        name="backend.unavailable",
        message=f"{deaths} replicas died while they ran this row, the last while it ran no other: {why}",
    )


def _smaller(one: int | None, other: int | None) -> int | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)
