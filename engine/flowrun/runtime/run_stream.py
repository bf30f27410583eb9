"""A run whose events are iterated while it is in progress."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from flowrun.core.events import Notice, Written
from flowrun.core.ports import Observer
from flowrun.runtime.run_events import RunEvent, RunEvents
from flowrun.runtime.run_result import RunResult


class RunStream:
    """A run in progress: ``async with`` starts it, iterating yields its events, leaving the block cancels it."""

    def __init__(self, run_id: str, start: Callable[[Observer], Coroutine[Any, Any, RunResult]]) -> None:
        """Bind the stream to a run that has not started.

        Args:
            start: starts the run with an observer, and returns its result.
        """
        self.run_id = run_id
        self._start = start
        self._task: asyncio.Task[RunResult] | None = None
        self._queue: asyncio.Queue[RunEvent | None] = asyncio.Queue()
        self._events = RunEvents()

    @property
    def result(self) -> RunResult:
        """Return the result of the run.

        Raises:
            RuntimeError: the run is still in progress; iterate its events to the end first.
        """
        if self._task is None or not self._task.done():
            raise RuntimeError(f"run {self.run_id} is in progress: iterate its events to the end first")
        if self._task.cancelled():
            raise RuntimeError(f"run {self.run_id} was cancelled when its block was left")
        return self._task.result()

    def notify(self, notice: Notice) -> None:
        """Queue the events of a notice. See ``ports.Observer.notify``."""
        for event in self._events.of(notice):
            self._queue.put_nowait(event)

    def notify_text(self, written: Written) -> None:
        """Queue a piece of what a model writes. See ``ports.TextObserver.notify_text``."""
        self._queue.put_nowait(self._events.of_text(written))

    async def __aenter__(self) -> Self:
        if self._task is not None:
            raise RuntimeError(f"run {self.run_id} was started already")
        self._task = asyncio.create_task(self._start(self))
        self._task.add_done_callback(lambda _: self._queue.put_nowait(None))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        await cancel_and_wait(self._task)

    async def __aiter__(self) -> AsyncIterator[RunEvent]:
        """Yield the events of the run and its children, until it ends or only waits for answers.

        Raises:
            BackendError: an engine cannot start.
        """
        if self._task is None:
            raise RuntimeError("use the stream as `async with session.stream(...) as run`")
        while (event := await self._queue.get()) is not None:
            yield event
        self._queue.put_nowait(None)  # for another iteration
        await asyncio.wait((self._task,))
        self._task.result()


async def cancel_and_wait(task: "asyncio.Task[Any]") -> None:
    """Cancel a task, and wait for its end. Its error, if any, was raised elsewhere."""
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.exception()
