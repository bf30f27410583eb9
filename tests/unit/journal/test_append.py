"""Appending: an event is on the disk when ``append`` returns; the entries of one pass of the loop are one commit."""

import asyncio
from pathlib import Path

import pytest

from flowrun.core.events import Recorded, Returned, Slept
from flowrun.errors import Bug, StoreError
from flowrun.journal import Database, History, LeaseLost, RunRow, SqliteJournal
from tests.unit.journal.conftest import Child
from tests.unit.journal.sample_runs import (
    NEVER,
    Clock,
    append,
    begin,
    commits,
    end,
    events,
    new_run,
    on_disk,
    recorded,
    started,
)

pytestmark = pytest.mark.anyio


async def test_runs_of_one_pass_share_a_commit(path: Path) -> None:
    async with SqliteJournal(path, pause=NEVER) as journal:
        before = commits(path)
        await asyncio.gather(*(begin(journal, new_run(f"run {number}")) for number in range(300)))
        assert commits(path) - before == 1
        await asyncio.gather(*(append(journal, f"run {number}", [Slept(step=1)]) for number in range(300)))
        assert commits(path) - before == 2
        assert {number: events(path, f"run {number}") for number in range(300)} == {
            number: [started(f"run {number}"), Slept(step=1)] for number in range(300)
        }


async def test_an_appended_event_can_be_read_by_others_at_once(path: Path) -> None:
    clock = Clock(1000.5)
    async with SqliteJournal(path, now=clock) as journal:
        await begin(journal, new_run("r"))
        clock.now = 1002.0
        await append(journal, "r", [Returned(step=1, value={"a": [1, None]})])
        assert recorded(path, "r") == [
            Recorded(seq=0, at=1000.5, state="ask", event=started("r")),
            Recorded(seq=1, at=1002.0, state="ask", event=Returned(step=1, value={"a": [1, None]})),
        ]


async def test_appended_events_survive_a_killed_process(path: Path, child: Child) -> None:
    assert child("killed").wait() == -9
    assert events(path, "r") == [started("r"), *(Returned(step=seq) for seq in range(1, 20))]


async def test_a_cancelled_append_ends_when_its_event_is_committed(path: Path) -> None:
    async with SqliteJournal(path, pause=NEVER) as journal:
        await begin(journal, new_run("r"))
        one = asyncio.create_task(append(journal, "r", [Slept(step=1)]))
        other = asyncio.create_task(begin(journal, new_run("s")))
        await asyncio.sleep(0)
        one.cancel()
        await asyncio.wait((one, other))
        assert one.cancelled()
        assert events(path, "r") == [started("r"), Slept(step=1)]
        assert events(path, "s") == [started("s")]


async def test_a_run_that_ends_at_once_is_complete(path: Path) -> None:
    async with SqliteJournal(path, now=Clock(5.0)) as journal:
        await begin(journal, new_run("r"), status="failed")
        database = Database(path)
        row = History(database, now=Clock()).run("r")
        database.close()
    assert row == RunRow(
        id="r",
        flow="weather",
        spec="digest of weather",
        status="failed",
        state="ask",
        events=1,
        created=5.0,
        updated=5.0,
        ended=5.0,
    )


async def test_closing_writes_what_was_appended(path: Path) -> None:
    journal = SqliteJournal(path, pause=NEVER)
    task = asyncio.create_task(begin(journal, new_run("r")))
    await asyncio.sleep(0)
    await journal.close()
    await journal.close()
    await task
    assert events(path, "r") == [started("r")]
    with pytest.raises(StoreError, match="is closed"):
        await end(journal, "r")
    with pytest.raises(StoreError, match="is closed"):
        await journal.release("r")
    with pytest.raises(StoreError, match="is closed"):
        await journal.events("r")
    assert not path.with_name("journal.db-wal").exists()


async def test_a_doubled_event_is_lost_for_its_run_only(path: Path) -> None:
    async with SqliteJournal(path, pause=NEVER) as journal:
        await asyncio.gather(begin(journal, new_run("r")), begin(journal, new_run("s")))
        results = await asyncio.gather(
            append(journal, "s", [Slept(step=1)]),
            append(journal, "r", [Slept(step=1)]),
            append(journal, "r", [Slept(step=9)]),
            append(journal, "r", [Slept(step=2)], first=2),
            begin(journal, new_run("t")),
            return_exceptions=True,
        )
        kinds = [type(result) for result in results]
        assert kinds == [type(None), LeaseLost, LeaseLost, LeaseLost, type(None)]
        assert str(results[1]) == (
            "run r cannot continue here: its event 1 is not the next: another process has resumed it"
        )
        with pytest.raises(LeaseLost, match="run r cannot continue here"):
            await append(journal, "r", [Slept(step=1)])
    assert [events(path, run) for run in "rst"] == [
        [started("r")],
        [started("s"), Slept(step=1)],
        [started("t")],
    ]


async def test_a_run_id_is_used_once(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await begin(journal, new_run("r"))
        with pytest.raises(LeaseLost, match="a run with this id is in the journal already"):
            await begin(journal, new_run("r"))


async def test_a_run_that_was_pruned_meanwhile_is_lost(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        with pytest.raises(LeaseLost, match="it is not in the journal: was it pruned"):
            await append(journal, "never", [Slept(step=1)])


async def test_a_run_begins_before_its_first_event(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        with pytest.raises(Bug, match="run r was not begun"):
            await journal.append("r", started("r"), seq=0, state="ask", status="running")


async def test_an_event_that_json_cannot_hold_is_refused_and_harms_no_other(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await begin(journal, new_run("r"))
        with pytest.raises(StoreError, match="an event of kind Returned cannot be stored: 'utf-8'"):
            await append(journal, "r", [Returned(step=1, value="\ud800")])
        await append(journal, "r", [Slept(step=1)])
    assert events(path, "r") == [started("r"), Slept(step=1)]


async def test_a_full_disk_halts_the_journal_and_loses_nothing(path: Path, child: Child) -> None:
    out, _ = child("full").communicate()
    *kept, first, second = out.splitlines()
    assert kept == [f"kept {seq}" for seq in range(len(kept))]
    assert len(kept) > 3
    assert first == (
        f"halted the journal {path} cannot be used: disk I/O error; look after the disk and its free space, "
        "and resume the runs; what was written before is kept"
    )
    assert second == first
    assert [row.seq for row in recorded(path, "r")] == list(range(len(kept)))
    assert events(path, "another") == []
    async with SqliteJournal(path) as journal:
        assert await journal.take(["r"]) == ()
        await end(journal, "r", seq=len(kept))


async def test_a_full_database_is_reported_to_all_runs(path: Path) -> None:
    journal = SqliteJournal(path, pause=NEVER)
    await begin(journal, new_run("r"))
    pages = journal._database.value("PRAGMA page_count")
    journal._database.rows(f"PRAGMA max_page_count = {pages + 2}")
    beginnings = (begin(journal, new_run(f"run {number}", flow="f" * 300)) for number in range(200))
    errors = await asyncio.gather(*beginnings, return_exceptions=True)
    assert {(type(error), str(error)) for error in errors} == {
        (
            StoreError,
            f"the journal {path} cannot be used: database or disk is full; free some space and resume the runs; "
            "what was written before is kept",
        )
    }
    assert len({id(error) for error in errors}) == 200
    with pytest.raises(StoreError, match="database or disk is full"):
        await journal.take(["r"])
    await journal.close()
    assert events(path, "r") == [started("r")]


def test_a_torn_wal_holds_the_beginning_of_every_run(path: Path, tmp_path: Path, child: Child) -> None:
    process = child("flood")
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    copy = tmp_path / "copy.db"
    database, wal = path.read_bytes(), path.with_name("journal.db-wal").read_bytes()
    process.kill()
    lengths: dict[int, list[int]] = {}
    for tenth in range(11):
        size = len(wal) * tenth // 10
        copy.write_bytes(database)
        copy.with_name("copy.db-wal").write_bytes(wal[:size])
        lengths[tenth] = []
        for number in range(5):
            rows = recorded(copy, f"run {number}") if tenth else []
            assert [row.seq for row in rows] == list(range(len(rows)))
            lengths[tenth].append(len(rows))
    assert min(lengths[10]) >= 100
    totals = [sum(lengths[tenth]) for tenth in range(11)]
    assert totals == sorted(totals)


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def test_values_are_written_unchanged(path: Path) -> None:
    """Also those that look like a secret: secrets stay in their adapter, so the journal masks nothing."""
    async with SqliteJournal(path) as journal:
        journal.store_spec("digest of weather", '{"limits": {"max_attempts": 5}}')
        await begin(journal, new_run("r"))
        await append(journal, "r", [Returned(step=1, value={"pay": "100 EUR to 100-7"})])
        written = on_disk(path)
        assert b'{"pay":"100 EUR to 100-7"}' in written
        assert b'{"limits": {"max_attempts": 5}}' in written
    assert mode_of(path) == 0o600


async def test_a_status_without_an_event_is_stored(path: Path) -> None:
    async with SqliteJournal(path, batch="b", pause=NEVER) as journal:
        journal.store_spec("d", "{}")
        journal.register("r", flow="weather")
        await asyncio.gather(
            journal.append("r", started("r"), seq=0, state="ask", status="running"),
            journal.mark("r", "waiting"),
        )
        database = Database(path)
        history = History(database, now=Clock())
        first = history.run("r")
        assert (first.status, first.events, first.spec, first.batch) == ("waiting", 1, "d", "b")
        before = commits(path)
        await journal.mark("r", "waiting")
        assert commits(path) == before
        await journal.mark("r", "needs_attention")
        assert history.run("r").status == "needs_attention"
        await append(journal, "r", [Slept(step=1)])
        assert history.run("r").status == "running"
        with pytest.raises(LeaseLost, match="it is not in the journal"):
            await journal.mark("nobody", "waiting")
        database.close()
