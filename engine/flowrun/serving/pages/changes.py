"""Follows a journal for pages: one look at the file serves them all, and only a change is looked into.

SQLite's ``data_version`` says in a microsecond that another connection has written. A process that died writes
nothing, so its runs are looked at now and then, too.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Final

from flowrun.errors import FlowrunError
from flowrun.journal import History
from flowrun.serving.reader import Reader

LOOK_SECONDS: Final = 0.5
"""Seconds between two looks at the journal."""

_LIVENESS_SECONDS: Final = 5.0
"""Seconds after which runs are looked at although nobody has written."""

_PING_SECONDS: Final = 20.0
"""Seconds of silence after which a stream says something, so that a client that has gone is noticed."""


def has_run_ended(history: History, run: str) -> bool:
    """Return whether nothing more happens in a run."""
    return history.run(run).ended is not None


class Changes:
    """Says when a run, or any run, has changed, as long as somebody asks."""

    def __init__(self, reader: Reader, *, stopped: Callable[[], bool], extra: Callable[[str], str]) -> None:
        """Bind the changes to a journal.

        Args:
            stopped: whether the server is about to end.
            extra: what else belongs to the version of a run.
        """
        self._reader = reader
        self._stopped = stopped
        self._extra = extra
        self._followers = 0
        self._ticker: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()

    def version_of(self, run: str | None, version: str) -> str:
        """Return a short name of the version of a run in the journal; None: of all runs."""
        extra = "" if run is None else self._extra(run)
        return hashlib.blake2b(f"{version} {extra}".encode(), digest_size=8).hexdigest()

    async def follow(self, run: str | None, seen: str) -> AsyncIterator[str]:
        """Yield each new version of a run (None: of all runs) until it has ended, and an empty text now and then.

        Args:
            seen: the version that the page shows.
        """
        self._followers += 1
        if self._ticker is None or self._ticker.done():
            self._ticker = asyncio.create_task(self._tick())
        try:
            while not self._stopped():
                looked = self._looked
                has_ended = run is not None and await self._reader.read(lambda history: has_run_ended(history, run))
                stored = await self._reader.read(lambda history: history.version_of(run))
                version = self.version_of(run, stored)
                if version != seen:
                    seen = version
                    yield version
                if has_ended:
                    return
                try:
                    await asyncio.wait_for(looked.wait(), _PING_SECONDS)
                except TimeoutError:
                    yield ""
        finally:
            self._followers -= 1

    async def _tick(self) -> None:
        """Look at the journal, and wake the followers when it was written or some time has passed."""
        loop = asyncio.get_running_loop()
        known, deadline = -1, loop.time()
        try:
            while self._followers:
                version = await self._reader.read(History.data_version)
                if version != known or loop.time() >= deadline or self._stopped():
                    known, deadline = version, loop.time() + _LIVENESS_SECONDS
                    self._wake()
                await asyncio.sleep(LOOK_SECONDS)
        except FlowrunError:
            pass  # the followers look themselves, and meet the same
        finally:
            self._wake()

    def _wake(self) -> None:
        looked, self._looked = self._looked, asyncio.Event()
        looked.set()
