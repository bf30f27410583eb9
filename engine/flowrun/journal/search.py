"""Finds runs among very many, page by page: each call ends in bounded time, and says where the next one goes on.

Runs are looked at from the newest to the oldest, in spans of their row ids that grow. What an index finds (a status, a
batch) takes no time; words are looked for in each run, so a search that finds little ends where its time is over.
"""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from flowrun.journal.database import Database, json_list
from flowrun.journal.rows import ENDED, RunRow

PAGE: Final = 50
"""Runs on a page."""

SEARCH_SECONDS: Final = 0.3
"""The time in which a search looks for the runs of a page."""

COUNTED: Final = 1000
"""Runs are counted up to this number."""

OPEN_STATUSES: Final = ("waiting", "needs_attention", "running", "sleeping", "interrupted")
"""The statuses of runs that have not ended. ``interrupted``: running, but without a living process."""

STATUS_FILTERS: Final = (*OPEN_STATUSES, *ENDED)
"""The statuses that a search knows."""

_FIRST_SPAN: Final = 1_000
_GROWTH: Final = 4
_MAX_SPAN: Final = 50_000
_MAX_SPAN_OF_WORDS: Final = 4_000
"""The state of a run is in its last event, so each run costs a page of the file."""
_MAX_WORDS: Final = 8

_FIND: Final = """
    SELECT runs.no FROM runs LEFT JOIN heads ON heads.run = runs.no LEFT JOIN events AS last ON last.no = heads.last
    WHERE {} ORDER BY runs.no DESC LIMIT :limit
"""
_FIND_PLAIN: Final = "SELECT runs.no FROM runs WHERE {} ORDER BY runs.no DESC LIMIT :limit"
_TEXT: Final = "runs.id || ' ' || runs.flow || ' ' || coalesce(runs.batch, '') || ' ' || coalesce(last.state, '')"
_HELD: Final = "coalesce(runs.holder, '') IN (SELECT value FROM json_each(:living))"
_COUNT: Final = "SELECT count(*) FROM (SELECT 1 FROM runs WHERE {} LIMIT :limit)"
_NEXT_BATCH: Final = "SELECT min(batch) FROM runs WHERE batch IS NOT NULL AND batch > ?"
_RECENT_FLOWS: Final = "SELECT DISTINCT flow FROM (SELECT flow FROM runs WHERE parent IS NULL ORDER BY no DESC LIMIT ?)"


class RunQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which runs are looked for: all words are in the id, flow, batch or state. Empty: any. ``before``: a row id."""

    words: str = ""
    status: str = ""
    flow: str = ""
    batch: str = ""
    before: int | None = None


class RunPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some of the runs that were looked for, newest first.

    Attributes:
        older: where the next page begins; None: there are no more runs.
        complete: the page is full, or all runs were looked at; else the time was over.
    """

    rows: tuple[RunRow, ...]
    older: int | None
    complete: bool = True


def find_row_ids(
    database: Database, query: RunQuery, living: Sequence[str], *, seconds: float, clock: Callable[[], float]
) -> tuple[list[int], int | None]:
    """Return the row ids of a page of runs, and where the search ended; None: all runs were looked at.

    Args:
        living: the ids of the living processes that hold runs.
    """
    where, values = _conditions(query)
    values["living"] = json_list(living)
    sql = (_FIND if query.words else _FIND_PLAIN).format(f"runs.no < :before AND runs.no >= :from AND {where}")
    before: int = query.before or (database.value("SELECT max(no) FROM runs") or 0) + 1
    found: list[int] = []
    span, deadline = _FIRST_SPAN, clock() + seconds
    max_span = _MAX_SPAN_OF_WORDS if query.words else _MAX_SPAN if query.flow else before
    while before > 1:
        start = max(1, before - span)
        rows = database.rows(sql, {**values, "before": before, "from": start, "limit": PAGE - len(found)})
        found += (row_id for (row_id,) in rows)
        if len(found) == PAGE:
            return found, found[-1] if found[-1] > 1 else None
        before, span = start, min(span * _GROWTH, max_span)
        if clock() > deadline:
            return found, before if before > 1 else None
    return found, None


def _conditions(query: RunQuery) -> tuple[str, dict[str, object]]:
    parts, values = ["runs.parent IS NULL"], dict[str, object]()
    match query.status:
        case "":
            pass
        case "interrupted":
            parts.append(f"runs.status = 'running' AND NOT {_HELD}")
        case "running":
            parts.append(f"runs.status = 'running' AND {_HELD}")
        case _:
            parts.append("runs.status = :status")
            values["status"] = query.status
    for column, value in (("flow", query.flow), ("batch", query.batch)):
        if value:
            parts.append(f"runs.{column} = :{column}")
            values[column] = value
    for number, word in enumerate(query.words.split()[:_MAX_WORDS]):
        parts.append(f"{_TEXT} LIKE :word{number} ESCAPE '\\'")
        values[f"word{number}"] = f"%{_escape(word)}%"
    return " AND ".join(parts), values


def _escape(word: str) -> str:
    return word.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")


def count_open(database: Database, living: Sequence[str]) -> dict[str, int]:
    """Return the number of top runs of each status in which they have not ended, each up to ``COUNTED``."""
    held = {"living": json_list(living), "limit": COUNTED}
    counts = {}
    for status in OPEN_STATUSES:
        where, values = _conditions(RunQuery(status=status))
        counts[status] = database.value(_COUNT.format(where), {**values, **held})
    return counts


def recent_flows(database: Database, *, among: int = 2000) -> list[str]:
    """Return the names of the flows of the newest runs, sorted."""
    return sorted(flow for (flow,) in database.rows(_RECENT_FLOWS, (among,)))


def first_batches(database: Database, *, limit: int = 200) -> list[str]:
    """Return the labels of batches, sorted: the first ones by their names."""
    labels: list[str] = []
    while len(labels) < limit and (label := database.value(_NEXT_BATCH, (labels[-1] if labels else "",))) is not None:
        labels.append(label)
    return labels
