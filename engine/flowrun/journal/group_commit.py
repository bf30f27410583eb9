"""One thread writes: entries queued while it was busy become one transaction, and one call wakes all waiting tasks.

A group holds the entries of one pass of the event loop, which share one future. Waiting for it cannot be cancelled: a
cancelled task ends once its group is committed or has failed, milliseconds later, so the result is always known.
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
    """The result of a group: after an ``error`` nothing was written, otherwise all runs but the ``lost`` ones."""

    error: FlowrunError | None = None
    lost: Mapping[str, str] = {}


ALL: Final = Written()


class Committed(asyncio.Future[Written]):
    """A future that many tasks await, so none of them can cancel it."""

    def cancel(self, msg: Any = None) -> bool:
        """Ignore the cancellation and return False: a cancelled task ends once its group is written."""
        return False


class Group:
    """Entries that were appended in one pass of the loop."""

    __slots__ = ("entries", "written")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.entries: list[Entry] = []
        self.written = Committed(loop=loop)


class DatabaseTask(NamedTuple):
    """Another action on the database, in order with the groups. The ``last`` one runs even in a halted journal."""

    action: Callable[[], Any]
    done: "asyncio.Future[Any]"
    last: bool = False


class GroupCommit(threading.Thread):
    """The thread that performs groups and requests in order, and calls ``tick`` at least every ``pause`` seconds.

    The first group that fails halts the journal: all later ones fail with the same error, so that no run continues as
    if its events were written.
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
        self._items: queue.SimpleQueue[Group | DatabaseTask] = queue.SimpleQueue()

    def submit(self, item: Group | DatabaseTask) -> None:
        """Queue an item; the request marked ``last`` ends the thread."""
        self._items.put(item)

    def run(self) -> None:
        """Process items until the last request; errors are raised in the waiting tasks."""
        due = time.monotonic() + self._pause
        while True:
            items = self._gather(max(0.0, due - time.monotonic()))
            self._perform(items)
            if items and _is_last(items[-1]):
                return
            if time.monotonic() >= due:
                self._guarded(self._tick)
                due = time.monotonic() + self._pause

    def _gather(self, seconds: float) -> list[Group | DatabaseTask]:
        """Return all queued items, after waiting up to ``seconds`` for the first."""
        items: list[Group | DatabaseTask] = []
        with contextlib.suppress(queue.Empty):
            items.append(self._items.get(timeout=seconds))
            while not _is_last(items[-1]):
                items.append(self._items.get_nowait())
        return items

    def _perform(self, items: Sequence[Group | DatabaseTask]) -> None:
        groups: list[Group] = []
        for item in items:
            if isinstance(item, Group):
                groups.append(item)
                continue
            self._commit(groups)
            groups = []
            self._perform_request(item)
        self._commit(groups)

    def _commit(self, groups: Sequence[Group]) -> None:
        if not groups:
            return
        entries = groups[0].entries if len(groups) == 1 else [entry for group in groups for entry in group.entries]
        lost = self._guarded(lambda: self._write(entries))
        written = Written(error=self.failed) if self.failed else Written(lost=lost) if lost else ALL
        self._report(lambda: _resolve_groups(groups, written))

    def _guarded(self, action: Callable[[], Any]) -> Any:
        """Return the action's result unless the journal is halted; an error halts it."""
        if self.failed is None:
            try:
                return action()
            except FlowrunError as exc:
                self.failed = exc
            except Exception as exc:  # otherwise the waiting tasks would never wake
                self.failed = Bug(f"the journal's thread failed: {exc!r}")
                self.failed.__cause__ = exc
        return None

    def _perform_request(self, request: DatabaseTask) -> None:
        try:
            if self.failed is not None and not request.last:
                raise self.failed
            result, error = request.action(), None
        except Exception as exc:  # raised by the task that awaits it
            result, error = None, exc
        self._report(lambda: _resolve(request.done, result, error))

    def _report(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, so no task waits any more
            self._loop.call_soon_threadsafe(callback)


def _is_last(item: Group | DatabaseTask) -> bool:
    return isinstance(item, DatabaseTask) and item.last


def _resolve_groups(groups: Sequence[Group], written: Written) -> None:
    for group in groups:
        group.written.set_result(written)


def _resolve(done: "asyncio.Future[Any]", result: object, error: Exception | None) -> None:
    if done.done():
        return
    if error is None:
        done.set_result(result)
    else:
        done.set_exception(error)
