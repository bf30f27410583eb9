"""Virtual time: an event loop that skips what it would only wait for.

Delays, timeouts and pauses keep their order and take no time. While real work is under way (a function that is not
stubbed, a tokenizer) the loop waits as any other does, for nobody knows how long that work takes.
"""

import asyncio
import selectors
from collections.abc import Iterator
from contextlib import contextmanager


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer once nothing else is left to do."""

    def __init__(self) -> None:
        self._skipped = 0.0
        self._at_work = 0
        super().__init__(_Skipping(self))

    def time(self) -> float:
        """Give the real time, and what was skipped of it so far."""
        return super().time() + self._skipped

    @property
    def at_work(self) -> bool:
        """Whether something real is under way."""
        return self._at_work > 0

    def skip(self, seconds: float) -> None:
        """Let time jump."""
        self._skipped += seconds

    @contextmanager
    def real_time(self) -> Iterator[None]:
        """Let time pass as it does while real work is under way."""
        self._at_work += 1
        try:
            yield
        finally:
            self._at_work -= 1


class _Skipping(selectors.DefaultSelector):
    """Where the loop would sit and wait for a timer, lets time jump instead."""

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
