"""Which process drives a run: one at most. A dead one's runs can be taken, and it cannot write any more if it wakes.

A process has one row, in ``holders``, and beats once for all its runs. Whoever finds it dead deletes the row, which
frees all that it held; its own next transaction sees that the row is gone, and writes nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from flowrun.core.events import Event
from flowrun.errors import UsageError
from flowrun.journal.appender import FENCED, RunTail
from flowrun.journal.bodies import decode
from flowrun.journal.database import Database, json_list
from flowrun.journal.history import History
from flowrun.journal.liveness import Process
from flowrun.journal.rows import ENDED, Held, Holder, LeaseLost

_WANTED: Final = """
    WITH wanted (id) AS (
        SELECT value FROM json_each(?1)
        UNION ALL SELECT runs.id FROM json_each(?1) JOIN runs ON runs.id > value || '.' AND runs.id < value || '/')
    SELECT json_group_array(json_array(runs.id, holder, no, last))
    FROM wanted JOIN runs ON runs.id = wanted.id JOIN heads ON heads.run = runs.no
"""
"""Runs and their children (``.`` follows a parent's id in theirs, and ``/`` comes after ``.``).

Many in one row: each row is a step of SQLite, for which a thread may have to wait while the loop is busy.
"""
_FAMILY: Final = "({0} = ?1 OR ({0} > ?1 || '.' AND {0} < ?1 || '/'))"


class Signals(NamedTuple):
    """An event from another process, for a run that this one holds."""

    no: int
    run: str
    event: Event


class Leases:
    """What one process holds. ``id`` is its own, made of chance; ``now`` gives seconds since the epoch."""

    def __init__(self, database: Database, *, id: str, process: Process, now: Callable[[], float]) -> None:
        self.id = id
        self._database = database
        self._process = process
        self._now = now
        self._history = History(database, now=now, here=process)

    def register(self) -> None:
        """Say that this process lives, and forget those that do not."""
        me = Holder(id=self.id, beat=self._now(), **msgspec.structs.asdict(self._process))
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
        """Say that this process is done: all that it held is free."""
        with self._database.transaction():
            self._database.execute("DELETE FROM holders WHERE id = ?", (self.id,))

    def beat(self) -> None:
        """Say that this process still lives.

        Raises:
            LeaseLost: another process took it for dead.
        """
        with self._database.transaction():
            beat = self._database.execute("UPDATE holders SET beat = ? WHERE id = ?", (self._now(), self.id))
            if not beat.rowcount:
                raise LeaseLost(FENCED)

    def take(self, runs: Sequence[str]) -> tuple[Mapping[str, RunTail], tuple[Held, ...]]:
        """Take runs and their children that nobody holds, or a dead process; give them, and those that others hold.

        Raises:
            UsageError: a run is not in the journal.
            LeaseLost: another process took this one for dead.
        """
        with self._database.transaction():
            living = {holder.id: holder for holder in self._history.holders()}
            if self._database.value("SELECT 1 FROM holders WHERE id = ?", (self.id,)) is None:
                raise LeaseLost(FENCED)
            rows = msgspec.json.decode(self._database.value(_WANTED, (json_list(runs),)))
            found = {run: (holder, RunTail(no, last)) for run, holder, no, last in rows}
            for run in runs:
                if run not in found:
                    raise UsageError(f"there is no run {run!r} in {self._database.path}")
            held = {run: living[holder] for run, (holder, _) in found.items() if holder in living}
            others = tuple(Held(run=run, holder=holder) for run, holder in held.items() if holder.id != self.id)
            taken = {run: head for run, (_, head) in found.items() if run not in held}
            dead = {holder for holder, _ in found.values()} - living.keys() - {None, self.id}
            self._database.execute(
                "DELETE FROM holders WHERE id IN (SELECT value FROM json_each(?))", (json_list(dead),)
            )
            self._database.execute(
                "UPDATE runs SET holder = ? WHERE no IN (SELECT value FROM json_each(?))",
                (self.id, json_list(head.no for head in taken.values())),
            )
        return taken, others

    def release(self, run: str) -> bool:
        """Let go of a run and its children; False, and they are kept, if something waits for them in the inbox.

        Raises:
            LeaseLost: they are not held by this process.
        """
        with self._database.transaction():
            if self._database.value("SELECT holder FROM runs WHERE id = ?", (run,)) != self.id:
                raise LeaseLost(f"run {run} cannot go on here: another process has gone on with it")
            change = self._database.execute(
                f"UPDATE runs SET holder = NULL WHERE {_FAMILY.format('id')} AND holder = ?2"  # noqa: S608
                f" AND NOT EXISTS (SELECT 1 FROM inbox WHERE {_FAMILY.format('inbox.run')})",
                (run, self.id),
            )
            return change.rowcount > 0

    def discard(self, run: str) -> None:
        """Forget what lies in the inbox for a run and its children."""
        with self._database.transaction():
            self._database.execute(f"DELETE FROM inbox WHERE {_FAMILY.format('run')}", (run,))  # noqa: S608

    def post(self, run: str, body: str) -> None:
        """Leave an event for whichever process drives a run, now or later.

        Raises:
            UsageError: the run is not in the journal, or has ended.
        """
        with self._database.transaction():
            status = self._database.value("SELECT status FROM runs WHERE id = ?", (run,))
            if status is None:
                raise UsageError(f"there is no run {run!r} in {self._database.path}")
            if status in ENDED:
                raise UsageError(f"run {run} has ended: {status}")
            self._database.execute("INSERT INTO inbox (run, at, body) VALUES (?, ?, ?)", (run, self._now(), body))

    def posts(self) -> list[Signals]:
        """Give what others have left for the runs that this process holds, oldest first; it stays there."""
        rows = self._database.rows(
            "SELECT inbox.no, run, body FROM inbox JOIN runs ON runs.id = inbox.run WHERE holder = ? ORDER BY inbox.no",
            (self.id,),
        )
        return [Signals(no, run, decode(body, None)) for no, run, body in rows]
