"""Appends events to the journal: all queued entries in one transaction, in as few statements as possible.

One statement for many rows is not only faster. Each step of SQLite releases Python's GIL, and a busy event loop returns
it only after 5 ms, so a thousand statements of one row each would take seconds; five statements of 200 rows take 17 ms.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Final, NamedTuple, TypeVar

import msgspec

from flowrun.journal.bodies import split
from flowrun.journal.database import Database, json_list
from flowrun.journal.rows import ENDED, Fenced, NewRun

T = TypeVar("T")

_ROWS: Final = 200
"""Rows per statement."""

MARK: Final = -1
"""The ``seq`` of an entry without an event: it only changes the status of its run."""

_OPEN_CHILDREN: Final = """
    SELECT runs.no, runs.id FROM json_each(?) AS ended
    JOIN runs ON runs.id > ended.value || '.' AND runs.id < ended.value || '/'
    WHERE runs.status NOT IN (SELECT value FROM json_each(?))
"""

FENCED: Final = "another process took this one for dead, because its heartbeat was late, and may drive its runs now"

_CHECK: Final = """
    SELECT EXISTS (SELECT 1 FROM holders WHERE id = ?), (SELECT coalesce(max(no), 0) FROM events), (
        SELECT json_group_array(CAST(key AS INTEGER)) FROM json_each(?)
        LEFT JOIN heads ON heads.run = CAST(key AS INTEGER) WHERE heads.events IS NOT value)
"""
"""Whether this process counts as alive, the last event's row id, and the runs whose next ``seq`` differs."""


class Entry(NamedTuple):
    """An event that is queued for the journal. ``status`` is set if it changed, ``new`` with a run's first event.

    ``answer`` means that the event may have come through the inbox, from which it is then deleted.
    """

    run: str
    seq: int
    at: float
    state: str
    body: str
    status: str | None = None
    new: NewRun | None = None
    answer: bool = False


class RunTail(NamedTuple):
    """The row ids of a run and of its last event (0 if there is none)."""

    row_id: int
    last: int


class Appender:
    """The writer of events for the process whose row in ``holders`` is ``holder``."""

    def __init__(self, database: Database, *, holder: str) -> None:
        self._database = database
        self._holder = holder
        self._tails: dict[str, RunTail] = {}
        self._specs: dict[str, str] = {}
        self._lost: dict[str, str] = {}

    def store_spec(self, digest: str, body: str) -> None:
        """Remember a spec's canonical form, to write it with the first run of it."""
        self._specs[digest] = body

    def adopt(self, runs: Mapping[str, RunTail]) -> None:
        """Add runs that other processes began and that this process now holds."""
        for run in runs:
            self._lost.pop(run, None)
        self._tails |= runs

    def write(self, entries: Sequence[Entry]) -> Mapping[str, str]:
        """Commit entries; return the reason for each run that was not written, because another process drives it.

        Raises:
            Fenced: another process declared this one dead; nothing is written.
            StoreError: the disk is full or broken; nothing is written.
        """
        with self._database.transaction():
            firsts = self._first_seqs(entries)
            [(held, last, wrong)] = self._database.rows(_CHECK, (self._holder, msgspec.json.encode(firsts).decode()))
            if not held:
                raise Fenced(FENCED)
            for row_id in msgspec.json.decode(wrong):
                run = next(run for run, tail in self._tails.items() if tail.row_id == row_id)
                self._lost[run] = _not_next(firsts[row_id])
            self._write_runs([entry for entry in entries if entry.new is not None])
            written = [entry for entry in entries if entry.run not in self._lost] if self._lost else entries
            self._write_events(written, last)
            self._write_statuses(written)
        return {entry.run: self._lost[entry.run] for entry in entries if entry.run in self._lost} if self._lost else {}

    def _first_seqs(self, entries: Sequence[Entry]) -> Mapping[int, int]:
        """Return the ``seq`` of each run's first entry by the run's row id; a run whose entries have a gap is lost."""
        nexts: dict[str, int] = {}
        firsts: dict[int, int] = {}
        for entry in entries:
            run, seq = entry.run, entry.seq
            if run not in nexts and entry.new is None:
                if run in self._lost or (tail := self._tail(run)) is None or seq == MARK:
                    continue
                firsts[tail.row_id] = seq
            if seq == MARK:
                continue
            if nexts.get(run, seq) != seq:
                self._lost[run] = _not_next(seq)
            nexts[run] = seq + 1
        return firsts

    def _write_runs(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        new = {entry.run: entry for entry in entries}
        known = "SELECT id FROM runs WHERE id IN (SELECT value FROM json_each(?))"
        for (run,) in self._database.rows(known, (json_list(new),)):
            self._lost[run] = "a run with this id is in the journal already"
            del new[run]
        last: int = self._database.value("SELECT seq FROM sqlite_sequence WHERE name = 'runs'") or 0
        self._tails |= {run: RunTail(row_id, 0) for row_id, run in enumerate(new, last + 1)}
        columns = "INTO runs (no, id, parent, flow, spec, batch, status, created, holder)"
        self._insert(columns, [self._run_row(entry) for entry in new.values()])
        digests = {entry.new.spec: entry.at for entry in new.values() if entry.new is not None}
        specs = [(digest, self._specs[digest], at) for digest, at in digests.items() if digest in self._specs]
        self._insert("OR IGNORE INTO specs (digest, body, created)", specs)

    def _run_row(self, entry: Entry) -> tuple[object, ...]:
        run, new = entry.run, entry.new
        assert new is not None
        status = entry.status or "running"
        return (self._tails[run].row_id, run, new.parent, new.flow, new.spec, new.batch, status, entry.at, self._holder)

    def _tail(self, run: str) -> RunTail | None:
        """Return a run's tail; a run that is not in the journal any more is lost."""
        if run not in self._tails:
            find = "SELECT run, last FROM heads WHERE run = (SELECT no FROM runs WHERE id = ?)"
            rows = self._database.rows(find, (run,))
            if not rows:
                self._lost[run] = "it is not in the journal: was it pruned?"
                return None
            self._tails[run] = RunTail(*rows[0])
        return self._tails[run]

    def _write_events(self, entries: Sequence[Entry], last: int) -> None:
        """Write events after the one with the row id ``last``."""
        large: dict[str, str] = {}
        uses: dict[tuple[object, ...], None] = {}
        rows: list[tuple[object, ...]] = []
        tails: dict[int, tuple[object, ...]] = {}
        events = [entry for entry in entries if entry.seq != MARK]
        for event_id, (run, seq, at, state, text, *_) in enumerate(events, last + 1):
            row_id, before = self._tails[run]
            body = split(text)
            rows.append((event_id, row_id, seq, before, at, state, len(body.large), body.text))
            tails[row_id] = (row_id, seq + 1, event_id)
            self._tails[run] = RunTail(row_id, event_id)
            if body.large:
                large |= body.large
                uses |= dict.fromkeys((row_id, digest) for digest in body.large)
        self._insert("INTO events (no, run, seq, before, at, state, large, body)", rows)
        self._insert("OR REPLACE INTO heads (run, events, last)", list(tails.values()))
        self._insert("OR IGNORE INTO large_values (digest, body)", list(large.items()))
        self._insert("OR IGNORE INTO large_uses (run, digest)", list(uses))

    def _write_statuses(self, entries: Sequence[Entry]) -> None:
        changed = {
            entry.run: entry
            for entry in entries
            if entry.status is not None and (entry.new is None or entry.status in ENDED)
        }
        for status in {entry.status for entry in changed.values()}:
            alike = [entry for entry in changed.values() if entry.status == status]
            row_ids = json_list(self._tails[entry.run].row_id for entry in alike)
            if status in ENDED:
                at = max(entry.at for entry in alike)
                self._database.execute(
                    "UPDATE runs SET status = ?, ended = ?, holder = NULL WHERE no IN (SELECT value FROM json_each(?))",
                    (status, at, row_ids),
                )
                self._end_children([entry.run for entry in alike], at)
                self._drop_ended([entry.run for entry in alike])
            else:
                self._database.execute(
                    "UPDATE runs SET status = ? WHERE no IN (SELECT value FROM json_each(?))", (status, row_ids)
                )
        for entry in entries:
            if entry.answer:
                self._database.execute("DELETE FROM inbox WHERE run = ? AND body = ?", (entry.run, entry.body))

    def _end_children(self, runs: Sequence[str], at: float) -> None:
        """Cancel the unfinished children of runs that have ended: no process resumes them any more."""
        found = self._database.rows(_OPEN_CHILDREN, (json_list(runs), json_list(ENDED)))
        if found:
            row_ids = json_list(row_id for row_id, _ in found)
            self._database.execute(
                "UPDATE runs SET status = 'cancelled', ended = ?, holder = NULL"
                " WHERE no IN (SELECT value FROM json_each(?))",
                (at, row_ids),
            )
            for _, run in found:
                self._tails.pop(run, None)
            ids = json_list(run for _, run in found)
            self._database.execute("DELETE FROM inbox WHERE run IN (SELECT value FROM json_each(?))", (ids,))

    def _drop_ended(self, runs: Sequence[str]) -> None:
        """Delete the inbox and the tails of runs that have ended."""
        self._database.execute("DELETE FROM inbox WHERE run IN (SELECT value FROM json_each(?))", (json_list(runs),))
        for run in runs:
            del self._tails[run]

    def _insert(self, into: str, rows: Sequence[tuple[object, ...]]) -> None:
        for chunk in _chunks(rows):
            values = [value for row in chunk for value in row]
            self._database.execute(_insert_statement(into, len(chunk), len(chunk[0])), values)


def _not_next(seq: int) -> str:
    return f"its event {seq} is not the next: another process has resumed it"


@cache
def _insert_statement(into: str, rows: int, columns: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"INSERT {into} VALUES {', '.join([row] * rows)}"  # noqa: S608 - table and column names of this module


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _ROWS):
        yield items[start : start + _ROWS]
