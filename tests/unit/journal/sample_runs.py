"""Helpers of the journal's tests: runs of a few events, a clock that can be set, a count of commits."""

from pathlib import Path

from flowrun.core.events import Event, Recorded, Returned, Started
from flowrun.journal import Database, History, NewRun, SqliteJournal
from flowrun.journal.liveness import Process, this_process

ELSEWHERE = Process(host="other", pid=7, pid_space="another machine", started=1)
"""A process of another machine: it cannot be looked up here, so only its heartbeat counts."""

NEVER = 3600.0
"""Seconds between two ticks: no test runs that long."""


class Clock:
    """A clock that returns the time which a test sets."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def started(run: str) -> Started:
    return Started(run=run, inputs={"question": "why?"})


def new_run(run: str, *, flow: str = "weather", parent: str | None = None, batch: str | None = None) -> NewRun:
    return NewRun(id=run, flow=flow, spec=f"digest of {flow}", parent=parent, batch=batch)


async def begin(journal: SqliteJournal, new: NewRun, *, status: str = "running") -> None:
    """Write a run's first event."""
    journal.register(new.id, flow=new.flow, parent=new.parent, spec=new.spec, batch=new.batch)
    await journal.append(new.id, started(new.id), seq=0, state="ask", status=status)


async def append(journal: SqliteJournal, run: str, more: list[Event], *, first: int = 1) -> None:
    """Write more events of a running run."""
    for seq, event in enumerate(more, first):
        await journal.append(run, event, seq=seq, state="ask", status="running")


async def end(journal: SqliteJournal, run: str, *, seq: int = 1, status: str = "succeeded") -> None:
    """Write the last event of a run."""
    await journal.append(run, Returned(step=1), seq=seq, state="done", status=status)


def recorded(path: Path, run: str) -> list[Recorded]:
    """Return a run's events as another process reads them."""
    database = Database(path, create=False)
    try:
        return History(database, now=Clock()).events(run)
    finally:
        database.close()


def events(path: Path, run: str) -> list[Event]:
    return [row.event for row in recorded(path, run)]


def count(path: Path, table: str) -> int:
    """Return the number of a table's rows."""
    database = Database(path, create=False)
    try:
        rows: int = database.value(f"SELECT count(*) FROM {table}")
        return rows
    finally:
        database.close()


def commits(path: Path) -> int:
    """Return the number of transactions in the -wal: frames whose header has the file's size after a commit.

    Source: https://www.sqlite.org/fileformat2.html.
    """
    wal = path.with_name(path.name + "-wal").read_bytes()
    page = int.from_bytes(wal[8:12])
    headers = (wal[start : start + 24] for start in range(32, len(wal), 24 + page))
    return sum(1 for header in headers if int.from_bytes(header[4:8]))


def on_disk(path: Path) -> bytes:
    """Return all bytes that the journal has written."""
    return b"".join(file.read_bytes() for file in sorted(path.parent.glob(path.name + "*")))


HERE = this_process()
