"""One thread writes: all that gathered while it was busy is one transaction, and one call wakes all who waited.

A group holds the appends of one pass of the event loop, and they share one future. Waiting for it cannot be cancelled:
a task that is cancelled ends when its event is kept, milliseconds later, and not with its fate unknown.
"""

import asyncio
import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from flowrun.errors import Bug, FlowrunError
from flowrun.journal.appender import Entry


class Written(NamedTuple):
    """What became of a group: nothing of it was written if there is an ``error``, else all but the ``lost`` runs."""

    error: FlowrunError | None = None
    lost: Mapping[str, str] = {}


ALL: Final = Written()


class Committed(asyncio.Future[Written]):
    """A future that many wait for, so that none of them may cancel it."""

    def cancel(self, msg: Any = None) -> bool:
        """Leave it to the task to end once the group is written."""
        return False


class Group:
    """Entries that were appended in one pass of the loop."""

    __slots__ = ("entries", "written")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.entries: list[Entry] = []
        self.written = Committed(loop=loop)


class Request(NamedTuple):
    """Something else to be done with the database, in its turn. The ``last`` one is done even by a halted journal."""

    action: Callable[[], Any]
    done: "asyncio.Future[Any]"
    last: bool = False


class GroupCommit(threading.Thread):
    """Performs groups and calls in the order in which they come, and ``tick`` at least every ``pause`` seconds.

    The first group that fails halts it: all later ones fail with the same error, for nothing may go on as if it were
    written.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Entry]], Mapping[str, str]],
        *,
        loop: asyncio.AbstractEventLoop,
        tick: Callable[[], None],
        pause: float,
    ) -> None:
        super().__init__(name="flowrun journal", daemon=True)
        self.failed: FlowrunError | None = None
        self._write = write
        self._loop = loop
        self._tick = tick
        self._pause = pause
        self._items: queue.SimpleQueue[Group | Request] = queue.SimpleQueue()

    def submit(self, item: Group | Request) -> None:
        """Hand something over; the last call ends the thread."""
        self._items.put(item)

    def run(self) -> None:
        """Work until the end; whatever goes wrong is told to those who wait."""
        due = time.monotonic() + self._pause
        while True:
            items = self._gather(max(0.0, due - time.monotonic()))
            self._perform(items)
            if items and _is_last(items[-1]):
                return
            if time.monotonic() >= due:
                self._guarded(self._tick)
                due = time.monotonic() + self._pause

    def _gather(self, seconds: float) -> list[Group | Request]:
        """Give all that has come, after waiting for the first of it."""
        items: list[Group | Request] = []
        with contextlib.suppress(queue.Empty):
            items.append(self._items.get(timeout=seconds))
            while not _is_last(items[-1]):
                items.append(self._items.get_nowait())
        return items

    def _perform(self, items: Sequence[Group | Request]) -> None:
        groups: list[Group] = []
        for item in items:
            if isinstance(item, Group):
                groups.append(item)
                continue
            self._commit(groups)
            groups = []
            self._answer(item)
        self._commit(groups)

    def _commit(self, groups: Sequence[Group]) -> None:
        if not groups:
            return
        entries = groups[0].entries if len(groups) == 1 else [entry for group in groups for entry in group.entries]
        lost = self._guarded(lambda: self._write(entries))
        written = Written(error=self.failed) if self.failed else Written(lost=lost) if lost else ALL
        self._report(lambda: _tell(groups, written))

    def _guarded(self, action: Callable[[], Any]) -> Any:
        """Do something unless the journal is halted; an error halts it."""
        if self.failed is None:
            try:
                return action()
            except FlowrunError as exc:
                self.failed = exc
            except Exception as exc:  # those who wait would wait for ever
                self.failed = Bug(f"the journal's thread failed: {exc!r}")
                self.failed.__cause__ = exc
        return None

    def _answer(self, call: Request) -> None:
        try:
            if self.failed is not None and not call.last:
                raise self.failed
            result, error = call.action(), None
        except Exception as exc:  # raised where it is waited for
            result, error = None, exc
        self._report(lambda: _settle(call.done, result, error))

    def _report(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it everybody who waited
            self._loop.call_soon_threadsafe(callback)


def _is_last(item: Group | Request) -> bool:
    return isinstance(item, Request) and item.last


def _tell(groups: Sequence[Group], written: Written) -> None:
    for group in groups:
        group.written.set_result(written)


def _settle(done: "asyncio.Future[Any]", result: object, error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
