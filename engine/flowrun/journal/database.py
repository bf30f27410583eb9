"""The SQLite file of a journal: created private, distinguished from foreign files, migrated to this version's tables.

Every error of SQLite is raised as a ``StoreError`` that names the file, the fault and a remedy.
"""

import os
import shutil
import sqlite3
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal

import msgspec

from flowrun.errors import StoreError
from flowrun.files import sync_folder
from flowrun.journal.liveness import HOLDERS, living, this_process
from flowrun.journal.tables import APPLICATION_ID, MIGRATIONS, Migration

Synchronous = Literal["full", "normal", "off"]
"""``full``: a commit is on the disk when it returns. ``normal``: it survives a process crash, but not a power cut.
``off``: nothing ever waits for the disk, for a file that is not needed after its process."""

Parameters = Sequence[object] | Mapping[str, object]
"""What ``?`` or ``:name`` stand for in a statement."""

BUSY_SECONDS: Final = 60.0
"""Seconds to wait for another process to finish its transaction."""

_PAUSE: Final = 0.01
"""Seconds between two attempts to switch to WAL mode, which SQLite's own timeout does not cover."""

_NETWORK: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "beegfs"})

_REMEDIES: Final = {
    "SQLITE_FULL": "free some space and resume the runs; what was written before is kept",
    "SQLITE_READONLY": "make the file and its folder writable, or name another with --journal",
    "SQLITE_CANTOPEN": "make the file and its folder writable, or name another with --journal",
    "SQLITE_BUSY": "another process is using it: wait until it is done, and try again",
    "SQLITE_LOCKED": "another process is using it: wait until it is done, and try again",
    "SQLITE_NOTADB": "it is no journal of flowrun; name another with --journal",
    "SQLITE_CORRUPT": "restore a copy of it, or save what can be read with: sqlite3 FILE .recover",
    "SQLITE_IOERR": "look after the disk and its free space, and resume the runs; what was written before is kept",
}
_IDENTITY: Final = """
    SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)
    FROM pragma_application_id, pragma_user_version
"""
"""One statement, so that no other process can create the tables between two reads."""

_OTHER_REMEDY: Final = "name another file with --journal"


class Database:
    """A connection to a journal. Any thread may use it, but only one at a time."""

    def __init__(
        self,
        path: Path,
        *,
        create: bool = True,
        read_only: bool = False,
        synchronous: Synchronous = "full",
        migrations: Sequence[Migration] = MIGRATIONS,
    ) -> None:
        """Open the journal at ``path``; create a missing file unless ``create`` is False.

        Args:
            read_only: nothing will be written, so the file may lie where nothing can be.

        Raises:
            StoreError: the file cannot be created or read, is no journal, or is of a newer flowrun.
        """
        self.path = path
        if create:
            _create_file(path)
        if not path.is_file():
            what = "is not a file" if path.exists() else "is not there: no run has been stored in it"
            raise StoreError(f"the journal {path} {what}; {_OTHER_REMEDY}")
        self._copy: TemporaryDirectory[str] | None = None
        frozen = read_only and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))
        self._connection = self._connect_to_frozen() if frozen else self._connect()
        self._file = path.stat()
        try:
            with self.errors():
                self._connection.execute(f"PRAGMA synchronous = {synchronous}")
                self._prepare(migrations)
        except BaseException:
            self._connection.close()
            raise
        # a reader that nobody refers to any more is closed, rather than warned of (Python 3.13)
        weakref.finalize(self, self._connection.close).atexit = False

    def _connect(self) -> sqlite3.Connection:
        with self.errors():
            return sqlite3.connect(
                self.path,
                timeout=BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=512,
            )

    def _connect_to_frozen(self) -> sqlite3.Connection:
        """Connect to a file where SQLite can make no files of its own. What is still in the -wal needs a copy."""
        wal = self.path.with_name(f"{self.path.name}-wal")
        with self.errors():
            path = self.path
            if wal.exists() and wal.stat().st_size:
                self._copy = TemporaryDirectory(prefix="flowrun-")
                path = Path(shutil.copy(path, self._copy.name))
                shutil.copy(wal, self._copy.name)
                path.chmod(0o600)
            how = "immutable=1" if self._copy is None else "mode=rw"
            uri = f"{path.resolve().as_uri()}?{how}"
            return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)

    def _prepare(self, migrations: Sequence[Migration]) -> None:
        """Raise for a foreign file, before anything is changed; then migrate the tables."""
        [(application, version, tables)] = self.rows(_IDENTITY)
        if application != APPLICATION_ID and (application or version or tables):
            raise StoreError(f"{self.path} is a database, but no journal of flowrun; {_OTHER_REMEDY}")
        if version > len(migrations):
            raise StoreError(
                f"the journal {self.path} has version {version}, and this flowrun knows those up to "
                f"{len(migrations)}: upgrade flowrun, or name another file with --journal"
            )
        if version == len(migrations) and not os.access(self.path, os.W_OK):
            return
        if self.value("PRAGMA journal_mode") != "wal":
            self._switch_to_wal()
        if version < len(migrations):
            self._migrate(migrations)

    def _switch_to_wal(self) -> None:
        """Switch a new file to WAL mode. SQLite's timeout does not cover this while another process does the same."""
        deadline = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(_PAUSE)

    def _migrate(self, migrations: Sequence[Migration]) -> None:
        with self.transaction():
            before: int = self.value("PRAGMA user_version")
            self._check_unused(before, len(migrations))
            for version in range(before, len(migrations)):
                for statement in migrations[version]:
                    self.execute(statement)
            self.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self.execute(f"PRAGMA user_version = {len(migrations)}")

    def _check_unused(self, before: int, after: int) -> None:
        """Raise while a process uses the tables of the old version; a new file (version 0) has no users."""
        users = living(self.rows(HOLDERS), here=this_process(), now=time.time()) if before not in (0, after) else []
        if users:
            raise StoreError(
                f"the journal {self.path} must be brought from version {before} to {after}, and process "
                f"{users[0].pid} on {users[0].host} is using it; try again when that has ended"
            )

    def execute(self, sql: str, values: Parameters = ()) -> sqlite3.Cursor:
        """Run one statement, within ``transaction`` or ``errors`` only."""
        return self._connection.execute(sql, values)

    def rows(self, sql: str, values: Parameters = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        with self.errors():
            return self._connection.execute(sql, values).fetchall()

    def value(self, sql: str, values: Parameters = ()) -> Any:
        """Return the first value of a query's first row; None if there is no row."""
        rows = self.rows(sql, values)
        return rows[0][0] if rows else None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Run the block in one transaction: all of it is written, or nothing. No other process writes meanwhile.

        Raises:
            StoreError: it cannot be written, such as because the file was deleted or replaced.
        """
        self._require_same_file()
        with self.errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _require_same_file(self) -> None:
        """Raise if another file, or none, is where the journal was: what is written would be in no file any more."""
        try:
            same = os.path.samestat(self.path.stat(), self._file)
            what = "replaced"
        except FileNotFoundError:
            same, what = False, "deleted"
        if not same:
            raise StoreError(
                f"the journal {self.path} was {what} while it was in use: what its runs do from now on would be lost; "
                "put it back if you can, and resume them"
            )

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise the block's errors of SQLite as ``StoreError``s."""
        try:
            yield
        except (sqlite3.Error, OSError) as exc:
            raise self._explain(exc) from exc

    def _explain(self, exc: Exception) -> StoreError:
        code = getattr(exc, "sqlite_errorname", "")
        remedy = next((text for name, text in _REMEDIES.items() if code.startswith(name)), _OTHER_REMEDY)
        return StoreError(f"the journal {self.path} cannot be used: {exc}; {remedy}")

    def interrupt(self) -> None:
        """End the statement that another thread executes now; there it fails with a ``StoreError``."""
        self._connection.interrupt()

    def close(self) -> None:
        """Close the file; the last process to close it removes the -wal. May be called twice."""
        self._connection.close()
        if self._copy is not None:
            self._copy.cleanup()


def json_list(values: Iterable[object]) -> str:
    """Return any number of values as one parameter for ``IN (SELECT value FROM json_each(?))``."""
    return msgspec.json.encode(list(values)).decode()


def _create_file(path: Path) -> None:
    """Create an empty file and its folder, readable by this user only, unless the file exists."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        sync_folder(path)
    except FileExistsError as exc:
        if not path.parent.is_dir():
            raise StoreError(
                f"the journal {path} cannot be made: {exc.filename} is no folder; {_OTHER_REMEDY}"
            ) from exc
    except OSError as exc:
        raise StoreError(f"the journal {path} cannot be made: {exc.strerror}; {_OTHER_REMEDY}") from exc


def network_file_system(path: Path, mounts: str | None = None) -> str | None:
    """Return the type of the network file system that holds ``path``; None if it is local or unknown.

    SQLite's WAL mode does not work on these (https://www.sqlite.org/wal.html): two machines may damage the journal.

    Args:
        mounts: lines as in ``/proc/self/mounts``, which is read if None.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mounts").read_text()
        except OSError:
            return None
    here, found = path.resolve(), ("", "")
    for line in mounts.splitlines():
        point, kind = line.split()[1:3]
        if here.is_relative_to(point.replace("\\040", " ")) and len(point) >= len(found[0]):
            found = (point, kind)
    kind = found[1]
    return kind if kind in _NETWORK or kind.startswith("fuse.sshfs") else None
