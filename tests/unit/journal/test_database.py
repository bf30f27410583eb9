"""Opening: created private, distinguished from foreign and newer files, migrated; every error has a remedy."""

import asyncio
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from flowrun.errors import StoreError
from flowrun.journal import Database, SqliteJournal, network_file_system
from flowrun.journal.tables import APPLICATION_ID, MIGRATIONS
from tests.unit.journal.conftest import Child
from tests.unit.journal.sample_runs import begin, events, new_run

ANOTHER = ("ALTER TABLE runs ADD COLUMN colour TEXT NOT NULL DEFAULT 'blue'", "UPDATE runs SET colour = 'red'")
"""A migration of a later version."""


def refusal(path: Path, *, create: bool = True) -> str:
    with pytest.raises(StoreError) as caught:
        Database(path, create=create)
    return str(caught.value)


@pytest.mark.anyio
async def test_nobody_else_can_read_a_journal(tmp_path: Path) -> None:
    path = tmp_path / "state" / "flowrun" / "journal.db"
    async with SqliteJournal(path) as journal:
        await begin(journal, new_run("r"))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert modes == {"journal.db": 0o600, "journal.db-wal": 0o600, "journal.db-shm": 0o600}
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_commit_is_on_the_disk_when_it_returns(path: Path) -> None:
    full, normal = Database(path), Database(path, synchronous="normal")
    assert [full.value("PRAGMA journal_mode"), full.value("PRAGMA synchronous")] == ["wal", 2]
    assert normal.value("PRAGMA synchronous") == 1
    full.close()
    normal.close()


def test_a_journal_opened_for_reading_is_not_created(path: Path) -> None:
    assert refusal(path, create=False) == (
        f"the journal {path} is not there: no run has been stored in it; name another file with --journal"
    )
    assert not path.exists()


def test_a_folder_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"the journal {tmp_path} is not a file; name another file with --journal"


def test_a_file_in_place_of_the_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    path = tmp_path / "state" / "journal.db"
    assert refusal(path) == (
        f"the journal {path} cannot be made: {tmp_path / 'state'} is no folder; name another file with --journal"
    )
    deeper = tmp_path / "state" / "flowrun" / "journal.db"
    assert refusal(deeper) == f"the journal {deeper} cannot be made: Not a directory; name another file with --journal"


def test_a_file_that_is_no_database_stays_unchanged(path: Path) -> None:
    path.write_text("name: weather\n" * 100)
    assert refusal(path) == (
        f"the journal {path} cannot be used: file is not a database; it is no journal of flowrun; "
        "name another with --journal"
    )
    assert path.read_text() == "name: weather\n" * 100


@pytest.mark.parametrize("change", ["CREATE TABLE t (a)", "PRAGMA user_version = 1", "PRAGMA application_id = 5"])
def test_another_programs_database_stays_unchanged(path: Path, change: str) -> None:
    other = sqlite3.connect(path)
    other.execute(change)
    other.commit()
    other.close()
    before = path.read_bytes()
    assert refusal(path) == (f"{path} is a database, but no journal of flowrun; name another file with --journal")
    assert path.read_bytes() == before


def test_an_empty_file_becomes_a_journal(path: Path) -> None:
    path.touch()
    database = Database(path)
    assert [database.value("PRAGMA application_id"), database.value("PRAGMA user_version")] == [
        APPLICATION_ID,
        len(MIGRATIONS),
    ]
    database.close()


def test_a_newer_journal_stays_unchanged(path: Path) -> None:
    Database(path, migrations=(*MIGRATIONS, ANOTHER)).close()
    before = path.read_bytes()
    assert refusal(path) == (
        f"the journal {path} has version 3, and this flowrun knows those up to 2: upgrade flowrun, "
        "or name another file with --journal"
    )
    assert path.read_bytes() == before


@pytest.mark.anyio
async def test_an_older_journal_is_migrated_once_no_process_uses_it(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await begin(journal, new_run("r"))
        with pytest.raises(StoreError, match=f"the journal {path} must be brought from version 2 to 3, and process"):
            Database(path, migrations=(*MIGRATIONS, ANOTHER))
    database = Database(path, migrations=(*MIGRATIONS, ANOTHER))
    assert database.rows("SELECT id, colour FROM runs") == [("r", "red")]
    assert database.value("PRAGMA user_version") == 3
    database.close()


def test_a_migration_that_fails_changes_nothing(path: Path) -> None:
    Database(path).close()
    with pytest.raises(StoreError, match="no such table: nowhere"):
        Database(path, migrations=(*MIGRATIONS, (*ANOTHER, "UPDATE nowhere SET a = 1")))
    database = Database(path)
    assert database.value("PRAGMA user_version") == 2
    assert "colour" not in [column for _, column, *_ in database.rows("PRAGMA table_info(runs)")]
    database.close()


def test_processes_may_create_it_at_once(path: Path, child: Child) -> None:
    children = [child("open_once") for _ in range(4)]
    for process in children:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in children:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate()[0] for process in children] == ["opened\n"] * 4


def test_a_file_that_another_process_is_creating_is_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The timeout of SQLite does not cover the switch of a file to WAL mode."""
    path.touch()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        other.execute("ROLLBACK")

    monkeypatch.setattr("flowrun.journal.database.time.sleep", pause)
    database = Database(path)
    assert len(pauses) == 1
    assert database.value("PRAGMA journal_mode") == "wal"
    database.close()
    other.close()


@pytest.mark.anyio
async def test_a_damaged_file_is_reported(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await asyncio.gather(*(begin(journal, new_run(f"run {number}")) for number in range(200)))
    damage(path)
    with pytest.raises(StoreError, match=r"database disk image is malformed; restore a copy of it, or save what can"):
        events(path, "run 7")


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)


MOUNTS = """\
/dev/vda / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
/dev/vdb /home/me/local xfs rw 0 0
share /mnt/with\\040space cifs rw 0 0
me@far /mnt/far fuse.sshfs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/journal.db", None),
        ("/home/me/journal.db", "nfs4"),
        ("/home/me/local/journal.db", None),
        ("/homeless/journal.db", None),
        ("/mnt/with space/journal.db", "cifs"),
        ("/mnt/far/journal.db", "fuse.sshfs"),
    ],
)
def test_network_file_systems_are_known(path: str, kind: str | None) -> None:
    assert network_file_system(Path(path), MOUNTS) == kind


def test_the_mounts_of_this_machine_can_be_read(tmp_path: Path) -> None:
    assert network_file_system(tmp_path) in (None, "9p", "nfs", "nfs4", "ceph", "lustre")


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_journal_that_goes_while_it_is_used_is_noticed(path: Path, how: str) -> None:
    database = Database(path)
    path.rename(path.with_name("away"))
    if how == "replaced":
        Database(path).close()
    with pytest.raises(StoreError, match=f"was {how} while it was in use"), database.transaction():
        pass
    database.close()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounting needs root")
@pytest.mark.parametrize("wal", [False, True], ids=["closed", "with a -wal"])
def test_a_journal_on_a_read_only_file_system_can_be_read(path: Path, wal: bool) -> None:
    database = Database(path)
    with database.transaction():
        database.execute("INSERT INTO specs VALUES ('d', 'the spec', 1)")
    if not wal:
        database.close()
    program = (
        f"from flowrun.journal import *; from pathlib import Path; print(open_history(Path({str(path)!r})).spec('d'))"
    )
    mount = f"mount --bind {path.parent} {path.parent} && mount -o remount,ro,bind {path.parent}"
    command = ["unshare", "--mount", "sh", "-c", f'{mount} || exit 77; exec "$@"', "sh"]
    done = subprocess.run([*command, sys.executable, "-c", program, path], capture_output=True, text=True)
    database.close()
    if done.returncode == 77:
        pytest.skip("this machine mounts nothing")
    assert (done.stdout, done.stderr) == ("the spec\n", "")
