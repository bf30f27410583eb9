"""Blocking work runs in daemon threads, a limited number at a time; work that timed out is abandoned.

The pools of the standard library and of anyio join their threads when the process exits, so one function that hangs
would keep the program from ending; and a pool of fixed size stops working once all its threads hang. Here a call that
timed out frees its slot at once, whatever its thread does.
"""

import asyncio
import contextvars
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")

IDLE_SECONDS: Final = 10.0
"""Seconds after which an idle thread ends."""

_Report = Callable[[], None]
_Job = Callable[[], _Report]


class CallLimit:
    """A limit of concurrent calls that works in one event loop after another."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots = asyncio.Semaphore(limit)

    def here(self) -> asyncio.Semaphore:
        """Return the running loop's semaphore: an asyncio semaphore belongs to the first loop in which it waits."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._slots = loop, asyncio.Semaphore(self.limit)
        return self._slots


class DaemonThreads:
    """A pool of daemon threads for one event loop at a time; at most ``limit`` actions run at once."""

    def __init__(self, limit: int, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._slots = CallLimit(limit)
        self._idle_seconds = idle_seconds
        self._idle: deque[_Worker] = deque()

    async def run(self, action: Callable[[], T], *, timeout: float | None) -> T:
        """Run an action that never raises, in a copy of the caller's context.

        Args:
            timeout: seconds, not counting the time in which it waits for a slot; None: no limit.

        Raises:
            TimeoutError: it took longer than ``timeout``; its thread continues in the background.
            RuntimeError: the system starts no more threads.
        """
        loop = asyncio.get_running_loop()
        async with self._slots.here():
            done: asyncio.Future[T] = loop.create_future()
            self._dispatch(_job(action, done, loop))
            await asyncio.wait((done,), timeout=timeout)
        if not done.done():
            raise TimeoutError
        return done.result()

    def _dispatch(self, job: _Job) -> None:
        try:
            worker = self._idle.pop()
        except IndexError:
            worker = _Worker(self._idle, self._idle_seconds)
            worker.jobs.put(job)
            worker.start()
        else:
            worker.jobs.put(job)


class _Worker(threading.Thread):
    """A thread that runs one job after another; it is idle again before it reports a result."""

    def __init__(self, idle: "deque[_Worker]", idle_seconds: float) -> None:
        super().__init__(name="flowrun function", daemon=True)
        self.jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._idle = idle
        self._idle_seconds = idle_seconds

    def run(self) -> None:
        while (job := self._next()) is not None:
            report = job()
            self._idle.append(self)
            report()
            del job, report  # otherwise an idle thread would hold the last result in memory

    def _next(self) -> _Job | None:
        while True:
            try:
                return self.jobs.get(timeout=self._idle_seconds)
            except queue.Empty:
                try:
                    self._idle.remove(self)
                except ValueError:
                    continue  # it was dispatched just now: a job is about to arrive
                return None


def _job(action: Callable[[], T], done: "asyncio.Future[T]", loop: asyncio.AbstractEventLoop) -> _Job:
    context = contextvars.copy_context()

    def work() -> _Report:
        result = context.run(action)

        def report() -> None:
            try:
                loop.call_soon_threadsafe(_resolve, done, result)
            except RuntimeError:
                pass  # the loop is closed, so no task waits any more

        return report

    return work


def _resolve(done: "asyncio.Future[Any]", result: object) -> None:
    if not done.done():
        done.set_result(result)
