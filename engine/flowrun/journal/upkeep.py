"""Maintenance of a journal: old runs are deleted completely, with the values and specs that only they used."""

from collections.abc import Callable
from typing import Final

import msgspec

from flowrun.errors import StoreError
from flowrun.journal.database import Database, json_list
from flowrun.journal.history import History
from flowrun.journal.rows import ENDED

_RUNS: Final = 200
"""Runs deleted in one transaction, so that writing processes wait only briefly."""

_OLD_FAMILIES: Final = """
    WITH RECURSIVE family (no, id) AS (
        SELECT * FROM (
            SELECT no, id FROM runs
            WHERE status IN (SELECT value FROM json_each(?)) AND ended < ?
                AND NOT EXISTS (SELECT 1 FROM runs AS above WHERE above.id = runs.parent)
            LIMIT ?)
        UNION SELECT runs.no, runs.id FROM runs JOIN family ON runs.parent = family.id)
    INSERT INTO pruned SELECT no FROM family
"""
_DELETE_EVENTS: Final = """
    WITH RECURSIVE chain (no, before) AS (
        SELECT events.no, before FROM pruned JOIN heads ON heads.run = pruned.no JOIN events ON events.no = heads.last
        UNION ALL SELECT events.no, events.before FROM chain JOIN events ON events.no = chain.before)
    DELETE FROM events WHERE no IN (SELECT no FROM chain)
"""


class Vacuumed(msgspec.Struct, frozen=True, kw_only=True):
    """The size of a journal in bytes, before and after."""

    before: int
    after: int


def prune(database: Database, *, older_than: float, now: float) -> int:
    """Delete runs that ended more than ``older_than`` seconds ago, with their children; return their number.

    A child is deleted with its parent, never before. Runs that wait or were interrupted stay.

    Args:
        now: seconds since the epoch.
    """
    count = 0
    while True:
        with database.transaction():
            database.execute("CREATE TEMP TABLE IF NOT EXISTS pruned (no INTEGER PRIMARY KEY)")
            database.execute("DELETE FROM pruned")
            database.execute(_OLD_FAMILIES, (json_list(ENDED), now - older_than, _RUNS))
            found: int = database.value("SELECT count(*) FROM pruned")
            if not found:
                break
            database.execute("DELETE FROM inbox WHERE run IN (SELECT id FROM runs JOIN pruned USING (no))")
            database.execute(_DELETE_EVENTS)
            database.execute("DELETE FROM heads WHERE run IN (SELECT no FROM pruned)")
            database.execute("DELETE FROM runs WHERE no IN (SELECT no FROM pruned)")
            database.execute("DELETE FROM large_uses WHERE run IN (SELECT no FROM pruned)")
        count += found
    with database.transaction():
        database.execute("DELETE FROM large_values WHERE digest NOT IN (SELECT digest FROM large_uses)")
        database.execute("DELETE FROM specs WHERE digest NOT IN (SELECT spec FROM runs)")
    return count


def vacuum(database: Database, *, now: Callable[[], float]) -> Vacuumed:
    """Shrink the file by the space of deleted rows, and return its sizes.

    Raises:
        StoreError: a process is driving runs; it would have to wait too long.
    """
    if holders := History(database, now=now).holders():
        who = ", ".join(f"process {holder.pid} on {holder.host}" for holder in holders)
        raise StoreError(f"the journal {database.path} is in use by {who}; vacuum it when no run is under way")
    before = _size(database)
    with database.errors():
        database.execute("VACUUM")
        database.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    return Vacuumed(before=before, after=_size(database))


def _size(database: Database) -> int:
    files = (database.path, database.path.with_name(database.path.name + "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())
