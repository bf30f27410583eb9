"""Runs rows, each at its own pace: one task a row, as many live as keep the models busy, no round waits for another."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from flowrun.batch.rows import Row


class Capacity(Protocol):
    """Says when another row may be begun. A ``Meter`` is one, and a ``Pool``."""

    on_room: Callable[[], None]
    """Called when there may be room again."""

    @property
    def has_room(self) -> bool:
        """Tell whether another row may be begun."""

    @property
    def max_live(self) -> int:
        """Give how many rows may be live at once."""


class Loop:
    """A batch under way. ``live`` is the number of runs that have begun and not ended."""

    def __init__(self, run_row: Callable[[Row], Awaitable[None]], room: Capacity, *, max_live: int) -> None:
        """Keep what is needed. ``run_row`` runs a row and keeps its result; what it raises ends the batch."""
        self._run_row = run_row
        self._room = room
        self._max_live = max_live
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._failure: BaseException | None = None
        self._stopping = False

    @property
    def live(self) -> int:
        """Give how many runs are live."""
        return len(self._tasks)

    def stop(self) -> None:
        """Begin no more rows, and give up those that are live."""
        self._stopping = True
        self._wake.set()

    async def run(self, rows: Iterable[Row]) -> None:
        """Run every row. A row is begun while there is room and fewer than ``max_live`` are live.

        Once all that are left may be live they begin at once: a row that begins last would have the models to itself.

        Raises:
            FlowrunError: what ``run_row`` raised; the rows that were live are given up.
        """
        self._room.on_room = self._wake.set
        waiting = iter(rows)
        ahead: deque[Row] = deque()
        more = True
        try:
            while (more or ahead or self._tasks) and not self._stopping:
                while more and len(self._tasks) + len(ahead) < self._max_live:
                    row = next(waiting, None)
                    more = row is not None
                    if row is not None:
                        ahead.append(row)
                while ahead and self._may_begin(last=not more) and not self._stopping:
                    self._begin(ahead.popleft())
                    await asyncio.sleep(0)  # its first request counts before another row is begun
                if self._tasks and not self._stopping:
                    self._wake.clear()
                    await self._wake.wait()
        finally:
            await self._give_up()
        if self._failure is not None:
            raise self._failure

    def _may_begin(self, *, last: bool) -> bool:
        return len(self._tasks) < self._max_live and (last or self._room.has_room)

    def _begin(self, row: Row) -> None:
        task = asyncio.get_running_loop().create_task(self._guarded(row))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def _guarded(self, row: Row) -> None:
        try:
            await self._run_row(row)
        except Exception as exc:
            self._failure = self._failure or exc
            self.stop()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._wake.set()

    async def _give_up(self) -> None:
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
