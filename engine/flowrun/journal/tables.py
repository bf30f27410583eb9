"""The journal's tables. A migration that was released is never changed: a later one starts from its result.

The events of all runs are appended to the end of one table, and each row names its run's previous event (0: none);
``heads`` holds each run's last. A table or an index ordered by run would be simpler, but each live run with some
hundred events would have a page of its own, so a commit would write 10 kB per event instead of some 500 bytes.
"""

from typing import Final

APPLICATION_ID: Final = 0x666C6F77
"""``flow`` in ASCII: by this number ``file`` and SQLite recognise a journal."""

Migration = tuple[str, ...]
"""Statements that lead from one version to the next, in one transaction."""

MIGRATIONS: Final[tuple[Migration, ...]] = (
    (
        "CREATE TABLE specs (digest TEXT PRIMARY KEY, body TEXT NOT NULL, created REAL NOT NULL)",
        """CREATE TABLE runs (
            no INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, parent TEXT, flow TEXT NOT NULL,
            spec TEXT NOT NULL, batch TEXT, status TEXT NOT NULL, created REAL NOT NULL, ended REAL, holder TEXT)""",
        "CREATE INDEX runs_parent ON runs (parent) WHERE parent IS NOT NULL",
        "CREATE INDEX runs_batch ON runs (batch) WHERE batch IS NOT NULL",
        """CREATE TABLE events (
            no INTEGER PRIMARY KEY, run INTEGER NOT NULL, seq INTEGER NOT NULL, before INTEGER NOT NULL,
            at REAL NOT NULL, state TEXT NOT NULL, large INTEGER NOT NULL, body TEXT NOT NULL)""",
        "CREATE TABLE heads (run INTEGER PRIMARY KEY, events INTEGER NOT NULL, last INTEGER NOT NULL)",
        "CREATE TABLE large_values (digest TEXT PRIMARY KEY, body TEXT NOT NULL)",
        "CREATE TABLE large_uses (run INTEGER NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (run, digest)) WITHOUT ROWID",
        "CREATE INDEX large_uses_digest ON large_uses (digest)",
        """CREATE TABLE holders (
            id TEXT PRIMARY KEY, host TEXT NOT NULL, pid INTEGER NOT NULL, pid_space TEXT NOT NULL,
            started INTEGER NOT NULL, beat REAL NOT NULL)""",
        """CREATE TABLE inbox (
            no INTEGER PRIMARY KEY AUTOINCREMENT, run TEXT NOT NULL, at REAL NOT NULL, body TEXT NOT NULL)""",
    ),
    # The few runs that wait among a million that have ended are found, and counted, at once.
    ("CREATE INDEX runs_status ON runs (status) WHERE parent IS NULL",),
)
"""The statements of each version; the first ones create the tables in an empty file."""
