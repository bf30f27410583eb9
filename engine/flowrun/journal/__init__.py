"""Durable runs: every event in one SQLite file, with group commit, leases and an inbox."""

from flowrun.journal.database import Database, Synchronous, network_file_system
from flowrun.journal.history import History, open_history
from flowrun.journal.memory import MemoryJournal
from flowrun.journal.rows import ENDED, Fenced, Held, LeaseLost, NewRun, RunDamaged, RunRow
from flowrun.journal.sqlite import SqliteJournal
from flowrun.journal.upkeep import Vacuumed, prune, vacuum

__all__ = [
    "ENDED",
    "Database",
    "Fenced",
    "Held",
    "History",
    "LeaseLost",
    "MemoryJournal",
    "NewRun",
    "RunDamaged",
    "RunRow",
    "SqliteJournal",
    "Synchronous",
    "Vacuumed",
    "network_file_system",
    "open_history",
    "prune",
    "vacuum",
]
