"""Leases: at most one process drives a run. A dead process loses its runs, and cannot write any more if it wakes.

Each process has one row in ``holders``, with one heartbeat for all its runs. A process that finds another one dead
deletes that row, which frees all its runs; the dead one's next transaction finds no row, and writes nothing (fencing).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

import msgspec

from flowrun.core.events import Answered, Cancelled, Closing, Event
from flowrun.errors import StoreError, UsageError
from flowrun.journal.appender import FENCED, RunTail
from flowrun.journal.bodies import decode, encode
from flowrun.journal.database import Database, json_list
from flowrun.journal.history import History
from flowrun.journal.liveness import Process
from flowrun.journal.questions import closing_of, refuse_second_answer
from flowrun.journal.rows import ENDED, Fenced, Held, Holder, LeaseLost, RunDamaged

_WANTED: Final = """
    WITH wanted (id) AS (
        SELECT value FROM json_each(:ids)
        UNION ALL SELECT runs.id FROM json_each(:ids) JOIN runs ON runs.id > value || '.' AND runs.id < value || '/')
    SELECT json_group_array(json_array(runs.id, holder, no, last))
    FROM wanted JOIN runs ON runs.id = wanted.id JOIN heads ON heads.run = runs.no
"""
"""Runs and their children: a child's id is its parent's id, ``.`` and more, and ``/`` is the character after ``.``.

All in one row: each row is a step of SQLite, after which a thread may wait for the GIL of a busy loop.
"""
_FAMILY: Final = "({0} = :run OR ({0} > :run || '.' AND {0} < :run || '/'))"


_EVENT_COUNT: Final = "SELECT events FROM heads WHERE run = (SELECT no FROM runs WHERE id = ?)"
_REOPEN: Final = """
    DELETE FROM inbox WHERE run IN (SELECT value FROM json_each(?)) AND json_extract(body, '$.kind') = 'TimedOut'
"""
"""Timeouts that a process accepted, and did not live to write down: the next one counts the time anew."""


_WITH_INBOX: Final = "SELECT DISTINCT run FROM inbox WHERE run IN (SELECT value FROM json_each(?))"


class Signal(NamedTuple):
    """An event that another process sent to a run that this one holds."""

    id: int
    run: str
    event: Event


class Leases:
    """The runs that one process holds. ``id`` is random, and only its own; ``now`` returns seconds since the epoch."""

    def __init__(self, database: Database, *, id: str, process: Process, now: Callable[[], float]) -> None:
        self.id = id
        self._database = database
        self._process = process
        self._now = now
        self._history = History(database, now=now, here=process)

    def register(self) -> None:
        """Add this process to the holders, and delete the dead ones."""
        me = Holder(id=self.id, heartbeat=self._now(), **msgspec.structs.asdict(self._process))
        with self._database.transaction():
            living = [holder.id for holder in self._history.holders()]
            self._database.execute(
                "DELETE FROM holders WHERE id NOT IN (SELECT value FROM json_each(?))", (json_list(living),)
            )
            self._database.execute(
                "INSERT INTO holders (id, host, pid, pid_space, started, beat) VALUES (?, ?, ?, ?, ?, ?)",
                msgspec.structs.astuple(me),
            )

    def leave(self) -> None:
        """Delete this process from the holders, which frees its runs."""
        with self._database.transaction():
            self._database.execute("DELETE FROM holders WHERE id = ?", (self.id,))

    def heartbeat(self) -> None:
        """Write the heartbeat of this process.

        Raises:
            Fenced: another process declared this one dead.
        """
        with self._database.transaction():
            change = self._database.execute("UPDATE holders SET beat = ? WHERE id = ?", (self._now(), self.id))
            if not change.rowcount:
                raise Fenced(FENCED)

    def take(self, runs: Sequence[str]) -> tuple[Mapping[str, RunTail], tuple[Held, ...]]:
        """Acquire runs and their children unless a living process holds them; return the acquired and the held ones.

        Raises:
            UsageError: a run is not in the journal.
            RunDamaged: its last event is not, or its inbox cannot be read.
            Fenced: another process declared this one dead.
        """
        with self._database.transaction():
            living = {holder.id: holder for holder in self._history.holders()}
            if self._database.value("SELECT 1 FROM holders WHERE id = ?", (self.id,)) is None:
                raise Fenced(FENCED)
            rows = msgspec.json.decode(self._database.value(_WANTED, {"ids": json_list(runs)}))
            found = {run: (holder, RunTail(row_id, last)) for run, holder, row_id, last in rows}
            for run in runs:
                if run not in found:
                    self._history.run(run)  # raises if there is none
                    raise RunDamaged(f"run {run} is damaged: its last event is not in the journal")
            for (run,) in self._database.rows(_WITH_INBOX, (json_list(found),)):
                self._history.inbox(run)
            held = {run: living[holder] for run, (holder, _) in found.items() if holder in living}
            others = tuple(Held(run=run, holder=holder) for run, holder in held.items() if holder.id != self.id)
            taken = {run: tail for run, (_, tail) in found.items() if run not in held}
            dead = {holder for holder, _ in found.values()} - living.keys() - {None, self.id}
            self._database.execute(
                "DELETE FROM holders WHERE id IN (SELECT value FROM json_each(?))", (json_list(dead),)
            )
            self._database.execute(
                "UPDATE runs SET holder = ? WHERE no IN (SELECT value FROM json_each(?))",
                (self.id, json_list(tail.row_id for tail in taken.values())),
            )
            self._database.execute(_REOPEN, (json_list(taken),))
        return taken, others

    def release(self, run: str) -> bool:
        """Release a run and its children. Return False, and release none, if the inbox holds a signal for them.

        Raises:
            LeaseLost: this process does not hold the run.
        """
        with self._database.transaction():
            self._check_held(run)
            change = self._database.execute(
                f"UPDATE runs SET holder = NULL WHERE {_FAMILY.format('id')} AND holder = :holder"  # noqa: S608
                f" AND NOT EXISTS (SELECT 1 FROM inbox WHERE {_FAMILY.format('inbox.run')})",
                {"run": run, "holder": self.id},
            )
            return change.rowcount > 0

    def discard(self, signals: Iterable[tuple[str, str]]) -> None:
        """Delete signals from the inbox, each given by its run and its body."""
        with self._database.transaction():
            for signal in signals:
                self._database.execute("DELETE FROM inbox WHERE run = ? AND body = ?", signal)

    def close_question(self, run: str, event: Closing) -> Closing:
        """Return the event that closes a question; see ``ports.Journal.close_question``.

        Raises:
            LeaseLost: this process does not hold the run.
        """
        with self._database.transaction():
            self._check_held(run)
            closing = closing_of(event, self._history.inbox(run))
            if closing is None:
                self._post(run, event)
        return closing or event

    def signal(self, run: str, event: Answered | Cancelled, *, seen: int | None = None) -> bool:
        """Add an event to the inbox of the process that drives a run, now or later; see ``SqliteJournal.signal``.

        Raises:
            UsageError: the run is not in the journal, or has ended, or the question of an answer is closed.
        """
        with self._database.transaction():
            status = self._database.value("SELECT status FROM runs WHERE id = ?", (run,))
            if status is None:
                raise UsageError(f"there is no run {run!r} in {self._database.path}")
            if status in ENDED:
                raise UsageError(f"run {run} has ended: {status}")
            refuse_second_answer(run, event, self._history.inbox(run))
            if seen is not None and self._database.value(_EVENT_COUNT, (run,)) != seen:
                return False
            self._post(run, event)
        return True

    def _post(self, run: str, event: Event) -> None:
        values = (run, self._now(), encode(event))
        self._database.execute("INSERT INTO inbox (run, at, body) VALUES (?, ?, ?)", values)

    def _check_held(self, run: str) -> None:
        if self._database.value("SELECT holder FROM runs WHERE id = ?", (run,)) != self.id:
            raise LeaseLost(f"run {run} cannot continue here: another process has resumed it")

    def signals(self) -> list[Signal]:
        """Return what others sent to the runs that this process holds, oldest first. Nothing is deleted.

        What cannot be read is left out: it stops only its own run, when that reads its inbox.
        """
        rows = self._database.rows(
            "SELECT inbox.no, run, body FROM inbox JOIN runs ON runs.id = inbox.run WHERE holder = ? ORDER BY inbox.no",
            (self.id,),
        )
        signals = []
        for id, run, body in rows:
            with suppress(StoreError):
                signals.append(Signal(id, run, decode(body, None)))
        return [signal for signal in signals if isinstance(signal.event, Answered | Cancelled)]
