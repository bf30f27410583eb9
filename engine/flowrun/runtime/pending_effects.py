"""Effects that are performed at the same time."""

import asyncio
from collections.abc import Awaitable, Callable

from flowrun.core.events import Effect, Event


class PendingEffects:
    """Effects that are performed at the same time, each in a task of its own."""

    __slots__ = ("_landed", "_perform", "_tasks", "pending")

    def __init__(self, perform: Callable[[Effect], Awaitable[Event | None]]) -> None:
        self.pending = 0
        self._perform = perform
        self._tasks: set[asyncio.Task[None]] = set()
        self._landed: asyncio.Queue[Event | BaseException | None] = asyncio.Queue()

    def start(self, effect: Effect) -> None:
        """Begin with an effect."""
        task = asyncio.create_task(self._fly(effect))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.pending += 1

    async def first_completed(self) -> Event | None:
        """Give the first event that is there; None if all that is left waits for people."""
        while self.pending:
            landed = await self._landed.get()
            self.pending -= 1
            if isinstance(landed, BaseException):
                raise landed
            if landed is not None:
                return landed
        return None

    def cancel(self) -> None:
        """Give up what has not landed."""
        for task in self._tasks:
            task.cancel()

    async def _fly(self, effect: Effect) -> None:
        try:
            self._landed.put_nowait(await self._perform(effect))
        except (Exception, asyncio.CancelledError) as exc:  # kept for the run's own task, which raises it
            self._landed.put_nowait(exc)
