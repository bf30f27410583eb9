"""Blocking work runs in daemon threads, a bounded number at a time; work that nobody waits for any more is let go.

The pools of the standard library and of anyio join their threads when the process exits, so one function that hangs
would keep the whole program from ending; and a pool of fixed size is dead once enough of its threads hang. Here a
thread whose time is up gives its slot back at once, whatever it does.
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
"""A thread that has had nothing to do for so long ends."""

_Report = Callable[[], None]
_Job = Callable[[], _Report]


class Slots:
    """So many at once, in one event loop after another."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots = asyncio.Semaphore(limit)

    def here(self) -> asyncio.Semaphore:
        """Give the slots of the running event loop: asyncio's semaphores belong to the first one that they wait in."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._slots = loop, asyncio.Semaphore(self._limit)
        return self._slots


class DaemonThreads:
    """Runs blocking actions for one event loop at a time, at most ``limit`` of them at once."""

    def __init__(self, limit: int, *, idle_seconds: float = IDLE_SECONDS) -> None:
        self._slots = Slots(limit)
        self._idle_seconds = idle_seconds
        self._idle: deque[_Worker] = deque()

    async def run(self, action: Callable[[], T], *, timeout: float | None) -> T:
        """Run an action that never raises, in a copy of the caller's context.

        Waiting for a slot takes none of its time.

        Raises:
            TimeoutError: it took longer than ``timeout`` seconds; its thread goes on alone.
            RuntimeError: the system gives no more threads.
        """
        loop = asyncio.get_running_loop()
        async with self._slots.here():
            done: asyncio.Future[T] = loop.create_future()
            self._hand_out(_job(action, done, loop))
            await asyncio.wait((done,), timeout=timeout)
        if not done.done():
            raise TimeoutError
        return done.result()

    def _hand_out(self, job: _Job) -> None:
        try:
            worker = self._idle.pop()
        except IndexError:
            worker = _Worker(self._idle, self._idle_seconds)
            worker.jobs.put(job)
            worker.start()
        else:
            worker.jobs.put(job)


class _Worker(threading.Thread):
    """A thread that does one job after another, and says when it is idle before it reports."""

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
            del job, report  # else an idle thread would keep the last result alive

    def _next(self) -> _Job | None:
        while True:
            try:
                return self.jobs.get(timeout=self._idle_seconds)
            except queue.Empty:
                try:
                    self._idle.remove(self)
                except ValueError:
                    continue  # it was taken from the idle ones just now: a job is on its way
                return None


def _job(action: Callable[[], T], done: "asyncio.Future[T]", loop: asyncio.AbstractEventLoop) -> _Job:
    context = contextvars.copy_context()

    def work() -> _Report:
        result = context.run(action)

        def report() -> None:
            try:
                loop.call_soon_threadsafe(_settle, done, result)
            except RuntimeError:
                pass  # the loop has ended, and with it everybody who waited

        return report

    return work


def _settle(done: "asyncio.Future[Any]", result: object) -> None:
    if not done.done():
        done.set_result(result)
