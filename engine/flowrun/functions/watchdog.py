"""Functions in threads that keep Python's lock, or the event loop, past their time are noticed by another process.

While such a function runs, nothing in this process can: no timeout, no signal handler. So calls are written to a table
that a small process shares (``watchdog_process``), which ends this one with a message. Only flowrun's own processes are
watched: the command line and the replicas of a batch, never the process of somebody who uses flowrun as a library.
"""

import asyncio
import math
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from flowrun.core.events import CallFunction
from flowrun.core.tool_context import DEADLINE
from flowrun.functions import watchdog_process
from flowrun.functions.watchdog_process import HEAD, NAME, SIZE, SLOTS, TICK

T = TypeVar("T")

_NAMES: Final = HEAD + 8 * SLOTS


class _Watchdog:
    """The table of calls, and the process that watches it."""

    def __init__(self) -> None:
        with tempfile.TemporaryFile() as file:
            file.truncate(SIZE)
            self._table = mmap.mmap(file.fileno(), SIZE)
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", watchdog_process.__file__, str(os.getpid()), str(file.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[file.fileno()],
                start_new_session=True,  # Ctrl-C is not for it
            )
        view = memoryview(self._table)
        self._head, self._deadlines = view[:HEAD].cast("Q"), view[HEAD:_NAMES].cast("d")
        self._free = list(range(SLOTS))
        self._loop: asyncio.AbstractEventLoop | None = None

    def began(self, name: str, deadline: float) -> int | None:
        """Write down a call that begins; return its slot, if one is free."""
        try:
            slot = self._free.pop()
        except IndexError:
            return None
        start = _NAMES + slot * NAME
        self._table[start : start + NAME] = name.encode()[:NAME].ljust(NAME, b"\0")
        self._deadlines[slot] = deadline
        return slot

    def ended(self, slot: int) -> None:
        """Take a call out of the table; may be called by any thread."""
        self._deadlines[slot] = 0.0
        self._free.append(slot)

    def beat(self) -> None:
        """Beat in the running loop until no call is in progress."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop, self._head[0] = loop, 1
            loop.call_later(TICK, self._next_beat, loop)

    def _next_beat(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not loop:
            return
        self._head[1] += 1
        if len(self._free) == SLOTS:
            self.pause()
        else:
            loop.call_later(TICK, self._next_beat, loop)

    def pause(self) -> None:
        """Watch nothing until the next ``beat``, such as because no loop runs."""
        self._loop, self._head[0] = None, 0

    def close(self) -> None:
        """End the process that watches."""
        self.pause()
        self._process.kill()
        self._process.communicate()


class Watch:
    """A call that is watched, from ``begin`` to ``end``, which may be called by different threads."""

    __slots__ = ("_limit", "_name", "_slot", "_timeout", "_watchdog")

    def __init__(self, watchdog: _Watchdog, effect: CallFunction) -> None:
        self._watchdog = watchdog
        self._name = f"tool {effect.tool} ({effect.entrypoint})" if effect.tool else effect.entrypoint
        self._timeout = math.inf if effect.timeout is None else effect.timeout
        limit = DEADLINE.get(None)
        loop = asyncio.get_running_loop()
        self._limit = math.inf if limit is None else time.monotonic() + limit - loop.time()
        self._slot: int | None = None

    def begin(self) -> None:
        """Write the call down, if its time is limited."""
        deadline = min(time.monotonic() + self._timeout, self._limit)
        if deadline != math.inf:
            self._slot = self._watchdog.began(self._name, deadline)

    def end(self, *_: object) -> None:
        """Take it out of the table."""
        if self._slot is not None:
            self._watchdog.ended(self._slot)
            self._slot = None

    def run(self, action: Callable[[], T]) -> T:
        """Run a call, whoever may have stopped to wait for it."""
        self.begin()
        try:
            return action()
        finally:
            self.end()


_watched: list[_Watchdog | None] = []
"""The watchdog of this process; empty: it is not watched; None: no call has begun."""


def watch(effect: CallFunction) -> Watch | None:
    """Return the watch over a call that the running loop is about to make; None if this process is not watched."""
    if not _watched:
        return None
    watchdog = _watched[-1]
    if watchdog is None:
        try:
            watchdog = _watched[-1] = _Watchdog()
        except OSError:  # no more processes, or descriptors
            return None
    watchdog.beat()
    return Watch(watchdog, effect)


def pause_watch() -> None:
    """Watch nothing until the next call: the loop stops for now."""
    if _watched and (watchdog := _watched[-1]) is not None:
        watchdog.pause()


@contextmanager
def watched_process() -> Iterator[None]:
    """Have this process, which must be flowrun's own, watched while functions run in the block."""
    _watched.append(None)
    try:
        yield
    finally:
        watchdog = _watched.pop()
        if watchdog is not None:
            watchdog.close()
