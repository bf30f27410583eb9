"""The journal that runs write to: an event is on the disk before any of its effects is performed.

It belongs to one event loop. A thread of its own writes, so the loop is not blocked; ``append`` returns when its group
is committed.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from flowrun.core.events import Answered, Cancelled, Closing, Event, Failed, Recorded, TimedOut
from flowrun.errors import Bug, FlowrunError, StoreError
from flowrun.journal.appender import MARK, Appender, Entry
from flowrun.journal.bodies import encode
from flowrun.journal.database import Database, Synchronous
from flowrun.journal.group_commit import ALL, Committed, DatabaseTask, Group, GroupCommit, Written
from flowrun.journal.history import History
from flowrun.journal.leases import Leases
from flowrun.journal.liveness import HEARTBEAT_SECONDS, Process, this_process
from flowrun.journal.rows import ENDED, FIRST, Fenced, Held, LeaseLost, NewRun

T = TypeVar("T")

POLL_SECONDS: Final = 0.5
"""Seconds between two checks of the inbox, which cost a few microseconds while no other process writes."""

_SIGNALS: Final = (Answered, Cancelled, TimedOut, Failed)
"""Events that may be in the inbox."""

OnSignal = Callable[[str, Event], None]
"""A callback, run in the loop for each event that another process sent to a run that this one holds."""


class SqliteJournal:
    """The port ``Journal`` over a SQLite file: holds the runs that it writes, and receives signals for them."""

    def __init__(
        self,
        path: Path,
        *,
        on_signal: OnSignal | None = None,
        batch: str | None = None,
        synchronous: Synchronous = "full",
        now: Callable[[], float] = time.time,
        process: Process | None = None,
        pause: float = POLL_SECONDS,
    ) -> None:
        """Open the journal at ``path``, which is created if missing. Must be called in the running loop.

        Args:
            on_signal: called with each signal for a run that this journal holds.
            batch: the batch of the runs that begin here.
            now: returns seconds since the epoch.
            process: how other processes find this one; this process if None.
            pause: seconds between two checks of the inbox.

        Raises:
            StoreError: the file cannot be opened.
        """
        self._database = Database(path, synchronous=synchronous)
        self._now = now
        here = this_process() if process is None else process
        self._leases = Leases(self._database, id=secrets.token_hex(8), process=here, now=now)
        self._reader = Database(path)
        self._history = History(self._reader, now=now, here=here)
        self._appender = Appender(self._database, holder=self._leases.id)
        self._on_signal = on_signal
        self._batch = batch
        self._spec = ""
        self._last_heartbeat = now()
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
        self._thread = GroupCommit(self._appender.write, loop=self._loop, tick=self._tick, pause=pause)
        self._thread.start()

    @property
    def history(self) -> History:
        """Return a reader of this journal."""
        self._refuse_if_closed()
        return self._history

    # --- writing ------------------------------------------------------------------------------------------------------

    def store_spec(self, digest: str, body: str) -> None:
        """Store a spec's canonical form, as JSON, with its first run. Runs registered from now on use this spec."""
        self._spec = digest
        self._appender.store_spec(digest, body)

    def register(
        self, run: str, *, flow: str, parent: str | None = None, spec: str | None = None, batch: str | None = None
    ) -> None:
        """Register a run; it is written, and held, with its first event.

        Args:
            spec: the digest of its spec; that of the last ``store_spec`` if None.
            batch: its batch; that of this journal if None.
        """
        self._new[run] = NewRun(id=run, flow=flow, parent=parent, spec=spec or self._spec, batch=batch or self._batch)

    async def append(self, run: str, event: Event, *, seq: int, state: str, status: str) -> None:
        """Write an event; it is committed when this returns. ``state`` and ``status`` are those of the run after it.

        A task that is cancelled here ends only when the event is committed.

        Raises:
            LeaseLost: another process drives the run; no effect of the event may be performed.
            StoreError: the journal cannot be written any more, for any run.
        """
        written = await self._enqueue(self._entry(run, event, seq, state, status))
        if written is not ALL:
            _check(run, written)

    async def append_all(self, run: str, events: Iterable[tuple[Event, str, str]]) -> None:
        """Write the first events of a run, all or none, each with the state and status of the run after it.

        Raises as ``append`` does.
        """
        for seq, (event, state, status) in enumerate(events, FIRST):
            written = self._enqueue(self._entry(run, event, seq, state, status))
        _check(run, await written)  # one group holds what is queued in one turn of the loop

    async def mark(self, run: str, status: str) -> None:
        """Write a status that comes without an event: the run waits, or needs attention. Raises as ``append`` does."""
        if self._statuses.get(run) != status:
            self._statuses[run] = status
            _check(run, await self._enqueue(Entry(run, MARK, self._now(), "", "", status)))

    def _enqueue(self, entry: Entry) -> Committed:
        """Add an entry to the open group, and return the group's future result."""
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
        return Entry(run, seq, self._now(), state, body, changed, new, isinstance(event, _SIGNALS))

    def _submit(self) -> None:
        if self._group is not None:
            self._thread.submit(self._group)
            self._group = None

    # --- leases and signals -------------------------------------------------------------------------------------------

    async def take(self, runs: Iterable[str]) -> tuple[Held, ...]:
        """Acquire runs, with their children, to resume them; return those that another living process holds.

        Raises:
            UsageError: a run is not in the journal.
        """
        wanted = tuple(runs)

        def take() -> tuple[Held, ...]:
            taken, held = self._leases.take(wanted)
            self._appender.adopt(taken)
            self._version = None  # their inbox is to be delivered
            return held

        return await self._run_in_thread(take)

    async def release(self, run: str) -> bool:
        """Release a waiting run and its children; return False, and hold them, if a signal has just arrived."""

        def release() -> bool:
            self._version = None
            return self._leases.release(run)

        return await self._run_in_thread(release)

    async def discard(self, signals: Iterable[tuple[str, Event]]) -> None:
        """Delete signals, each given with the run that it is for: they came too late."""
        bodies = [(run, encode(event)) for run, event in signals]
        await self._run_in_thread(lambda: self._leases.discard(bodies))

    async def signal(self, run: str, event: Answered | Cancelled, *, seen: int | None = None) -> bool:
        """Send an event to the process that drives a run, now or later; return whether it is sent.

        Args:
            seen: the number of the run's events that the sender knows; nothing is sent if there are others.

        Raises:
            UsageError: the run is not in the journal, or has ended, or the question of an answer is closed.
        """

        def send() -> bool:
            self._version = None
            return self._leases.signal(run, event, seen=seen)

        return await self._run_in_thread(send)

    async def close_question(self, run: str, event: Closing) -> Closing:
        """Return the event that closes a question. See ``ports.Journal.close_question``.

        Raises:
            LeaseLost: another process drives the run.
        """
        return await self._run_in_thread(lambda: self._leases.close_question(run, event))

    async def events(self, run: str) -> list[Recorded]:
        """Return a run's events, oldest first; an empty list if there is no such run.

        Reads in the loop's thread, some microseconds per event: another thread would wait for the GIL at each of them.
        """
        self._refuse_if_closed()
        return self._history.events(run)

    async def _run_in_thread(self, action: Callable[[], T]) -> T:
        """Run an action in the journal's thread, after all entries that were appended before."""
        self._refuse_if_closed()
        self._submit()
        done: asyncio.Future[T] = self._loop.create_future()
        self._thread.submit(DatabaseTask(action, done))
        return await done

    def _refuse_if_halted(self) -> None:
        if self._thread.failed is not None:
            raise _copy_of(self._thread.failed)

    def _refuse_if_closed(self) -> None:
        if self._closed is not None:
            raise StoreError(f"the journal {self._database.path} is closed")

    def _tick(self) -> None:
        """Write the heartbeat when it is due, and deliver signals; runs in the journal's thread."""
        try:
            now = self._now()
            if now - self._last_heartbeat >= HEARTBEAT_SECONDS:
                self._leases.heartbeat()
                self._last_heartbeat = now
            if self._on_signal is not None:
                self._deliver(self._on_signal)
        except Fenced:
            raise
        except StoreError:
            return  # a busy file or a full disk: the next append raises it, and a heartbeat may be late

    def _deliver(self, on_signal: OnSignal) -> None:
        version = self._database.value("PRAGMA data_version")
        if version == self._version:
            return
        signals = self._leases.signals()
        for signal in signals:
            if signal.id not in self._delivered:
                self._loop.call_soon_threadsafe(on_signal, signal.run, signal.event)
        self._delivered = {signal.id for signal in signals}
        self._version = version

    # --- the end ------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Write the queued entries, release all runs, and close the file. May be called twice."""
        if self._closed is None:
            self._submit()
            self._reader.close()
            self._closed = self._loop.create_future()
            self._thread.submit(DatabaseTask(self._leave, self._closed, last=True))
        await asyncio.shield(self._closed)

    def _leave(self) -> None:
        try:
            self._leases.leave()
        except StoreError:
            pass  # the holder's row stays; without its process it counts as dead
        finally:
            self._database.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


def _check(run: str, written: Written) -> None:
    if written.error is not None:
        raise _copy_of(written.error)
    if run in written.lost:
        raise LeaseLost(f"run {run} cannot continue here: {written.lost[run]}")


def _copy_of(error: FlowrunError) -> FlowrunError:
    """Return a copy of the error that halted the journal, so that each run raises its own traceback."""
    copy: Any = type(error)(str(error))
    copy.__cause__ = error
    return copy  # type: ignore[no-any-return]
