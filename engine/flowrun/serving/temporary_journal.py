"""The journal of a server whose runs need not outlive it: a file that goes with it, and forgets runs that have ended.

With it a run can wait, be answered and be looked at in the same way as a durable one.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from flowrun.errors import StoreError
from flowrun.journal import Database, prune

_KEPT_SECONDS: Final = 900.0
"""How long a run is kept after its end."""

_PRUNE_SECONDS: Final = 60.0


@asynccontextmanager
async def temporary_journal() -> AsyncIterator[Path]:
    """Return the path of a journal that is deleted at the end of the block."""
    with TemporaryDirectory(prefix="flowrun-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "journal.sqlite"
        pruning = asyncio.create_task(_prune_for_ever(path))
        try:
            yield path
        finally:
            pruning.cancel()
            await asyncio.wait({pruning})


async def _prune_for_ever(path: Path) -> None:
    while True:
        await asyncio.sleep(_PRUNE_SECONDS)
        with suppress(StoreError):  # the next time it deletes more
            await asyncio.to_thread(_prune, path)


def _prune(path: Path) -> None:
    with closing(Database(path, create=False)) as database:
        prune(database, older_than=_KEPT_SECONDS, now=time.time())
