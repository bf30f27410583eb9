"""The journal's tables. A script that was ever released is never changed: a later one goes on from it.

Events are appended to the end of their table, whosever they are, and each names the one of its run before it (0 is
none); ``heads`` has each run's last. A table or an index in the order of runs would be simpler, but would have a page
of its own for each live run with some hundred events, so that a commit wrote 10 kB an event instead of some 500 bytes.
"""

from typing import Final

APPLICATION_ID: Final = 0x666C6F77
"""``flow``: what ``file`` and SQLite itself tell a journal by."""

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
)
"""How an empty file becomes a journal, a version an entry."""
