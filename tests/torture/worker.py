"""A process that forks lives; each life drives the runs of one journal until they end or it is killed.

``python -m tests.torture.worker`` reads orders, one per line. It forks a life for each, since a fork needs no new
start of Python, kills it at the time in the order, and writes a line with its end.
"""

import asyncio
import os
import random
import resource
import select
import signal
import sys
import traceback
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from flowrun.core.events import CallFunction
from flowrun.core.graph import Graph
from flowrun.errors import StoreError
from flowrun.journal import ENDED, Database, History, LeaseLost, SqliteJournal
from flowrun.runtime.runner import AssumeDone, CallAgain, Runner, RunResult
from tests.torture.world import RUNS, Fuse, Ledger, World, graph

CHUNK: Final = 25
"""The number of runs that are taken at once, so that two processes get some each."""

FINISHED: Final = 0
HALTED: Final = 3
"""The exit status of a life whose journal failed."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The task of a life, and its disturbances.

    Attributes:
        kill_after: the seconds after which it is killed.
        die_at: the point of its work, counted from 1, at which it kills itself.
        more_bytes: the bytes by which a file may become larger than the largest now.
        more_pages: the pages by which the journal may grow.
        shrug: the share of in-doubt calls that it leaves in doubt.
        gate: a pipe; the life starts when it is opened and closed.
    """

    folder: str
    life: int
    seed: int
    all_idempotent: bool = False
    kill_after: float | None = None
    die_at: int | None = None
    more_bytes: int | None = None
    more_pages: int | None = None
    shrug: float = 0.0
    gate: str | None = None


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The end of a life: its exit status, negative for a signal, and the distinct errors that ended its runs."""

    status: int
    errors: tuple[str, ...] = ()


class MinedJournal(SqliteJournal):
    """A journal that burns a fuse around each append, and around each commit."""

    def __init__(self, path: Path, *, fuse: Fuse, more_pages: int | None) -> None:
        super().__init__(path)
        self._fuse = fuse
        write = self._thread._write
        if more_pages is not None:
            pages = self._database.value("PRAGMA page_count")
            self._database.rows(f"PRAGMA max_page_count = {pages + more_pages}")

        def mined(entries: Sequence[Any]) -> Any:
            fuse.burn()
            lost = write(entries)
            fuse.burn()
            return lost

        self._thread._write = mined

    async def append(self, run: str, *event: Any, **more: Any) -> None:
        """Append an event; the process may die before and after."""
        self._fuse.burn()
        await super().append(run, *event, **more)
        self._fuse.burn()


class Life:
    """Drives all runs that it can take."""

    def __init__(self, order: Order) -> None:
        self._chance = random.Random(order.seed)
        self._order = order
        self._ledger = Ledger(Path(order.folder) / "ledger", life=order.life)
        self.errors: set[str] = set()

    async def live(self) -> int:
        """Start new runs, resume the others, and return an exit status."""
        order = self._order
        fuse = Fuse(order.die_at)
        flow = graph(all_idempotent=order.all_idempotent)
        path = Path(order.folder) / "journal.db"
        async with MinedJournal(path, fuse=fuse, more_pages=order.more_pages) as journal:
            if order.gate is not None:
                await asyncio.to_thread(Path(order.gate).read_bytes)
            runner = World(self._ledger, fuse=fuse, pauses=self._chance).runner(journal, resolve=self._resolve)
            driven: list[asyncio.Task[None]] = []
            for chunk in self._chunks():
                with self._collected_errors():
                    driven += await self._drive(runner, flow, journal, path, chunk)
            await asyncio.gather(*driven)
        return HALTED if self.errors else FINISHED

    @contextmanager
    def _collected_errors(self) -> Iterator[None]:
        try:
            yield
        except LeaseLost:
            pass  # the other process was quicker
        except StoreError as exc:
            self.errors.add(str(exc))

    def _chunks(self) -> list[list[str]]:
        runs = list(RUNS)
        self._chance.shuffle(runs)
        return [runs[start : start + CHUNK] for start in range(0, len(runs), CHUNK)]

    async def _drive(
        self, runner: Runner, flow: Graph, journal: SqliteJournal, path: Path, runs: Sequence[str]
    ) -> list[asyncio.Task[None]]:
        """Start tasks for the runs that this process can take."""
        statuses = {row.id: row.status for row in _rows(path)}
        open_ones = [run for run in runs if run in statuses and statuses[run] not in ENDED]
        others = {held.run for held in await journal.take(open_ones)}
        taken = [runner.resume(flow, run) for run in open_ones if run not in others]
        new = [runner.run(flow, {"n": RUNS[run]}, run_id=run) for run in runs if run not in statuses]
        return [asyncio.create_task(self._guarded(one)) for one in (*taken, *new)]

    async def _guarded(self, run: Coroutine[Any, Any, RunResult]) -> None:
        with self._collected_errors():
            await run

    def _resolve(self, call: CallFunction) -> AssumeDone | CallAgain | None:
        return None if self._chance.random() < self._order.shrug else self._ledger.resolve(call)


def _rows(path: Path) -> list[Any]:
    database = Database(path)
    try:
        return list(History(database, now=lambda: 0.0).runs())
    finally:
        database.close()


def main() -> None:
    """Execute orders until stdin ends."""
    for all_idempotent in (False, True):
        graph(all_idempotent=all_idempotent)  # compiled once, not in each life
    for line in sys.stdin.buffer:
        print(msgspec.json.encode(_fork_life(msgspec.json.decode(line, type=Order))).decode(), flush=True)


def _fork_life(order: Order) -> End:
    """Fork a life, kill it at its time, and return its end."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _live(order, writing)
    os.close(writing)
    if order.kill_after is not None:
        handle = os.pidfd_open(pid)
        if not select.select([handle], [], [], order.kill_after)[0]:
            os.kill(pid, signal.SIGKILL)
        os.close(handle)
    with open(reading, "rb") as errors:
        report = errors.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return End(status=status, errors=tuple(msgspec.json.decode(report)) if report else ())


def _live(order: Order, writing: int) -> None:
    """Execute a life in the forked process; never returns."""
    status = 1
    try:
        if order.more_bytes is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            size = max(file.stat().st_size for file in Path(order.folder).iterdir()) + order.more_bytes
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        life = Life(order)
        status = asyncio.run(life.live())
        os.write(writing, msgspec.json.encode(sorted(life.errors)))
    except BaseException:  # the exit status reports it, too
        traceback.print_exc()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
