"""A reader's connection is used by one thread at a time, and closed after the last of them."""

import asyncio
import threading
from pathlib import Path

import pytest

from flowrun.errors import StoreError
from flowrun.journal import History, SqliteJournal
from flowrun.serving.reader import Reader


def test_it_is_closed_after_a_thread_whose_request_has_gone(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    begun, go_on = threading.Event(), threading.Event()
    read: list[object] = []

    def slow(history: History) -> None:
        begun.set()
        go_on.wait(20)
        read.append(list(history.runs()))

    async def work() -> None:
        async with SqliteJournal(path):
            reader = Reader(path)
            assert await reader.read(lambda history: list(history.runs())) == []
            request = asyncio.create_task(reader.read(slow))
            await asyncio.to_thread(begun.wait, 20)
            request.cancel()
            await asyncio.wait([request])
            closing = asyncio.create_task(asyncio.to_thread(reader.close))
            await asyncio.sleep(0.05)
            assert not closing.done()
            go_on.set()
            await closing
            assert read == [[]]
            with pytest.raises(StoreError, match="the server ends"):
                await reader.read(slow)
            reader.close()

    asyncio.run(work())
    assert [file.name for file in tmp_path.iterdir()] == ["journal.sqlite"]
