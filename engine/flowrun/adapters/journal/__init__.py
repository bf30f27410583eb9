"""Durable runs: every event in one SQLite file, with group commit, leases and an inbox."""

from flowrun.adapters.journal.database import Database, Synchronous, network_file_system
from flowrun.adapters.journal.history import History
from flowrun.adapters.journal.journal import OnPost, SqliteJournal
from flowrun.adapters.journal.rows import (
    ENDED,
    FIRST,
    STATUSES,
    Held,
    Holder,
    LeaseLost,
    NewRun,
    RunRow,
)
from flowrun.adapters.journal.upkeep import Vacuumed, prune, vacuum

__all__ = [
    "ENDED",
    "FIRST",
    "STATUSES",
    "Database",
    "Held",
    "History",
    "Holder",
    "LeaseLost",
    "NewRun",
    "OnPost",
    "RunRow",
    "SqliteJournal",
    "Synchronous",
    "Vacuumed",
    "network_file_system",
    "prune",
    "vacuum",
]
