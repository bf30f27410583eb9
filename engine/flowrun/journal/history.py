"""Reads a journal: runs, their events, specs. Nothing here writes, and no reader blocks a writer."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from flowrun.core.events import Event, Recorded, Started
from flowrun.errors import StoreError, UsageError
from flowrun.journal.bodies import decode
from flowrun.journal.database import Database, json_list
from flowrun.journal.liveness import HOLDERS, Process, living, this_process
from flowrun.journal.rows import STATUSES, Holder, RunDamaged, RunRow
from flowrun.journal.search import (
    PAGE,
    SEARCH_SECONDS,
    RunPage,
    RunQuery,
    count_open,
    find_row_ids,
    first_batches,
    recent_flows,
)

_PAGE: Final = 500
"""Rows per query: a long read would keep other processes from emptying the -wal."""

_RUNS: Final = f"""
    SELECT runs.no, runs.id, runs.flow, runs.spec, runs.status, coalesce(last.state, ''), coalesce(heads.events, 0),
        runs.created, coalesce(last.at, runs.created), runs.ended, runs.parent, runs.batch,
        last.run IS NOT runs.no OR last.seq + 1 <> heads.events OR runs.status NOT IN {STATUSES}, runs.holder
    FROM runs LEFT JOIN heads ON heads.run = runs.no LEFT JOIN events AS last ON last.no = heads.last
"""  # noqa: S608
"""The row id of a run, and the fields of ``RunRow`` in their order."""
_EVENTS: Final = """
    WITH RECURSIVE chain (no, run, seq, before, at, state, large, body) AS (
        SELECT no, run, seq, before, at, state, large, body FROM events
        WHERE no = (SELECT last FROM heads WHERE run = (SELECT no FROM runs WHERE id = ?))
        UNION ALL
        SELECT events.no, events.run, events.seq, events.before, events.at, events.state, events.large, events.body
        FROM chain JOIN events ON events.no = chain.before AND events.run = chain.run AND events.no < chain.no)
    SELECT seq, at, state, large, body FROM chain ORDER BY seq
"""
_HEAD: Final = "SELECT heads.events FROM runs LEFT JOIN heads ON heads.run = runs.no WHERE runs.id = ?"
_BY_PREFIX: Final = "WHERE {} runs.id >= ? AND runs.id < ? ORDER BY runs.id LIMIT ?"
_FAMILY_VERSION: Final = """
    WITH family AS (
        SELECT runs.status, runs.holder IN (SELECT value FROM json_each(:living)) AS held, heads.events
        FROM runs LEFT JOIN heads ON heads.run = runs.no
        WHERE runs.id = :run OR runs.id >= :run || '.' AND runs.id < :run || '/')
    SELECT status, held, count(*), sum(events) FROM family GROUP BY status, held
    UNION ALL SELECT 'inbox', 0, count(*), coalesce(max(no), 0) FROM inbox
    WHERE run = :run OR run >= :run || '.' AND run < :run || '/'
"""
"""The ids of children begin with that of their parent and a dot, which is before a slash."""
_JOURNAL_VERSION: Final = """
    SELECT 'events', max(no), 0 FROM events
    UNION ALL SELECT 'runs', max(no), 0 FROM runs
    UNION ALL SELECT status, holder IN (SELECT value FROM json_each(?)), count(*) FROM runs
    WHERE status IN ('running', 'waiting', 'sleeping', 'needs_attention') AND parent IS NULL GROUP BY 1, 2
"""
_SHOWN: Final = 5
"""Runs that the error for an ambiguous prefix names."""


class History:
    """The contents of a journal. ``now`` returns seconds since the epoch."""

    def __init__(self, database: Database, *, now: Callable[[], float], here: Process | None = None) -> None:
        self._database = database
        self._now = now
        self._here = this_process() if here is None else here

    @property
    def path(self) -> Path:
        """Return the path of the journal."""
        return self._database.path

    def events(self, run: str) -> list[Recorded]:
        """Return a run's events, oldest first; an empty list if there is no such run.

        Raises:
            RunDamaged: an event is missing, or cannot be read.
        """
        heads = self._database.rows(_HEAD, (run,))
        if not heads:
            return []
        rows = self._database.rows(_EVENTS, (run,))
        [(count,)] = heads
        missing = next((index for index, row in enumerate(rows) if row[0] != index), len(rows))
        if count is None or missing < count:
            what = "its last event is" if count is None else f"event {missing + 1} of {count} is"
            raise RunDamaged(f"run {run} is damaged: {what} not in the journal {self._database.path}")
        try:
            find = self._large_values(run) if any(row[3] for row in rows) else None
            recorded = [
                Recorded(seq=seq, at=at, state=state, event=decode(body, find if large else None))
                for seq, at, state, large, body in rows
            ]
        except StoreError as exc:
            raise RunDamaged(f"run {run} is damaged: {exc}") from exc
        if not isinstance(recorded[0].event, Started):
            raise RunDamaged(f"run {run} is damaged: its first event is not its start")
        return recorded

    def damages(self, load_flow: Callable[[RunRow], object] | None = None) -> Iterator[tuple[RunRow, str]]:
        """Yield each run that cannot be read, with the reason.

        Args:
            load_flow: reads the stored flow of a run; raises a ``StoreError`` if it cannot.
        """
        for row in self.runs(children=True):
            try:
                if row.status not in STATUSES:
                    raise RunDamaged(f"run {row.id} is damaged: there is no status {row.status!r}")
                if row.parent is not None and not self._select("WHERE runs.id = ?", (row.parent,)):
                    raise RunDamaged(f"run {row.id} is damaged: its parent {row.parent} is not in the journal")
                self.top_run(row.id)
                self.events(row.id)
                self.inbox(row.id)
                if load_flow is None:
                    self.spec(row.spec)
                else:
                    load_flow(row)
            except StoreError as exc:
                yield row, str(exc)

    def inbox(self, run: str) -> list[Event]:
        """Return the answers and cancellations that were accepted for a run and that it has not read, oldest first.

        Raises:
            RunDamaged: one cannot be read.
        """
        rows = self._database.rows("SELECT body FROM inbox WHERE run = ? ORDER BY no", (run,))
        try:
            return [decode(body, None) for (body,) in rows]
        except StoreError as exc:
            raise RunDamaged(f"run {run} is damaged: in its inbox, {exc}") from exc

    def inbox_counts(self) -> dict[str, int]:
        """Return how many answers and cancellations no run has read yet, by the ids of the top runs."""
        counts: dict[str, int] = {}
        for run, count in self._database.rows("SELECT run, count(*) FROM inbox GROUP BY run", ()):
            top = run.partition(".")[0]
            counts[top] = counts.get(top, 0) + count
        return counts

    def _large_values(self, run: str) -> Callable[[str], str]:
        rows = self._database.rows(
            "SELECT digest, body FROM large_values WHERE digest IN"
            " (SELECT digest FROM large_uses WHERE run = (SELECT no FROM runs WHERE id = ?))",
            (run,),
        )
        bodies: dict[str, str] = dict(rows)

        def find(digest: str) -> str:
            if digest not in bodies:
                raise StoreError(f"run {run} refers to a large value {digest} that the journal does not hold")
            return bodies[digest]

        return find

    def run(self, prefix: str) -> RunRow:
        """Return the run with the id ``prefix``, or else the only one whose id begins with it.

        A child run is found by a prefix only if no other run matches.

        Raises:
            UsageError: no run matches, or more than one.
        """
        if not prefix:
            raise UsageError("name a run by its id, or the beginning of it")
        rows = self._select("WHERE runs.id = ?", (prefix,))
        if not rows:
            last = prefix + "\U0010ffff"
            rows = self._select(_BY_PREFIX.format("runs.parent IS NULL AND"), (prefix, last, _SHOWN))
            rows = rows or self._select(_BY_PREFIX.format(""), (prefix, last, _SHOWN))
        match rows:
            case []:
                raise UsageError(f"there is no run {prefix!r} in {self._database.path}; flowrun runs lists them")
            case [(_, row)]:
                return row
            case _:
                names = ", ".join(row.id for _, row in rows)
                raise UsageError(f"{prefix!r} begins the names of more than one run: {names}; write more of the name")

    def top_run(self, prefix: str) -> RunRow:
        """Return the run that ``run`` finds; for a child run, the run at the top of its parents."""
        row = self.run(prefix)
        seen = {row.id}
        while row.parent is not None:
            if row.parent in seen:
                raise RunDamaged(f"run {row.id} is damaged: it is a parent of itself")
            seen.add(row.parent)
            row = self.run(row.parent)
        return row

    def descendants(self, run: str) -> list[str]:
        """Return the ids of a run's children, and of their children."""
        children = [row.id for row in self.runs(parent=run)]
        return [*children, *(run_id for child in children for run_id in self.descendants(child))]

    def runs(
        self,
        *,
        status: str | None = None,
        flow: str | None = None,
        batch: str | None = None,
        parent: str | None = None,
        children: bool = False,
        limit: int | None = None,
    ) -> Iterator[RunRow]:
        """Yield runs, newest first.

        Args:
            status: as stored, or ``interrupted``: running, but without a living process, or ``damaged``.
            children: include child runs; a ``parent`` includes its own.
        """
        wanted = {"runs.flow": flow, "runs.batch": batch, "runs.parent": parent}
        wanted["runs.status"] = {"interrupted": "running", "damaged": None}.get(status or "", status)
        filters = {f"{column} = ?": value for column, value in wanted.items() if value is not None}
        if not children and parent is None:
            filters["runs.parent IS NULL AND 1 = ?"] = 1  # type: ignore[assignment]
        where = " AND ".join(["runs.no < ?", *filters])
        before, remaining = 2**62, 2**62 if limit is None else limit
        while remaining > 0:
            rows = self._select(f"WHERE {where} ORDER BY runs.no DESC LIMIT ?", (before, *filters.values(), _PAGE))
            for _, row in rows:
                if status not in ("interrupted", "damaged") or getattr(row, status):
                    yield row
                    remaining -= 1
                    if not remaining:
                        return
            if len(rows) < _PAGE:
                return
            before = rows[-1][0]

    def search(self, query: RunQuery, *, seconds: float = SEARCH_SECONDS) -> RunPage:
        """Return a page of the top runs that a query finds, newest first, in bounded time.

        Args:
            seconds: after which the search ends; the page then says where it goes on.
        """
        living = [holder.id for holder in self.holders()]
        found, older = find_row_ids(self._database, query, living, seconds=seconds, clock=time.monotonic)
        rows = self._select(
            "WHERE runs.no IN (SELECT value FROM json_each(?)) ORDER BY runs.no DESC", (json_list(found),)
        )
        complete = older is None or len(found) == PAGE
        return RunPage(rows=tuple(row for _, row in rows), older=older, complete=complete)

    def open_counts(self) -> dict[str, int]:
        """Return the number of runs of each status in which they have not ended, up to ``search.COUNTED`` each."""
        return count_open(self._database, [holder.id for holder in self.holders()])

    def filters(self) -> tuple[list[str], list[str]]:
        """Return names of flows, of the newest runs, and labels of batches, for lists of filters."""
        return recent_flows(self._database), first_batches(self._database)

    def data_version(self) -> int:
        """Return a number that changes when another connection has written (``PRAGMA data_version``)."""
        version: int = self._database.value("PRAGMA data_version")
        return version

    def version_of(self, run: str | None) -> str:
        """Return a text that changes whenever a run, its children or its inbox does; None: any run of the journal."""
        living = json_list(holder.id for holder in self.holders())
        if run is None:
            return json_list(self._database.rows(_JOURNAL_VERSION, (living,)))
        return json_list(self._database.rows(_FAMILY_VERSION, {"living": living, "run": run}))

    def _select(self, rest: str, values: tuple[object, ...]) -> list[tuple[int, RunRow]]:
        holders = {holder.id: holder for holder in self.holders()}
        return [
            (row_id, RunRow(**dict(zip(RunRow.__struct_fields__, (*row, bool(bad), holders.get(holder)), strict=True))))
            for row_id, *row, bad, holder in self._database.rows(_RUNS + rest, values)
        ]

    def holders(self) -> list[Holder]:
        """Return the living processes that hold runs."""
        return living(self._database.rows(HOLDERS), here=self._here, now=self._now())

    def interrupt(self) -> None:
        """End what another thread reads now by an error there."""
        self._database.interrupt()

    def close(self) -> None:
        """Close the file. May be called twice."""
        self._database.close()

    def spec(self, digest: str) -> str:
        """Return a spec's canonical form, as JSON, by its digest.

        Raises:
            StoreError: the journal does not hold it.
        """
        rows = self._database.rows("SELECT body FROM specs WHERE digest = ?", (digest,))
        if not rows:
            raise StoreError(f"the journal {self._database.path} does not hold the spec {digest}")
        return str(rows[0][0])


def open_history(path: Path) -> History:
    """Open a journal for reading.

    Raises:
        StoreError: the file does not exist, or cannot be read.
    """
    return History(Database(path, create=False, read_only=True), now=time.time)
