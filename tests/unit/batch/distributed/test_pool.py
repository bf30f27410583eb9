"""Rows on many replicas: which replica gets them, and what happens to them when a replica dies. Time is virtual."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from flowrun.batch import Meter, Row
from flowrun.batch.distributed.pool import Pool
from flowrun.batch.distributed.ports import ReplicaLost, ReplicaReport
from flowrun.core.messages import Usage
from flowrun.errors import BackendError, FlowrunError
from flowrun.runtime.loop import Loop
from flowrun.testing.clock import VirtualLoop


class Fake:
    """A replica with a capacity of rows, each of which takes ``seconds``; rows in ``deadly`` kill it.

    ``ran`` counts how often it started each row; ``most`` is the highest number of rows that it had at once.
    """

    def __init__(self, *, capacity: int = 4, seconds: float = 1.0, deadly: frozenset[int] = frozenset()) -> None:
        self.capacity = capacity
        self.seconds = seconds
        self.deadly = deadly
        self.ran: Counter[int] = Counter()
        self.most = self.starts = 0
        self.stopped = self._dead = False
        self._live: dict[int, asyncio.TimerHandle] = {}
        self._done: list[tuple[int, dict[str, Any]]] = []
        self._received = 0
        self._news = asyncio.Event()

    async def start(self) -> str:
        self.starts += 1
        self._live, self._done, self._received, self._dead = {}, [], 0, False
        self._news.set()
        return "here"

    async def feed(self, rows: Sequence[Row]) -> None:
        if self._dead:
            raise ReplicaLost("killed")
        loop = asyncio.get_running_loop()
        self._received += len(rows)
        for row in rows:
            self.ran[row.number] += 1
            self._live[row.number] = loop.call_later(self.seconds, self._end, row.number)
        self.most = max(self.most, len(self._live))

    def _end(self, number: int) -> None:
        del self._live[number]
        if number in self.deadly:
            self.die()
        else:
            self._done.append((number, {"status": "succeeded", "error": None}))
        self._news.set()

    def die(self) -> None:
        for timer in self._live.values():
            timer.cancel()
        self._live, self._dead = {}, True
        self._news.set()

    async def collect(self) -> ReplicaReport:
        await self._news.wait()
        self._news.clear()
        if self._dead:
            raise ReplicaLost("killed")
        done, self._done = self._done, []
        usage = Usage(completion_tokens=10 * len(done))
        capacity = self.capacity - len(self._live)
        return ReplicaReport(
            results=done, capacity=capacity, received=self._received, rounds=2 * len(done), usage=usage
        )

    async def stop(self) -> None:
        self.die()
        self.stopped = True


class Broken(Fake):
    """A replica that cannot start."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def start(self) -> str:
        self.starts += 1
        raise self._error


class Mortal(Fake):
    """A replica that is killed once, while it runs its third rows."""

    async def start(self) -> str:
        if self.starts == 0:
            asyncio.get_running_loop().call_later(2.5 * self.seconds, self.die)
        return await super().start()


class Unreachable(Mortal):
    """A replica that is taken for dead once, and goes on with its rows: after its next start it reports them too."""

    def die(self) -> None:
        self._dead = True
        self._news.set()

    async def start(self) -> str:
        live = self._live
        started = await super().start()
        for number, timer in live.items():
            timer.cancel()
            self._done.append((number, {"status": "succeeded", "error": None, "late": True}))
        return started


class PoolRun:
    """The results, totals and messages of a pool that ran rows 1, 2, 3 and so on."""

    def __init__(self) -> None:
        self.results: dict[int, dict[str, Any]] = {}
        self.meter = Meter()
        self.messages: list[str] = []
        self.ahead = 0  # rows that were read and had no result yet

    @property
    def failed(self) -> dict[int, Any]:
        return {number: result["error"] for number, result in self.results.items() if result["error"] is not None}


def run(replicas: Sequence[Fake], count: int) -> PoolRun:
    pool_run = PoolRun()

    def rows() -> Iterator[Row]:
        for number in range(1, count + 1):
            pool_run.ahead = max(pool_run.ahead, number - len(pool_run.results))
            yield Row(number=number, id=number)

    async def go() -> None:
        pool = Pool(replicas, pool_run.meter, pool_run.messages.append)

        async def run_row(row: Row) -> None:
            pool_run.results[row.number] = await pool.run_row(row)

        try:
            await pool.start()
            await Loop(run_row, pool, max_live=pool.max_live).run(rows())
        finally:
            await pool.stop()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(go())
    return pool_run


def test_every_row_is_run_once_and_counted() -> None:
    replicas = [Fake(), Fake()]
    pool_run = run(replicas, 100)
    assert sorted(pool_run.results) == list(range(1, 101))
    assert replicas[0].ran + replicas[1].ran == Counter(range(1, 101))
    assert (pool_run.meter.rounds, pool_run.meter.usage) == (200, Usage(completion_tokens=1000))
    assert [replica.stopped for replica in replicas] == [True, True]


def test_a_replica_gets_no_more_rows_than_its_capacity() -> None:
    replicas = [Fake(capacity=3), Fake(capacity=50)]
    run(replicas, 200)
    assert [replica.most for replica in replicas] == [3, 50]


def test_rows_are_not_all_read_at_once() -> None:
    pool_run = run([Fake(capacity=50), Fake(capacity=50)], 10_000)
    assert len(pool_run.results) == 10_000
    assert pool_run.ahead < 5_000


def test_a_slow_replica_blocks_no_other() -> None:
    slow, fast = Fake(seconds=100), Fake(seconds=1)
    run([slow, fast], 100)
    assert (slow.ran.total(), fast.ran.total()) == (4, 96)


def test_the_rows_of_a_replica_that_died_are_run_again_and_no_others() -> None:
    mortal, other = Mortal(), Fake()
    pool_run = run([mortal, other], 40)
    assert (sorted(pool_run.results), pool_run.failed) == (list(range(1, 41)), {})
    assert sorted(Counter((mortal.ran + other.ran).values()).items()) == [(1, 36), (2, 4)]
    assert mortal.starts == 2


def test_a_replica_that_was_taken_for_dead_and_answers_ends_no_row_of_another() -> None:
    late, other = Unreachable(), Fake()
    pool_run = run([late, other], 40)
    assert pool_run.results == {number: {"status": "succeeded", "error": None} for number in range(1, 41)}
    assert sorted(Counter((late.ran + other.ran).values()).items()) == [(1, 36), (2, 4)]
    assert late.starts == 2


def test_a_row_that_kills_every_replica_is_the_only_one_that_fails() -> None:
    replicas = [Fake(capacity=40, deadly=frozenset({7})), Fake(capacity=40, deadly=frozenset({7}))]
    pool_run = run(replicas, 300)
    assert sorted(pool_run.results) == list(range(1, 301))
    deaths = replicas[0].ran[7] + replicas[1].ran[7]
    assert pool_run.failed == {
        7: {
            "name": "backend.unavailable",
            "message": f"{deaths} replicas died while they ran this row, the last while it ran no other: killed",
        }
    }
    assert 3 <= deaths <= 6


def test_a_batch_without_a_replica_that_can_start_ends() -> None:
    with pytest.raises(BackendError, match="no such model"):
        run([Broken(BackendError("no such model")), Broken(BackendError("no such model"))], 5)


def test_one_replica_that_cannot_start_fails_no_row() -> None:
    pool_run = run([Fake(), Broken(BackendError("no GPU"))], 20)
    assert len(pool_run.results) == 20
    assert "replica 2 is given up: no GPU" in pool_run.messages


def test_a_replica_that_dies_at_each_start_is_dropped() -> None:
    mortal = Broken(ReplicaLost("out of memory"))
    with pytest.raises(BackendError, match="it died 3 times in a row: out of memory"):
        run([mortal], 5)
    assert mortal.starts == 3


def test_a_batch_of_only_deadly_rows_ends() -> None:
    pool_run = run([Fake(deadly=frozenset(range(30)))], 20)
    assert {error["name"] for error in pool_run.failed.values()} == {"backend.unavailable"}
    assert len(pool_run.failed) == 20


def test_an_error_that_affects_all_rows_ends_the_batch() -> None:
    class Full(Fake):
        async def collect(self) -> ReplicaReport:
            await super().collect()
            return ReplicaReport(error="the disk is full")

    with pytest.raises(FlowrunError, match="the disk is full"):
        run([Full()], 5)


def test_an_error_of_a_running_replica_that_is_no_loss_ends_the_batch() -> None:
    class Failing(Fake):
        async def feed(self, rows: Sequence[Row]) -> None:
            raise BackendError("no such model")

    with pytest.raises(BackendError, match="no such model"):
        run([Failing(), Fake(capacity=0)], 5)


def test_a_cancelled_row_is_not_run() -> None:
    replica = Fake(capacity=1)

    async def go() -> list[Any]:
        pool = Pool([replica], Meter(), lambda message: None)
        await pool.start()
        rows = [asyncio.create_task(pool.run_row(Row(number=number, id=number))) for number in (1, 2, 3)]
        await asyncio.sleep(0.5)
        rows[1].cancel()
        results = await asyncio.gather(*rows, return_exceptions=True)
        await pool.stop()
        return [type(one) for one in results]

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(go()) == [dict, asyncio.CancelledError, dict]
    assert replica.ran == Counter([1, 3])
