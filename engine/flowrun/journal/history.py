"""Reading the journal: runs, their events, specs. Nothing here writes, and no reader holds a writer up."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from flowrun.core.events import Recorded
from flowrun.errors import StoreError, UsageError
from flowrun.journal.bodies import decode
from flowrun.journal.database import Database
from flowrun.journal.liveness import HOLDERS, Process, living, this_process
from flowrun.journal.rows import Holder, RunRow

_PAGE: Final = 500
"""Rows read at once, so that a long list keeps nobody from cleaning up the -wal."""

_RUNS: Final = """
    SELECT runs.no, runs.id, runs.flow, runs.spec, runs.status, last.state, heads.events, runs.created, last.at,
        runs.ended, runs.parent, runs.batch, runs.holder
    FROM runs JOIN heads ON heads.run = runs.no JOIN events AS last ON last.no = heads.last
"""
_EVENTS: Final = """
    WITH RECURSIVE chain (no, seq, before, at, state, large, body) AS (
        SELECT no, seq, before, at, state, large, body FROM events
        WHERE no = (SELECT last FROM heads WHERE run = (SELECT no FROM runs WHERE id = ?))
        UNION ALL
        SELECT events.no, events.seq, events.before, events.at, events.state, events.large, events.body
        FROM chain JOIN events ON events.no = chain.before)
    SELECT seq, at, state, large, body FROM chain ORDER BY seq
"""
_BEGINNING: Final = "WHERE {} runs.id >= ? AND runs.id < ? ORDER BY runs.id LIMIT ?"
_SHOWN: Final = 5
"""So many runs are named to one who gave too short a prefix."""


class History:
    """What a journal holds. ``now`` is the time in seconds since the epoch."""

    def __init__(self, database: Database, *, now: Callable[[], float], here: Process | None = None) -> None:
        self._database = database
        self._now = now
        self._here = this_process() if here is None else here

    def events(self, run: str) -> list[Recorded]:
        """Give a run's events, oldest first; none if there is no such run."""
        with self._database.errors():
            rows = self._database.rows(_EVENTS, (run,))
            find = self._large_values(run) if any(row[3] for row in rows) else None
        return [
            Recorded(seq=seq, at=at, state=state, event=decode(body, find if large else None))
            for seq, at, state, large, body in rows
        ]

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
        """Give the run whose id is, or alone begins with, ``prefix``.

        Raises:
            UsageError: there is none, or more than one.
        """
        if not prefix:
            raise UsageError("name a run by its id, or the beginning of it")
        rows = self._select("WHERE runs.id = ?", (prefix,))
        if not rows:
            last = prefix + "\U0010ffff"
            rows = self._select(_BEGINNING.format("runs.parent IS NULL AND"), (prefix, last, _SHOWN))
            rows = rows or self._select(_BEGINNING.format(""), (prefix, last, _SHOWN))
        match rows:
            case []:
                raise UsageError(f"there is no run {prefix!r} in {self._database.path}; flowrun runs lists them")
            case [(_, row)]:
                return row
            case _:
                names = ", ".join(row.id for _, row in rows)
                raise UsageError(f"{prefix!r} begins the names of more than one run: {names}; write more of the name")

    def top_run(self, prefix: str) -> RunRow:
        """Return the run that ``run`` finds, or the one at the top that started it as a child."""
        row = self.run(prefix)
        while row.parent is not None:
            row = self.run(row.parent)
        return row

    def descendants(self, run: str) -> list[str]:
        """Return the ids of a run's children, and of theirs."""
        found = [row.id for row in self.runs(parent=run)]
        return [*found, *(below for child in found for below in self.descendants(child))]

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
        """Give runs, the newest first. Children are left out unless ``children``, or their ``parent``, is asked for.

        ``interrupted`` stands for the runs that should go on and whose process is gone.
        """
        wanted = {"runs.flow": flow, "runs.batch": batch, "runs.parent": parent}
        wanted["runs.status"] = "running" if status == "interrupted" else status
        filters = {f"{column} = ?": value for column, value in wanted.items() if value is not None}
        if not children and parent is None:
            filters["runs.parent IS NULL AND 1 = ?"] = 1  # type: ignore[assignment]
        where = " AND ".join(["runs.no < ?", *filters])
        below, left = 2**62, 2**62 if limit is None else limit
        while left > 0:
            rows = self._select(f"WHERE {where} ORDER BY runs.no DESC LIMIT ?", (below, *filters.values(), _PAGE))
            for _, row in rows:
                if status != "interrupted" or row.interrupted:
                    yield row
                    left -= 1
                    if not left:
                        return
            if len(rows) < _PAGE:
                return
            below = rows[-1][0]

    def _select(self, rest: str, values: tuple[object, ...]) -> list[tuple[int, RunRow]]:
        holders = {holder.id: holder for holder in self.holders()}
        return [
            (no, RunRow(**dict(zip(_FIELDS, row, strict=True)), holder=holders.get(holder)))
            for no, *row, holder in self._database.rows(_RUNS + rest, values)
        ]

    def holders(self) -> list[Holder]:
        """Give the processes that drive runs now, and live."""
        return living(self._database.rows(HOLDERS), here=self._here, now=self._now())

    def spec(self, digest: str) -> str:
        """Give a spec's canonical form by its digest.

        Raises:
            StoreError: the journal does not hold it.
        """
        rows = self._database.rows("SELECT body FROM specs WHERE digest = ?", (digest,))
        if not rows:
            raise StoreError(f"the journal {self._database.path} does not hold the spec {digest}")
        return str(rows[0][0])


_FIELDS: Final = (
    "id",
    "flow",
    "spec",
    "status",
    "state",
    "events",
    "created",
    "updated",
    "ended",
    "parent",
    "batch",
)


def open_history(path: Path) -> History:
    """Open a journal for reading.

    Raises:
        StoreError: it is not there, or cannot be read.
    """
    return History(Database(path, create=False), now=time.time)
