"""Reads a journal beside the loop, by a connection of its own, which one thread uses at a time."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from flowrun.errors import StoreError
from flowrun.journal import History, open_history

T = TypeVar("T")

_CLOSE_SECONDS: Final = 1.0
_TRIES: Final = 20


class Reader:
    """A connection to a journal for threads; it is opened when it is first used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._turn = asyncio.Lock()  # who waits for it keeps no thread waiting
        self._using = threading.Lock()  # against ``close``
        self._history: History | None = None
        self._closed = False

    async def read(self, work: Callable[[History], T]) -> T:
        """Return what a function makes of the journal, in a thread.

        Raises:
            StoreError: the journal cannot be read, or the reader is closed.
        """
        await self._turn.acquire()
        reading = asyncio.ensure_future(asyncio.to_thread(self._read, work))
        reading.add_done_callback(self._end_turn)
        return await asyncio.shield(reading)  # the thread goes on where this task is cancelled

    def _end_turn(self, reading: "asyncio.Future[Any]") -> None:
        self._turn.release()
        if not reading.cancelled():
            reading.exception()  # nobody awaits it where its request has gone

    def _read(self, work: Callable[[History], T]) -> T:
        with self._using:
            if self._closed:
                raise StoreError("the journal is not read any more: the server ends")
            if self._history is None:
                self._history = open_history(self._path)
            return work(self._history)

    def close(self) -> None:
        """Interrupt what reads now, and close the connection. What does not end within a second is left to itself.

        May be called twice.
        """
        self._closed = True
        for _ in range(_TRIES):  # a thread may be between two statements
            if (history := self._history) is not None:
                history.interrupt()
            if self._using.acquire(timeout=_CLOSE_SECONDS / _TRIES):
                break
        else:
            return
        history, self._history = self._history, None
        if history is not None:
            history.close()
        self._using.release()
