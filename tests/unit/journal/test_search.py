"""Searching: pages of runs by words, status, flow and batch, in bounded time; and what says that a run has changed."""

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flowrun.core.events import Answered, Slept
from flowrun.journal import Database, History, SqliteJournal
from flowrun.journal.search import PAGE, RunQuery
from tests.unit.journal.sample_runs import NEVER, Clock, append, begin, end, new_run

MANY = 3 * PAGE + 7


async def write(path: Path) -> None:
    async with SqliteJournal(path, pause=NEVER) as journal:
        await asyncio.gather(*(begin(journal, new_run(f"run{number:04}")) for number in range(MANY)))
        await begin(journal, new_run("w1", batch="50%_of"), status="waiting")
        await begin(journal, new_run("w2", flow="poem", batch="other"), status="waiting")
        await begin(journal, new_run("w2.3.0", parent="w2"), status="waiting")
        await begin(journal, new_run("f1", flow="poem"))
        await end(journal, "f1", status="failed")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a journal that no test changes."""
    path = tmp_path_factory.mktemp("search") / "journal.db"
    asyncio.run(write(path))
    return path


@pytest.fixture
def history(written: Path) -> Iterator[History]:
    with closing(Database(written, create=False)) as database:
        yield History(database, now=Clock())


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ({"status": "waiting"}, ["w2", "w1"]),
        ({"status": "failed"}, ["f1"]),
        ({"status": "running"}, []),
        ({"status": "interrupted", "words": "RUN0003"}, ["run0003"]),
        ({"flow": "poem"}, ["f1", "w2"]),
        ({"flow": "poem", "status": "waiting"}, ["w2"]),
        ({"batch": "50%_of"}, ["w1"]),
        ({"words": "poem done"}, ["f1"]),
        ({"words": "50%_"}, ["w1"]),
        ({"words": "5_%"}, []),
        ({"words": "\\"}, []),
    ],
    ids=str,
)
def test_runs_are_found(history: History, query: dict[str, Any], ids: list[str]) -> None:
    page = history.search(RunQuery(**query))
    assert ([row.id for row in page.rows], page.older, page.complete) == (ids, None, True)


def test_all_pages_together_are_all_runs(history: History) -> None:
    found, query = [], RunQuery(words="run")
    while True:
        page = history.search(query)
        assert page.complete
        found += [row.id for row in page.rows]
        if page.older is None:
            break
        query = RunQuery(words="run", before=page.older)
    assert found == [f"run{number:04}" for number in reversed(range(MANY))]


def test_a_search_without_time_says_where_it_goes_on(path: Path) -> None:
    with closing(Database(path)) as database:
        for number in range(1, 4001):
            database.execute(
                "INSERT INTO runs (no, id, flow, spec, status, created) VALUES (?, ?, 'f', '', 'succeeded', 0)",
                (number, "first" if number == 1 else f"r{number}"),
            )
        history = History(database, now=Clock())
        page = history.search(RunQuery(words="first"), seconds=0)
        assert (page.rows, page.complete) == ((), False)
        assert page.older is not None
        [row] = history.search(RunQuery(words="first", before=page.older), seconds=60).rows
        assert row.id == "first"


def test_an_empty_journal(path: Path) -> None:
    with closing(Database(path)) as database:
        history = History(database, now=Clock())
        assert (history.search(RunQuery()).rows, history.filters()) == ((), ([], []))


def test_open_runs_are_counted(history: History) -> None:
    assert history.open_counts() == {
        "waiting": 2,
        "needs_attention": 0,
        "running": 0,
        "sleeping": 0,
        "interrupted": MANY,
    }
    assert history.filters() == (["poem", "weather"], ["50%_of", "other"])


@pytest.mark.anyio
async def test_a_living_process_holds_its_runs(path: Path) -> None:
    async with SqliteJournal(path, pause=NEVER) as journal:
        await begin(journal, new_run("a"))
        page = journal.history.search(RunQuery(status="running"))
        assert [row.id for row in page.rows] == ["a"]
        assert journal.history.search(RunQuery(status="interrupted")).rows == ()


@pytest.mark.anyio
async def test_a_version_changes_with_the_run_its_children_and_its_inbox(path: Path) -> None:
    async with SqliteJournal(path, pause=NEVER) as journal:
        for run in ("a", "ab", "a.1.0"):
            await begin(journal, new_run(run, parent="a" if "." in run else None))
        versions = [journal.history.version_of("a")]

        def changed() -> bool:
            versions.append(journal.history.version_of("a"))
            return versions[-1] != versions[-2]

        assert not changed()
        await append(journal, "ab", [Slept(step=1)])
        assert not changed()
        await append(journal, "a.1.0", [Slept(step=1)])
        assert changed()
        await journal.mark("a", "waiting")
        assert changed()
        await journal.signal("a.1.0", Answered(step=1, value=1))
        assert changed()
        assert await journal.release("a") is False  # the answer is there
        before = journal.history.version_of(None)
        await end(journal, "ab", seq=2)
        assert (changed(), journal.history.version_of(None) != before) == (False, True)


def test_the_open_runs_among_many_are_found_by_an_index(written: Path) -> None:
    with closing(sqlite3.connect(written)) as connection:
        plan = connection.execute(
            "EXPLAIN QUERY PLAN SELECT no FROM runs WHERE no < 9 AND no >= 1 AND parent IS NULL AND status = 'x'"
            " ORDER BY no DESC"
        ).fetchall()
    assert [row[3] for row in plan] == ["SEARCH runs USING INDEX runs_status (status=? AND rowid>? AND rowid<?)"]
