"""Reads a journal beside the loop, by a connection of its own, which one thread uses at a time."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from flowrun.errors import StoreError
from flowrun.journal import History, open_history

T = TypeVar("T")


class Reader:
    """A connection to a journal for threads; it is opened when it is first used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = asyncio.Lock()  # who waits for it keeps no thread waiting
        self._using = threading.Lock()  # a thread goes on when the task that awaits it is cancelled
        self._history: History | None = None
        self._closed = False

    async def read(self, work: Callable[[History], T]) -> T:
        """Return what a function makes of the journal, in a thread.

        Raises:
            StoreError: the journal cannot be read, or the reader is closed.
        """
        async with self._turn:
            return await asyncio.to_thread(self._read, work)

    def _read(self, work: Callable[[History], T]) -> T:
        with self._using:
            if self._closed:
                raise StoreError(f"the journal {self._path} is not read any more: the server ends")
            if self._history is None:
                self._history = open_history(self._path)
            return work(self._history)

    def close(self) -> None:
        """Close the connection, after the thread that uses it now. May be called twice."""
        with self._using:
            self._closed = True
            if self._history is not None:
                self._history.close()
