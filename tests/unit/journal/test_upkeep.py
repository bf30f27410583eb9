"""Pruning: ended runs are deleted with their children and the values that only they used, and nothing else is."""

import asyncio
from pathlib import Path

import pytest

from flowrun.core.events import Returned
from flowrun.errors import StoreError
from flowrun.journal import Database, History, SqliteJournal, Vacuumed, prune, vacuum
from tests.unit.journal.sample_runs import NEVER, Clock, append, begin, end, events, new_run, started

pytestmark = pytest.mark.anyio

LARGE = Returned(step=1, value="x" * 50_000)


async def write(path: Path) -> None:
    """Write an old run with a child that never ended, a new one, and an old one that waits."""
    clock = Clock(0.0)
    async with SqliteJournal(path, now=clock, pause=NEVER) as journal:
        for flow in ("poem", "weather"):
            journal.store_spec(f"digest of {flow}", "{}")
        await begin(journal, new_run("old", flow="poem"))
        await begin(journal, new_run("child", flow="poem", parent="old"))
        await begin(journal, new_run("waits"), status="waiting")
        await begin(journal, new_run("new"))
        await begin(journal, new_run("parent"))
        await begin(journal, new_run("ended child", parent="parent"))
        await append(journal, "old", [LARGE, Returned(step=1, value="y" * 50_000)])
        await append(journal, "waits", [LARGE])
        await end(journal, "old", seq=3)
        await end(journal, "ended child")
        clock.now = 100.0
        await end(journal, "new")


def test_old_runs_are_deleted_with_all_their_data(path: Path) -> None:
    asyncio.run(write(path))
    database = Database(path)
    assert prune(database, older_than=50, now=100.0) == 2
    rows = History(database, now=Clock()).runs(children=True)
    assert sorted(row.id for row in rows) == ["ended child", "new", "parent", "waits"]
    assert [events(path, run) for run in ("old", "child")] == [[], []]
    assert events(path, "waits") == [started("waits"), LARGE]
    assert database.rows("SELECT digest FROM specs") == [("digest of weather",)]
    assert database.value("SELECT count(*) FROM large_values") == 1
    assert database.value("SELECT count(*) FROM events") == 7
    assert prune(database, older_than=50, now=100.0) == 0
    database.close()


async def test_more_runs_are_deleted_than_one_transaction_can(path: Path) -> None:
    async with SqliteJournal(path, now=Clock(0.0), pause=NEVER) as journal:
        beginnings = (begin(journal, new_run(f"run {number}"), status="cancelled") for number in range(450))
        await asyncio.gather(*beginnings)
        database = Database(path)
        assert prune(database, older_than=1, now=2.0) == 450
        assert database.value("SELECT count(*) FROM runs") == 0
        database.close()
        await begin(journal, new_run("next"))
    assert events(path, "next") == [started("next")]


def test_a_vacuum_shrinks_the_file(path: Path) -> None:
    asyncio.run(write(path))
    database = Database(path)
    before = path.stat().st_size
    prune(database, older_than=0, now=1000.0)
    sizes = vacuum(database, now=Clock())
    assert sizes == Vacuumed(before=sizes.before, after=path.stat().st_size)
    assert sizes.before >= before > sizes.after + 40_000
    database.close()
    assert events(path, "waits") == [started("waits"), LARGE]


async def test_a_journal_in_use_is_not_vacuumed(path: Path) -> None:
    async with SqliteJournal(path):
        database = Database(path)
        with pytest.raises(StoreError, match=r"is in use by process \d+ on .*; vacuum it when no run is under way"):
            vacuum(database, now=Clock())
        database.close()
