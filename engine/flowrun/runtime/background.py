"""One event loop in a background thread, so that blocking callers can run flows, also where another loop runs."""

import asyncio
import atexit
import contextvars
import importlib
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")


class BackgroundLoop:
    """An event loop in a daemon thread, started at the first use. After a fork the child starts its own."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a finalizer may call while its thread holds it
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._last_worker: ThreadPoolExecutor | None = None
        self._pid = 0

    @property
    def is_current(self) -> bool:
        """Return whether the caller is in the loop's thread, which must not block."""
        return threading.current_thread() is self._thread

    @property
    def is_running(self) -> bool:
        """Return whether the loop was started in this process."""
        return self._loop is not None and self._pid == os.getpid()

    def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in the loop, and block until it ends. Ctrl-C cancels it, waits for its end, and is raised.

        Args:
            work: makes the coroutine; called in the loop's thread, with the context variables of the caller.

        Raises:
            RuntimeError: the caller is in the loop's thread.
        """
        if self.is_current:
            raise RuntimeError("a blocking call in the event loop of flowrun would never end")
        call: _Call[T] = _Call(work)
        loop = self._running_loop()
        try:  # around the first line too: the coroutine may be under way before that returns
            loop.call_soon_threadsafe(call.begin, context=contextvars.copy_context())
            call.ended.wait()
        except BaseException:  # such as KeyboardInterrupt
            loop.call_soon_threadsafe(call.cancel)
            call.ended.wait()
            raise
        return call.result()

    def call_at_exit(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run a coroutine in the loop while the process exits, when no thread can be started (Python 3.12).

        What the coroutine hands to ``asyncio.to_thread`` runs in a thread that is there already.
        """

        async def last() -> T:
            if self._last_worker is not None:
                asyncio.get_running_loop().set_default_executor(self._last_worker)
            return await work()

        return self.call(last)

    def begin(self, work: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run a coroutine in the loop, and do not wait for it."""
        self._running_loop().call_soon_threadsafe(_Call(work).begin)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._pid = os.getpid()
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=_run_forever, args=(self._loop,), name="flowrun loop", daemon=True
                )
                self._thread.start()
                self._last_worker = ThreadPoolExecutor(1, thread_name_prefix="flowrun exit")
                self._last_worker.submit(int).result()  # which starts its thread
            return self._loop


def _run_forever(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop for ever. ``SystemExit`` and ``KeyboardInterrupt`` of a task leave the loop, and reach its caller."""
    while True:
        with suppress(SystemExit, KeyboardInterrupt):
            loop.run_forever()


class _Call(Generic[T]):
    """A coroutine that another thread waits for."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self.ended = threading.Event()
        self._work = work
        self._task: asyncio.Task[T] | None = None

    def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._work())
        self._task.add_done_callback(lambda _: self.ended.set())

    def cancel(self) -> None:
        if self._task is None:  # it never began, and never will: the loop keeps the order of what it is given
            self.ended.set()
        else:
            self._task.cancel()

    def result(self) -> T:
        assert self._task is not None
        return self._task.result()


def at_exit(action: Callable[[], None]) -> None:
    """Run an action when the process exits, while thread pools still work.

    ``atexit`` is too late: at that time they refuse work, and no engine could be stopped in order. The hook of
    ``threading`` that the pools of the standard library use runs its actions in reverse order, so ours comes first.
    """
    importlib.import_module("concurrent.futures.thread")
    getattr(threading, "_register_atexit", atexit.register)(action)


BACKGROUND: Final = BackgroundLoop()
"""The loop of this process. There is one, because flows share Python's threads and the machine's devices."""
