"""A shop's SQLite database, read only: the tools of ``specs/database.yaml``.

The database is made in memory from ``specs/data/shop.sql``. Whatever SQL a model writes can read it and nothing else:
SQLite's authorizer refuses every other action, and a query is stopped after a second.
"""

import sqlite3
import time
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

_SCRIPT = Path(__file__).parents[1] / "specs" / "data" / "shop.sql"
_MOST_ROWS = 50
_MOST_SECONDS = 1.0
_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_lock = Lock()


def list_tables() -> list[str]:
    """List the tables of the database."""
    return [row["name"] for row in query("select name from sqlite_master where type = 'table' order by name")]


def describe_table(table: str) -> str:
    """Give the SQL statement that made a table.

    Args:
        table: The table's name.
    """
    found = [name for name in list_tables() if name == table]
    if not found:
        raise ValueError(f"there is no table {table!r}; there are: {', '.join(list_tables())}")
    return str(query(f"select sql from sqlite_master where name = '{found[0]}'")[0]["sql"])  # noqa: S608


def query(sql: str) -> list[dict[str, Any]]:
    """Run one SELECT statement and give at most 50 rows.

    Args:
        sql: The statement, in SQLite's dialect.
    """
    with _lock:
        connection = _database()
        until = time.monotonic() + _MOST_SECONDS
        connection.set_progress_handler(lambda: time.monotonic() > until, 1000)
        rows = connection.execute(sql).fetchmany(_MOST_ROWS)
    return [dict(row) for row in rows]


@cache
def _database() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.executescript(_SCRIPT.read_text())
    connection.set_authorizer(_only_reading)
    return connection


def _only_reading(action: int, *_: str | None) -> int:
    return sqlite3.SQLITE_OK if action in _READING else sqlite3.SQLITE_DENY
