"""A process of the tests: ``python -m tests.unit.journal.child VERB PATH``. Each line of its output is an event."""

import asyncio
import os
import resource
import signal
import sys
from itertools import count
from pathlib import Path

from flowrun.core.events import Returned
from flowrun.errors import StoreError
from flowrun.journal import Database, SqliteJournal
from tests.unit.journal.sample_runs import begin, new_run


def report(*values: object) -> None:
    print(*values, flush=True)


async def killed(path: Path) -> None:
    """Write 20 events of a run, then kill this process."""
    journal = SqliteJournal(path)
    await begin(journal, new_run("r"))
    for seq in range(1, 20):
        await journal.append("r", Returned(step=seq), seq=seq, state="ask", status="running")
    os.kill(os.getpid(), signal.SIGKILL)


async def full(path: Path) -> None:
    """Write until the disk is full: here, until the size limit of a file is reached."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    journal = SqliteJournal(path)
    await begin(journal, new_run("r"))
    report("kept", 0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
    try:
        for seq in count(1):
            await journal.append("r", Returned(step=seq, value="x" * 3000), seq=seq, state="ask", status="running")
            report("kept", seq)
    except StoreError as exc:
        report("halted", exc)
    try:
        await begin(journal, new_run("another"))
    except StoreError as exc:
        report("halted", exc)
    await journal.close()


async def hold(path: Path) -> None:
    """Hold a run until stdin ends."""
    journal = SqliteJournal(path)
    await begin(journal, new_run("r"))
    report("holding", os.getpid())
    sys.stdin.read()
    await journal.close()


async def race(path: Path) -> None:
    """Take a run after a line on stdin, and hold it until stdin ends."""
    journal = SqliteJournal(path)
    report("ready")
    sys.stdin.readline()
    report("held" if await journal.take(["r"]) else "taken")
    sys.stdin.read()
    await journal.close()


async def open_once(path: Path) -> None:
    """Open a journal that may not exist yet, after a line on stdin."""
    report("ready")
    sys.stdin.readline()
    Database(path).close()
    report("opened")


async def flood(path: Path) -> None:
    """Write five runs without end."""
    journal = SqliteJournal(path)

    async def write(run: str) -> None:
        await begin(journal, new_run(run))
        for seq in count(1):
            await journal.append(run, Returned(step=seq, value="x" * 500), seq=seq, state="ask", status="running")
            if seq == 100 and run == "run 0":
                report("writing")

    await asyncio.gather(*(write(f"run {number}") for number in range(5)))


VERBS = {"killed": killed, "full": full, "hold": hold, "race": race, "open_once": open_once, "flood": flood}

if __name__ == "__main__":
    asyncio.run(VERBS[sys.argv[1]](Path(sys.argv[2])))
