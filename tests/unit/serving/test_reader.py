"""A reader's connection is used by one thread at a time, and closed whatever reads."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from flowrun.errors import StoreError
from flowrun.journal import History, SqliteJournal
from flowrun.serving.reader import Reader

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


@asynccontextmanager
async def reading(folder: Path, work: Callable[[History], None]) -> AsyncIterator[tuple[Reader, "asyncio.Task[None]"]]:
    """Yield a reader and a request, whose thread has begun with the work."""
    begun = threading.Event()

    def begin(history: History) -> None:
        begun.set()
        work(history)

    async with SqliteJournal(folder / "journal.sqlite"):
        reader = Reader(folder / "journal.sqlite")
        request = asyncio.create_task(reader.read(begin))
        await asyncio.to_thread(begun.wait, 20)
        yield reader, request


def endless(history: History) -> None:
    history._database.value(ENDLESS)


def test_its_end_interrupts_what_reads(tmp_path: Path) -> None:
    async def work() -> None:
        async with reading(tmp_path, endless) as (reader, request):
            reader.close()
            with pytest.raises(StoreError, match="interrupted"):
                await request
            with pytest.raises(StoreError, match="the server ends"):
                await reader.read(endless)
            reader.close()

    asyncio.run(work())
    assert [file.name for file in tmp_path.iterdir()] == ["journal.sqlite"]


def test_the_thread_of_a_request_that_has_gone_has_the_connection_for_itself(tmp_path: Path) -> None:
    go_on = threading.Event()
    read: list[str] = []

    def slow(history: History) -> None:
        go_on.wait(20)
        read.append("slow")

    async def work() -> None:
        async with reading(tmp_path, slow) as (reader, gone):
            gone.cancel()
            await asyncio.wait([gone])
            waiting = [asyncio.create_task(reader.read(lambda history: read.append("next"))) for _ in range(100)]
            await asyncio.wait(waiting, timeout=0.05)  # none of them takes a thread meanwhile
            await asyncio.to_thread(go_on.set)
            await asyncio.gather(*waiting)
            reader.close()

    asyncio.run(work())
    assert read == ["slow", *["next"] * 100]
