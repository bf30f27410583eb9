"""Effects that are performed at the same time."""

import asyncio
from collections.abc import Awaitable, Callable

from flowrun.core.events import Answered, Effect, Event


class PendingEffects:
    """Effects that are performed at the same time, each in a task of its own. ``count`` are not completed yet."""

    __slots__ = ("_completed", "_perform", "_tasks", "count")

    def __init__(self, perform: Callable[[Effect], Awaitable[Event | None]]) -> None:
        self.count = 0
        self._perform = perform
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._completed: asyncio.Queue[Event | BaseException | None] = asyncio.Queue()

    def start(self, effect: Effect) -> None:
        """Start performing an effect."""
        index = getattr(effect, "index", 0)
        self._tasks[index] = asyncio.create_task(self._complete(effect, index))
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

    def complete(self, event: Answered) -> None:
        """Complete a question with an answer from outside, whether somebody is being asked or nobody could be."""
        task = self._tasks.pop(event.index, None)
        if task is None:
            self.count += 1
        else:
            task.cancel()
        self._completed.put_nowait(event)

    def cancel(self) -> None:
        """Cancel the effects that are not completed."""
        for task in self._tasks.values():
            task.cancel()

    async def ended(self) -> None:
        """Wait until the effects that were cancelled have ended."""
        if self._tasks:
            await asyncio.wait(set(self._tasks.values()))

    async def _complete(self, effect: Effect, index: int) -> None:
        completed: Event | BaseException | None
        try:
            completed = await self._perform(effect)
        except (Exception, asyncio.CancelledError) as exc:  # raised in the run's own task, by ``first_completed``
            completed = exc
        if self._tasks.get(index) is asyncio.current_task():  # else ``complete`` was faster
            del self._tasks[index]
            self._completed.put_nowait(completed)
