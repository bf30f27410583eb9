"""Runs the rows of a batch at the same time: one task per row, and as many live rows as keep the models busy."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, Final, Generic, Protocol, TypeVar

T = TypeVar("T")

_AHEAD: Final = 4096
"""Rows that are read before they can start: on replicas, which limit their live rows themselves, nothing else does."""


_LOOP: "ContextVar[Loop[Any]]" = ContextVar("loop")
"""The loop that runs the row of the current task."""


@asynccontextmanager
async def place_given_up() -> AsyncIterator[None]:
    """Let another row start while the row of the current task sleeps; once it wakes, it goes on at once."""
    loop = _LOOP.get(None)
    if loop is None:
        yield
        return
    loop.asleep += 1
    loop.wake()
    try:
        yield
    finally:
        loop.asleep -= 1


class Capacity(Protocol):
    """The capacity for further rows. ``Meter`` and ``Pool`` implement it."""

    on_capacity: Callable[[], None]
    """Called when there may be capacity again."""

    @property
    def has_capacity(self) -> bool:
        """Return whether another row may start."""

    @property
    def max_live(self) -> int:
        """Return how many rows may be live at once."""


class Loop(Generic[T]):
    """The loop that starts the rows of a batch.

    ``live`` is the number of rows that have started and not ended, without the ``asleep`` ones, which need no place.
    ``closed``: there was ``enough`` before the last row had started.
    """

    def __init__(
        self,
        run_row: Callable[[T], Awaitable[None]],
        capacity: Capacity,
        *,
        max_live: int,
        enough: Callable[[], bool] | None = None,
    ) -> None:
        """Bind the loop to the function that runs a row.

        Args:
            run_row: runs a row and stores its result; an exception that it raises ends the batch.
            max_live: the maximum number of live rows.
            enough: returns whether no more rows are to start; the live ones go on to their ends.
        """
        self.closed = False
        self._enough = enough
        self._run_row = run_row
        self._capacity = capacity
        self._max_live = max_live
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._failure: BaseException | None = None
        self._stopping = False
        self.asleep = 0

    @property
    def live(self) -> int:
        """Return how many rows are live."""
        return len(self._tasks) - self.asleep

    def wake(self) -> None:
        """Look whether another row may start."""
        self._wake.set()

    def stop(self) -> None:
        """Start no more rows, and cancel the live ones."""
        self._stopping = True
        self._wake.set()

    async def run(self, rows: Iterable[T]) -> None:
        """Run all rows. A row starts while there is capacity and fewer than ``max_live`` rows are live.

        The last rows start without waiting for capacity as soon as ``max_live`` allows all of them: otherwise the
        last one would run alone on the models.

        Raises:
            FlowrunError: ``run_row`` raised it; the live rows are cancelled.
        """
        self._capacity.on_capacity = self._wake.set
        waiting = iter(rows)
        ahead: deque[T] = deque()
        more = True
        try:
            while (more or ahead or self._tasks) and not self._stopping:
                self._wake.clear()  # before anything is looked at: what changes meanwhile is seen
                while more and len(ahead) < _AHEAD and self.live + len(ahead) < self._max_live:
                    try:
                        ahead.append(next(waiting))
                    except StopIteration:
                        more = False
                while ahead and self._may_start(last=not more) and not self._stopping:
                    self._start(ahead.popleft())
                    await asyncio.sleep(0)  # its first request counts before another row starts
                if ahead and self._enough is not None and self._enough():
                    self.closed, more = True, False
                    ahead.clear()
                if self._tasks and not self._stopping:
                    await self._wake.wait()
        finally:
            await self._cancel_all()
        if self._failure is not None:
            raise self._failure

    def _may_start(self, *, last: bool) -> bool:
        if self._enough is not None and self._enough():
            return False
        return self.live < self._max_live and (last or self._capacity.has_capacity)

    def _start(self, row: T) -> None:
        task = asyncio.get_running_loop().create_task(self._guarded(row))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def _guarded(self, row: T) -> None:
        _LOOP.set(self)
        try:
            await self._run_row(row)
        except Exception as exc:
            self._failure = self._failure or exc
            self.stop()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._wake.set()

    async def _cancel_all(self) -> None:
        live = list(self._tasks)
        for task in live:
            task.cancel()
        await asyncio.gather(*live, return_exceptions=True)
