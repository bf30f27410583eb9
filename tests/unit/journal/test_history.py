"""Reading: a run by a prefix of its id, lists of runs by filters, specs by their digests."""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flowrun.core.events import Slept
from flowrun.errors import StoreError, UsageError
from flowrun.journal import Database, History, RunDamaged, RunRow, SqliteJournal, open_history
from tests.unit.journal.sample_runs import NEVER, Clock, append, begin, end, new_run

Ids = Callable[[Iterator[RunRow]], list[str]]


async def write(path: Path) -> None:
    clock = Clock()
    async with SqliteJournal(path, now=clock, pause=NEVER) as journal:
        journal.store_spec("digest of weather", '{"name":"weather"}')
        journal.store_spec("digest of nothing", "{}")
        await begin(journal, new_run("abc1", batch="b"))
        await begin(journal, new_run("abd2", flow="poem"))
        await begin(journal, new_run("child", parent="abc1"))
        await begin(journal, new_run("abc3", batch="b"), status="waiting")
        await begin(journal, new_run("%_"))
        clock.now += 1
        await append(journal, "abc1", [Slept(step=1), Slept(step=2)])
        clock.now += 1
        await end(journal, "abd2", status="failed")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a journal that no test changes."""
    path = tmp_path_factory.mktemp("history") / "journal.db"
    asyncio.run(write(path))
    return path


@pytest.fixture
def history(written: Path) -> Iterator[History]:
    database = Database(written, create=False)
    yield History(database, now=Clock())
    database.close()


def test_a_run_is_found_by_the_beginning_of_its_id(history: History) -> None:
    assert [history.run(prefix).id for prefix in ("abd2", "abd", "%")] == ["abd2", "abd2", "%_"]


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ("x", "there is no run 'x' in {path}; flowrun runs lists them"),
        ("abc12", "there is no run 'abc12' in {path}; flowrun runs lists them"),
        ("ab", "'ab' begins the names of more than one run: abc1, abc3, abd2; write more of the name"),
        ("", "name a run by its id, or the beginning of it"),
    ],
)
def test_a_missing_or_ambiguous_run_is_reported(history: History, written: Path, prefix: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        history.run(prefix)
    assert str(caught.value) == message.format(path=written)


def test_a_row_shows_the_progress_of_a_run(history: History) -> None:
    assert history.run("abc1") == RunRow(
        id="abc1",
        flow="weather",
        spec="digest of weather",
        status="running",
        state="ask",
        events=3,
        created=1000.0,
        updated=1001.0,
        batch="b",
    )
    assert history.run("abd2") == RunRow(
        id="abd2",
        flow="poem",
        spec="digest of poem",
        status="failed",
        state="done",
        events=2,
        created=1000.0,
        updated=1002.0,
        ended=1002.0,
    )


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({}, ["%_", "abc3", "abd2", "abc1"]),
        ({"children": True}, ["%_", "abc3", "child", "abd2", "abc1"]),
        ({"parent": "abc1"}, ["child"]),
        ({"status": "failed"}, ["abd2"]),
        ({"status": "waiting"}, ["abc3"]),
        ({"status": "interrupted"}, ["%_", "abc1"]),
        ({"status": "interrupted", "limit": 1}, ["%_"]),
        ({"flow": "poem"}, ["abd2"]),
        ({"flow": "weather", "batch": "b"}, ["abc3", "abc1"]),
        ({"limit": 2}, ["%_", "abc3"]),
        ({"limit": 0}, []),
    ],
    ids=str,
)
def test_runs_are_listed_newest_first(history: History, filters: dict[str, str], ids: list[str]) -> None:
    assert [row.id for row in history.runs(**filters)] == ids  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_a_long_list_is_complete(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await asyncio.gather(*(begin(journal, new_run(f"run {number}")) for number in range(1200)))
    database = Database(path)
    listed = [row.id for row in History(database, now=Clock()).runs()]
    database.close()
    assert listed == [f"run {number}" for number in reversed(range(1200))]


def test_a_spec_is_stored_with_the_first_run_of_it(history: History) -> None:
    assert history.spec("digest of weather") == '{"name":"weather"}'
    with pytest.raises(StoreError, match="does not hold the spec digest of nothing"):
        history.spec("digest of nothing")


def test_a_run_that_is_not_there_has_no_events(history: History) -> None:
    assert history.events("nobody") == []


@pytest.fixture
def copied(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(written, tmp_path))


DAMAGES = {
    "the chain is cut": "UPDATE events SET before = 0 WHERE no = (SELECT last FROM heads WHERE run = 1)",
    "the chain is a circle": "UPDATE events SET before = no WHERE run = 1",
    "an event is gone": "DELETE FROM events WHERE run = 1 AND seq = 0",
    "the last event is gone": "DELETE FROM events WHERE run = 1 AND seq = 2",
    "the head is gone": "DELETE FROM heads WHERE run = 1",
    "an event of another run": "UPDATE events SET run = 3 WHERE run = 1 AND seq = 1",
    "an event is no event": "UPDATE events SET body = '{}' WHERE run = 1 AND seq = 1",
    "no JSON": "UPDATE events SET body = '{' WHERE run = 1 AND seq = 1",
    "it does not begin": "UPDATE events SET body = (SELECT body FROM events WHERE run = 1 AND seq = 1) WHERE seq = 0",
    "it is its own parent": "UPDATE runs SET parent = id WHERE no = 1",
    "there is no such status": "UPDATE runs SET status = 'lost' WHERE no = 1",
    "its inbox holds no JSON": "INSERT INTO inbox (run, at, body) VALUES ('abc1', 0, '{')",
    "its inbox holds no event": "INSERT INTO inbox (run, at, body) VALUES ('abc1', 0, '{}')",
    "its spec is gone": "DELETE FROM specs WHERE digest = (SELECT spec FROM runs WHERE no = 1)",
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_run_is_found_and_hides_nothing(copied: Path, damage: str) -> None:
    history = open_history(copied)
    listed = [row.id for row in history.runs(children=True)]
    assert [row.id for row, _ in history.damages()] == ["abd2"]  # it was written without a spec
    with closing(sqlite3.connect(copied)) as connection, connection:
        connection.execute(damage)
    connection.close()
    assert [row.id for row in history.runs(children=True)] == listed
    assert "abc1" in [row.id for row, _ in history.damages()]
    if "events" in damage or "heads" in damage:
        with pytest.raises(RunDamaged, match="run abc1 is damaged"):
            history.events("abc1")


def test_a_run_without_its_last_event_is_listed_as_damaged(copied: Path) -> None:
    history = open_history(copied)
    with closing(sqlite3.connect(copied)) as connection, connection:
        connection.execute(DAMAGES["the head is gone"])
    connection.close()
    assert [row.id for row in history.runs(status="damaged")] == ["abc1"]
    assert history.run("abc1").damaged
