"""The journal that runs write to: an event is on the disk before anything that follows from it is done.

It belongs to one event loop. One thread writes, so writing does not block; ``append`` returns when its group is
committed.
"""

import asyncio
import secrets as chance
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from flowrun.core.events import Answered, Cancelled, Event, Recorded
from flowrun.errors import Bug, FlowrunError, StoreError
from flowrun.journal.appender import MARK, Appender, Entry
from flowrun.journal.bodies import encode
from flowrun.journal.database import Database, Synchronous
from flowrun.journal.group_commit import ALL, Committed, Group, GroupCommit, Request, Written
from flowrun.journal.history import History
from flowrun.journal.leases import Leases
from flowrun.journal.liveness import HEARTBEAT_SECONDS, Process, this_process
from flowrun.journal.rows import ENDED, FIRST, Held, LeaseLost, NewRun

T = TypeVar("T")

POLL_SECONDS: Final = 0.5
"""How often the inbox is looked at. It costs a few microseconds while no other process writes."""

_POSTED: Final = (Answered, Cancelled)
"""What may have come through the inbox."""

OnPost = Callable[[str, Event], None]
"""Is told, in the loop, of each event that another process left for a run that this one holds."""


class SqliteJournal:
    """Writes runs down, holds those that it writes, and hears what other processes have for them."""

    def __init__(
        self,
        path: Path,
        *,
        on_post: OnPost | None = None,
        batch: str | None = None,
        synchronous: Synchronous = "full",
        now: Callable[[], float] = time.time,
        process: Process | None = None,
        pause: float = POLL_SECONDS,
    ) -> None:
        """Open the journal at ``path``, and make it if it is not there. Call it where the loop runs.

        Args:
            batch: what the runs that are begun here are part of.

        Raises:
            StoreError: it cannot be opened.
        """
        self._database = Database(path, synchronous=synchronous)
        self._now = now
        here = this_process() if process is None else process
        self._leases = Leases(self._database, id=chance.token_hex(8), process=here, now=now)
        self._reader = Database(path)
        self._history = History(self._reader, now=now, here=here)
        self._ledger = Appender(self._database, holder=self._leases.id)
        self._on_post = on_post
        self._batch = batch
        self._spec = ""
        self._beaten = now()
        self._version: object = None
        self._delivered: set[int] = set()
        self._new: dict[str, NewRun] = {}
        self._statuses: dict[str, str] = {}
        self._group: Group | None = None
        self._closed: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        try:
            self._leases.register()
        except BaseException:
            self._reader.close()
            self._database.close()
            raise
        self._thread = GroupCommit(self._ledger.write, loop=self._loop, tick=self._tick, pause=pause)
        self._thread.start()

    # --- writing ------------------------------------------------------------------------------------------------------

    def keep_spec(self, digest: str, body: str) -> None:
        """Have a spec's canonical form, as JSON, written down with the first run of it: runs begun from now on are."""
        self._spec = digest
        self._ledger.keep_spec(digest, body)

    def begin(
        self, run: str, *, flow: str, parent: str | None = None, spec: str | None = None, batch: str | None = None
    ) -> None:
        """Say what a run is; it is written down, and held, with its first event.

        ``spec`` and ``batch`` are those that were told last, for the whole process, unless they are given.
        """
        self._new[run] = NewRun(id=run, flow=flow, parent=parent, spec=spec or self._spec, batch=batch or self._batch)

    async def append(self, run: str, event: Event, *, seq: int, state: str, status: str) -> None:
        """Write an event down; when this returns, it is kept. ``state`` and ``status`` are the run's after it.

        A task that is cancelled here ends only when the event is kept.

        Raises:
            LeaseLost: another process drives the run; nothing that follows from the event may be done.
            StoreError: the journal cannot be written any more, by any run.
        """
        written = await self._joined(self._entry(run, event, seq, state, status))
        if written is not ALL:
            _check(run, written)

    async def mark(self, run: str, status: str) -> None:
        """Note what a run has come to without an event: it is waiting, or needs attention. See ``append``."""
        if self._statuses.get(run) != status:
            self._statuses[run] = status
            _check(run, await self._joined(Entry(run, MARK, self._now(), "", "", status)))

    def _joined(self, entry: Entry) -> Committed:
        """Put an entry into the group that gathers, and give what will tell what became of that."""
        group = self._group
        if group is None:
            self._refuse_if_halted()
            self._refuse_if_closed()
            group = self._group = Group(self._loop)
            self._loop.call_soon(self._submit)
        group.entries.append(entry)
        return group.written

    def _entry(self, run: str, event: Event, seq: int, state: str, status: str) -> Entry:
        body = encode(event)
        new = self._new.pop(run, None) if seq == FIRST else None
        if seq == FIRST and new is None:
            raise Bug(f"run {run} was not begun before its first event was appended")
        changed = None
        if self._statuses.get(run) != status:
            changed = self._statuses[run] = status
            if status in ENDED:
                del self._statuses[run]
        return Entry(run, seq, self._now(), state, body, changed, new, isinstance(event, _POSTED))

    def _submit(self) -> None:
        if self._group is not None:
            self._thread.submit(self._group)
            self._group = None

    # --- what other processes do --------------------------------------------------------------------------------------

    async def take(self, runs: Iterable[str]) -> tuple[Held, ...]:
        """Take runs, with their children, to drive them on; give those that a living process holds, and keeps.

        Raises:
            UsageError: a run is not in the journal.
        """
        wanted = tuple(runs)

        def take() -> tuple[Held, ...]:
            taken, held = self._leases.take(wanted)
            self._ledger.took(taken)
            self._version = None  # what lies in the inbox for them is to be told
            return held

        return await self._ask(take)

    async def release(self, run: str) -> bool:
        """Let go of a run that waits, and its children; False, and they are held, if something has just come in."""

        def release() -> bool:
            self._version = None
            return self._leases.release(run)

        return await self._ask(release)

    async def discard(self, run: str) -> None:
        """Forget what has come in for a run and its children: it came too late."""
        await self._ask(lambda: self._leases.discard(run))

    async def post(self, run: str, event: Answered | Cancelled) -> None:
        """Leave an event for the process that drives a run, or that will.

        Raises:
            UsageError: the run is not in the journal, or has ended.
        """
        body = encode(event)

        def post() -> None:
            self._leases.post(run, body)
            self._version = None

        await self._ask(post)

    async def events(self, run: str) -> list[Recorded]:
        """Give a run's events, oldest first; none if there is no such run.

        This is read here and now, some microseconds an event: a thread would wait for a busy loop at each of them.
        """
        self._refuse_if_closed()
        return self._history.events(run)

    async def _ask(self, action: Callable[[], T]) -> T:
        """Have something done by the journal's thread, after all that was appended before."""
        self._refuse_if_closed()
        self._submit()
        done: asyncio.Future[T] = self._loop.create_future()
        self._thread.submit(Request(action, done))
        return await done

    def _refuse_if_halted(self) -> None:
        if self._thread.failed is not None:
            raise _again(self._thread.failed)

    def _refuse_if_closed(self) -> None:
        if self._closed is not None:
            raise StoreError(f"the journal {self._database.path} is closed")

    def _tick(self) -> None:
        """Beat when it is time, and tell what has come in; in the journal's thread."""
        try:
            now = self._now()
            if now - self._beaten >= HEARTBEAT_SECONDS:
                self._leases.beat()
                self._beaten = now
            if self._on_post is not None:
                self._look(self._on_post)
        except LeaseLost:
            raise
        except StoreError:
            return  # a busy or a full disk: appends tell of it, and a beat may be late

    def _look(self, on_post: OnPost) -> None:
        version = self._database.value("PRAGMA data_version")
        if version == self._version:
            return
        posts = self._leases.posts()
        for post in posts:
            if post.no not in self._delivered:
                self._loop.call_soon_threadsafe(on_post, post.run, post.event)
        self._delivered = {post.no for post in posts}
        self._version = version

    # --- the end ------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Write what was appended, let go of all runs, and close the file. May be called twice."""
        if self._closed is None:
            self._submit()
            self._reader.close()
            self._closed = self._loop.create_future()
            self._thread.submit(Request(self._leave, self._closed, last=True))
        await asyncio.shield(self._closed)

    def _leave(self) -> None:
        try:
            self._leases.leave()
        except StoreError:
            pass  # the row stays; without its process it counts as dead
        finally:
            self._database.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _check(run: str, written: Written) -> None:
    if written.error is not None:
        raise _again(written.error)
    if run in written.lost:
        raise LeaseLost(f"run {run} cannot go on here: {written.lost[run]}")


def _again(error: FlowrunError) -> FlowrunError:
    """Give a new error like the one that halted the journal: each run that it ends gets its own traceback."""
    again: Any = type(error)(str(error))
    again.__cause__ = error
    return again  # type: ignore[no-any-return]
