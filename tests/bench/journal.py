"""The journal beside a bare sqlite3 loop that writes the same bytes with as many commits; and bytes an event."""

import asyncio
import sqlite3
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import msgspec

from flowrun.core.events import Event, Replied, Returned, Started
from flowrun.core.messages import Reply, ToolCall
from flowrun.journal import SqliteJournal, Synchronous
from flowrun.journal.appender import Entry

_PASSES = 7
_CASES = (("1 run", 1, 200), ("1,000 runs", 1000, 20))
_HISTORIES = (10, 400)
_RUNS = 200
_MEASURED = 10
_CALL = (ToolCall(id="call00001", name="get_current_weather", arguments='{"city": "Dallas", "state": "TX"}'),)
_STORY: tuple[Event, ...] = (
    Replied(step=1, reply=Reply(tool_calls=_CALL, text="x" * 200)),
    Returned(step=2, value={"text": "y" * 300}),
)
"""The repeated contents: a reply of about 360 bytes and a tool's value of about 350."""


def main() -> None:
    """Print both tables."""
    print(
        f"\nThe journal, microseconds an event (medians of {_PASSES} interleaved passes; processor time in brackets)\n"
    )
    print(f"{'':24} {'bare sqlite3':>16} {'journal':>16}   ratio   aim   events/s   commits")
    for label, runs, length in _CASES:
        for synchronous in ("full", "normal"):
            _print_case(f"{label}, {synchronous}", runs, length, "full" if synchronous == "full" else "normal")
    print(f"\nBytes written an event, -wal and checkpoints, {_RUNS} live runs, by the length of their histories\n")
    for history, size in zip(_HISTORIES, asyncio.run(_bytes_an_event()), strict=True):
        print(f"{history:6} events before  {size:8.0f}")


def _print_case(label: str, runs: int, length: int, synchronous: Synchronous) -> None:
    bare: list[tuple[float, float]] = []
    ours: list[tuple[float, float]] = []
    for _ in range(_PASSES):
        with TemporaryDirectory() as folder:
            wall, cpu, commits = asyncio.run(_journal(Path(folder) / "journal.db", runs, length, synchronous))
            ours.append((wall, cpu))
            bare.append(_bare(Path(folder) / "bare.db", runs, length, synchronous, commits))
    (floor, floor_cpu), (wall, cpu) = _medians(bare), _medians(ours)
    ratio = median(mine[0] / its[0] for mine, its in zip(ours, bare, strict=True))
    aim = "  3.0" if runs > 1 else "     "
    figures = f"{floor:8.1f} ({floor_cpu:5.1f}) {wall:8.1f} ({cpu:5.1f})   {ratio:5.2f} {aim}   {1e6 / wall:8.0f}"
    print(f"{label:24} {figures}   {commits:7}")


def _medians(figures: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return median(wall for wall, _ in figures), median(cpu for _, cpu in figures)


async def _journal(path: Path, runs: int, length: int, synchronous: Synchronous) -> tuple[float, float, int]:
    """Return the microseconds per event, of time and of processor time, and the number of commits."""
    commits = 0
    async with SqliteJournal(path, synchronous=synchronous) as journal:
        write = journal._thread._write

        def counted(entries: Sequence[Entry]) -> object:
            nonlocal commits
            commits += 1
            return write(entries)

        journal._thread._write = counted  # type: ignore[assignment]
        begun, processor = time.perf_counter(), time.process_time()
        await asyncio.gather(*(_drive(journal, f"{number:012x}", 0, length) for number in range(runs)))
        wall, cpu = time.perf_counter() - begun, time.process_time() - processor
    return wall / (runs * length) * 1e6, cpu / (runs * length) * 1e6, commits


async def _drive(journal: SqliteJournal, run: str, first: int, end: int) -> None:
    if first == 0:
        journal.register(run, flow="weather")
    for seq in range(first, end):
        event = _STORY[seq % 2] if seq else Started(run=run, inputs={"question": "q" * 50})
        await journal.append(run, event, seq=seq, state="look_up", status="running")


def _bare(path: Path, runs: int, length: int, synchronous: Synchronous, commits: int) -> tuple[float, float]:
    """Insert rows of the same bytes, in the same order, in ``commits`` transactions of one size."""
    bodies = [msgspec.json.encode(event).decode() for event in _STORY]
    names = [f"{number:012x}" for number in range(runs)]
    rows = ((name, seq, 1.7e9, "look_up", bodies[seq % 2]) for seq in range(length) for name in names)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute(
        "CREATE TABLE events (run TEXT, seq INT, at REAL, state TEXT, body TEXT, PRIMARY KEY (run, seq))"
    )
    size = -(-runs * length // commits)
    begun, processor = time.perf_counter(), time.process_time()
    while part := list(islice(rows, size)):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", part)
        connection.execute("COMMIT")
    wall, cpu = time.perf_counter() - begun, time.process_time() - processor
    connection.close()
    return wall / (runs * length) * 1e6, cpu / (runs * length) * 1e6


async def _bytes_an_event() -> list[float]:
    """Return the bytes per event at each of the measured lengths of the history."""
    sizes: list[float] = []
    with TemporaryDirectory() as folder:
        async with SqliteJournal(Path(folder) / "journal.db", synchronous="normal") as journal:
            seq = 0
            for history in _HISTORIES:
                await asyncio.gather(*(_drive(journal, f"{number:012x}", seq, history) for number in range(_RUNS)))
                journal._database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
                before = _written()
                seq = history + _MEASURED
                await asyncio.gather(*(_drive(journal, f"{number:012x}", history, seq) for number in range(_RUNS)))
                journal._database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
                sizes.append((_written() - before) / (_RUNS * _MEASURED))
    return sizes


def _written() -> int:
    """Return the bytes that this process has written to the file system so far."""
    return int(Path("/proc/self/io").read_text().partition("wchar: ")[2].split()[0])


if __name__ == "__main__":
    main()
