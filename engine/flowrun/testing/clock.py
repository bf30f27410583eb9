"""Virtual time: an event loop that skips idle time.

Delays, timeouts and pauses end in the right order and take no real time. During real work (a function without a stub, a
tokenizer) the loop waits in real time, because the duration of that work is unknown.
"""

import asyncio
import selectors
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer when it is idle."""

    def __init__(self) -> None:
        self._skipped = 0.0
        self._at_work = 0
        super().__init__(_SkippingSelector(self))

    def time(self) -> float:
        """Return the real time plus the skipped time, in seconds."""
        return super().time() + self._skipped

    @property
    def at_work(self) -> bool:
        """Return whether real work is in progress."""
        return self._at_work > 0

    def skip(self, seconds: float) -> None:
        """Advance the time by ``seconds``."""
        self._skipped += seconds

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Join the threads of the default executor in real time; since 3.12 a timer limits how long that may take."""
        with self.real_time():
            await super().shutdown_default_executor(*([] if timeout is None else [timeout]))

    @contextmanager
    def real_time(self) -> Iterator[None]:
        """Return a context manager; while it is open, the loop waits in real time."""
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1


def virtual_clock() -> Callable[[], float]:
    """Return a clock that goes on from now as fast as the running loop, in seconds since the epoch."""
    loop = asyncio.get_running_loop()
    began = time.time() - loop.time()
    return lambda: began + loop.time()


class _SkippingSelector(selectors.DefaultSelector):
    """A selector that advances the loop's time instead of waiting for a timer."""

    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or timeout <= 0 or self._loop.at_work:
            return super().select(timeout)
        ready = super().select(0)
        if not ready:
            self._loop.skip(timeout)
        return ready
