"""Effects that are performed at the same time."""

import asyncio
from collections.abc import Awaitable, Callable

from flowrun.core.events import Effect, Event


class PendingEffects:
    """Effects that are performed at the same time, each in a task of its own. ``count`` are not completed yet."""

    __slots__ = ("_completed", "_perform", "_tasks", "count")

    def __init__(self, perform: Callable[[Effect], Awaitable[Event | None]]) -> None:
        self.count = 0
        self._perform = perform
        self._tasks: set[asyncio.Task[None]] = set()
        self._completed: asyncio.Queue[Event | BaseException | None] = asyncio.Queue()

    def start(self, effect: Effect) -> None:
        """Start performing an effect."""
        task = asyncio.create_task(self._complete(effect))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.count += 1

    async def first_completed(self) -> Event | None:
        """Wait for the next event, and return it; None if all effects that are left wait for human input."""
        while self.count:
            completed = await self._completed.get()
            self.count -= 1
            if isinstance(completed, BaseException):
                raise completed
            if completed is not None:
                return completed
        return None

    def cancel(self) -> None:
        """Cancel the effects that are not completed."""
        for task in self._tasks:
            task.cancel()

    async def _complete(self, effect: Effect) -> None:
        try:
            self._completed.put_nowait(await self._perform(effect))
        except (Exception, asyncio.CancelledError) as exc:  # raised in the run's own task, by ``first_completed``
            self._completed.put_nowait(exc)
