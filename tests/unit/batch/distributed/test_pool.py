"""Rows for many replicas: who gets them, and what becomes of them when a replica dies. Time is virtual."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from flowrun.batch import Meter, Row
from flowrun.batch.distributed.pool import Pool, ReplicaLost, ReplicaReport
from flowrun.batch.loop import Loop
from flowrun.core.messages import Usage
from flowrun.errors import BackendError, FlowrunError
from flowrun.testing.clock import VirtualLoop


class Fake:
    """A replica with room for some rows, which takes ``seconds`` for each, and does as its row says.

    ``ran`` counts the rows that it began; ``most`` is how many it ever had at once. Rows in ``deadly`` kill it.
    """

    def __init__(self, *, room: int = 4, seconds: float = 1.0, deadly: frozenset[int] = frozenset()) -> None:
        self.room = room
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
        room = self.room - len(self._live)
        return ReplicaReport(results=done, room=room, received=self._received, rounds=2 * len(done), usage=usage)

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
    """A replica that is killed once, in the middle of its third rows."""

    async def start(self) -> str:
        if self.starts == 0:
            asyncio.get_running_loop().call_later(2.5 * self.seconds, self.die)
        return await super().start()


class Ran:
    """What a pool made of rows 1, 2, 3 and so on."""

    def __init__(self) -> None:
        self.results: dict[int, dict[str, Any]] = {}
        self.meter = Meter()
        self.said: list[str] = []

    @property
    def failed(self) -> dict[int, Any]:
        return {number: result["error"] for number, result in self.results.items() if result["error"] is not None}


def run(replicas: Sequence[Fake], count: int) -> Ran:
    ran = Ran()

    async def go() -> None:
        pool = Pool(replicas, ran.meter, ran.said.append)

        async def keep(row: Row) -> None:
            ran.results[row.number] = await pool.run_row(row)

        try:
            await pool.start()
            await Loop(keep, pool, max_live=pool.max_live).run(Row(number=n, id=n) for n in range(1, count + 1))
        finally:
            await pool.stop()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(go())
    return ran


def test_every_row_is_run_once_and_counted() -> None:
    replicas = [Fake(), Fake()]
    ran = run(replicas, 100)
    assert sorted(ran.results) == list(range(1, 101))
    assert replicas[0].ran + replicas[1].ran == Counter(range(1, 101))
    assert (ran.meter.rounds, ran.meter.usage) == (200, Usage(completion_tokens=1000))
    assert [replica.stopped for replica in replicas] == [True, True]


def test_a_replica_gets_no_more_than_it_has_room_for() -> None:
    replicas = [Fake(room=3), Fake(room=50)]
    run(replicas, 200)
    assert [replica.most for replica in replicas] == [3, 50]


def test_a_slow_replica_holds_up_nobody() -> None:
    slow, fast = Fake(seconds=100), Fake(seconds=1)
    run([slow, fast], 100)
    assert (slow.ran.total(), fast.ran.total()) == (4, 96)


def test_the_rows_of_a_replica_that_died_are_run_again_and_no_others() -> None:
    dying, other = Mortal(), Fake()
    ran = run([dying, other], 40)
    assert (sorted(ran.results), ran.failed) == (list(range(1, 41)), {})
    assert sorted(Counter((dying.ran + other.ran).values()).items()) == [(1, 36), (2, 4)]
    assert dying.starts == 2


def test_a_row_that_kills_every_replica_is_the_only_one_that_fails() -> None:
    replicas = [Fake(room=40, deadly=frozenset({7})), Fake(room=40, deadly=frozenset({7}))]
    ran = run(replicas, 300)
    assert sorted(ran.results) == list(range(1, 301))
    deaths = replicas[0].ran[7] + replicas[1].ran[7]
    assert ran.failed == {
        7: {
            "name": "backend.unavailable",
            "message": f"{deaths} replicas died while they ran this row, the last while it ran no other: killed",
        }
    }
    assert 3 <= deaths <= 6


def test_what_nothing_can_be_run_on_ends_the_batch() -> None:
    with pytest.raises(BackendError, match="no such model"):
        run([Broken(BackendError("no such model")), Broken(BackendError("no such model"))], 5)


def test_one_replica_that_cannot_start_costs_no_row() -> None:
    ran = run([Fake(), Broken(BackendError("no GPU"))], 20)
    assert len(ran.results) == 20
    assert "replica 2 is given up: no GPU" in ran.said


def test_a_replica_that_dies_whenever_it_starts_is_given_up() -> None:
    dying = Broken(ReplicaLost("out of memory"))
    with pytest.raises(BackendError, match="it died 3 times in a row: out of memory"):
        run([dying], 5)
    assert dying.starts == 3


def test_rows_that_are_all_deadly_come_to_an_end() -> None:
    ran = run([Fake(deadly=frozenset(range(30)))], 20)
    assert {error["name"] for error in ran.failed.values()} == {"backend.unavailable"}
    assert len(ran.failed) == 20


def test_what_no_replica_can_do_anything_about_ends_the_batch() -> None:
    class Full(Fake):
        async def collect(self) -> ReplicaReport:
            await super().collect()
            return ReplicaReport(error="the disk is full")

    with pytest.raises(FlowrunError, match="the disk is full"):
        run([Full()], 5)
