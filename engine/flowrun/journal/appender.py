"""Writing events: all that have gathered, in one transaction, in as few statements as can be.

A statement for many rows is not only quicker. Each step of SQLite lets go of Python's lock, and a busy event loop gives
it back only 5 ms later, so a thousand statements of a row each would take seconds; five of 200 rows take 17 ms.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Final, NamedTuple, TypeVar

import msgspec

from flowrun.journal.bodies import split
from flowrun.journal.database import Database, json_list
from flowrun.journal.rows import ENDED, LeaseLost, NewRun

T = TypeVar("T")

_ROWS: Final = 200
"""Rows a statement."""

MARK: Final = -1
"""The place of an entry that has no event, only a status."""

_OPEN_CHILDREN: Final = """
    SELECT runs.no, runs.id FROM json_each(?) AS ended
    JOIN runs ON runs.id > ended.value || '.' AND runs.id < ended.value || '/'
    WHERE runs.status NOT IN (SELECT value FROM json_each(?))
"""

FENCED: Final = "another process took this one for dead, because its heartbeat was late, and may drive its runs now"

_LOOK: Final = """
    SELECT EXISTS (SELECT 1 FROM holders WHERE id = ?), (SELECT coalesce(max(no), 0) FROM events), (
        SELECT json_group_array(CAST(key AS INTEGER)) FROM json_each(?)
        LEFT JOIN heads ON heads.run = CAST(key AS INTEGER) WHERE heads.events IS NOT value)
"""
"""Whether this process counts as alive, the last event's number, and the runs whose next event is not the given one."""


class Entry(NamedTuple):
    """An event on its way to the journal. ``status`` is set where it changes, ``new`` with a run's first event.

    ``answer`` tells that the event may have come through the inbox, which must then forget it.
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
    """A run's number, and that of its last event (0 if there is none)."""

    no: int
    last: int


class Appender:
    """Appends events for the process whose row in ``holders`` is ``holder``."""

    def __init__(self, database: Database, *, holder: str) -> None:
        self._database = database
        self._holder = holder
        self._heads: dict[str, RunTail] = {}
        self._specs: dict[str, str] = {}
        self._lost: dict[str, str] = {}

    def keep_spec(self, digest: str, body: str) -> None:
        """Have a spec written with the first run that is of it."""
        self._specs[digest] = body

    def took(self, runs: Mapping[str, RunTail]) -> None:
        """Learn that this process holds runs that others began."""
        for run in runs:
            self._lost.pop(run, None)
        self._heads |= runs

    def write(self, entries: Sequence[Entry]) -> Mapping[str, str]:
        """Commit entries, and say why for each run that could not be written: another process drives it.

        Raises:
            LeaseLost: another process took this one for dead; nothing is written.
            StoreError: the disk is full or broken; nothing is written.
        """
        with self._database.transaction():
            firsts = self._firsts(entries)
            [(held, last, wrong)] = self._database.rows(_LOOK, (self._holder, msgspec.json.encode(firsts).decode()))
            if not held:
                raise LeaseLost(FENCED)
            for no in msgspec.json.decode(wrong):
                run = next(run for run, head in self._heads.items() if head.no == no)
                self._lost[run] = _not_next(firsts[no])
            self._write_runs([entry for entry in entries if entry.new is not None])
            kept = [entry for entry in entries if entry.run not in self._lost] if self._lost else entries
            self._write_events(kept, last)
            self._write_statuses(kept)
        return {entry.run: self._lost[entry.run] for entry in entries if entry.run in self._lost} if self._lost else {}

    def _firsts(self, entries: Sequence[Entry]) -> Mapping[int, int]:
        """Give the place of each run's first event here, by the run's number, and see that the others follow it."""
        nexts: dict[str, int] = {}
        firsts: dict[int, int] = {}
        for entry in entries:
            run, seq = entry.run, entry.seq
            if run not in nexts and entry.new is None:
                if run in self._lost or (head := self._head(run)) is None or seq == MARK:
                    continue
                firsts[head.no] = seq
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
        self._heads |= {run: RunTail(no, 0) for no, run in enumerate(new, last + 1)}
        columns = "INTO runs (no, id, parent, flow, spec, batch, status, created, holder)"
        self._insert(columns, [self._run_row(entry) for entry in new.values()])
        digests = {entry.new.spec: entry.at for entry in new.values() if entry.new is not None}
        specs = [(digest, self._specs[digest], at) for digest, at in digests.items() if digest in self._specs]
        self._insert("OR IGNORE INTO specs (digest, body, created)", specs)

    def _run_row(self, entry: Entry) -> tuple[object, ...]:
        run, new = entry.run, entry.new
        assert new is not None
        status = entry.status or "running"
        return (self._heads[run].no, run, new.parent, new.flow, new.spec, new.batch, status, entry.at, self._holder)

    def _head(self, run: str) -> RunTail | None:
        """Find a run; one that is not there any more is lost."""
        if run not in self._heads:
            find = "SELECT run, last FROM heads WHERE run = (SELECT no FROM runs WHERE id = ?)"
            rows = self._database.rows(find, (run,))
            if not rows:
                self._lost[run] = "it is not in the journal: was it pruned?"
                return None
            self._heads[run] = RunTail(*rows[0])
        return self._heads[run]

    def _write_events(self, entries: Sequence[Entry], last: int) -> None:
        """Write events behind the one with the number ``last``."""
        large: dict[str, str] = {}
        uses: dict[tuple[object, ...], None] = {}
        rows: list[tuple[object, ...]] = []
        heads: dict[int, tuple[object, ...]] = {}
        events = [entry for entry in entries if entry.seq != MARK]
        for number, (run, seq, at, state, text, *_) in enumerate(events, last + 1):
            no, before = self._heads[run]
            body = split(text)
            rows.append((number, no, seq, before, at, state, len(body.large), body.text))
            heads[no] = (no, seq + 1, number)
            self._heads[run] = RunTail(no, number)
            if body.large:
                large |= body.large
                uses |= dict.fromkeys((no, digest) for digest in body.large)
        self._insert("INTO events (no, run, seq, before, at, state, large, body)", rows)
        self._insert("OR REPLACE INTO heads (run, events, last)", list(heads.values()))
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
            numbers = json_list(self._heads[entry.run].no for entry in alike)
            if status in ENDED:
                at = max(entry.at for entry in alike)
                self._database.execute(
                    "UPDATE runs SET status = ?, ended = ?, holder = NULL WHERE no IN (SELECT value FROM json_each(?))",
                    (status, at, numbers),
                )
                self._end_children([entry.run for entry in alike], at)
                self._forget([entry.run for entry in alike])
            else:
                self._database.execute(
                    "UPDATE runs SET status = ? WHERE no IN (SELECT value FROM json_each(?))", (status, numbers)
                )
        for entry in entries:
            if entry.answer:
                self._database.execute("DELETE FROM inbox WHERE run = ? AND body = ?", (entry.run, entry.body))

    def _end_children(self, runs: Sequence[str], at: float) -> None:
        """End what runs that have ended left under way or waiting: nothing goes on with it any more."""
        found = self._database.rows(_OPEN_CHILDREN, (json_list(runs), json_list(ENDED)))
        if found:
            numbers = json_list(no for no, _ in found)
            self._database.execute(
                "UPDATE runs SET status = 'cancelled', ended = ?, holder = NULL"
                " WHERE no IN (SELECT value FROM json_each(?))",
                (at, numbers),
            )
            for _, run in found:
                self._heads.pop(run, None)
            names = json_list(run for _, run in found)
            self._database.execute("DELETE FROM inbox WHERE run IN (SELECT value FROM json_each(?))", (names,))

    def _forget(self, runs: Sequence[str]) -> None:
        """Drop what only runs that go on need."""
        self._database.execute("DELETE FROM inbox WHERE run IN (SELECT value FROM json_each(?))", (json_list(runs),))
        for run in runs:
            del self._heads[run]

    def _insert(self, into: str, rows: Sequence[tuple[object, ...]]) -> None:
        for part in _parts(rows):
            values = [value for row in part for value in row]
            self._database.execute(_insertion(into, len(part), len(part[0])), values)


def _not_next(seq: int) -> str:
    return f"its event {seq} is not the next: another process has gone on with it"


@cache
def _insertion(into: str, rows: int, columns: int) -> str:
    row = f"({', '.join('?' * columns)})"
    return f"INSERT {into} VALUES {', '.join([row] * rows)}"  # noqa: S608 - names that are written above


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), _ROWS):
        yield items[start : start + _ROWS]
