"""One SQLite file, opened safely: made private, told from foreign files, brought to this version's tables.

Every error of SQLite leaves here as a ``StoreError`` that says where, what, and what to do.
"""

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from flowrun.errors import StoreError
from flowrun.journal.liveness import HOLDERS, living, this_process
from flowrun.journal.tables import APPLICATION_ID, MIGRATIONS, Migration

Synchronous = Literal["full", "normal"]
"""``full``: a commit is on the disk when it returns. ``normal``: it outlives the process, but not a loss of power."""

BUSY_SECONDS: Final = 60.0
"""How long to wait for another process to finish its transaction."""

_PAUSE: Final = 0.01
"""Seconds between two attempts where SQLite itself does not wait."""

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
_WHAT_IT_IS: Final = """
    SELECT application_id, user_version, (SELECT count(*) FROM sqlite_master)
    FROM pragma_application_id, pragma_user_version
"""
"""One statement, so that another process which is just making the tables cannot come between."""

_OTHER_REMEDY: Final = "name another file with --journal"


class Database:
    """A connection to a journal. It may pass from thread to thread, but only one may use it at a time."""

    def __init__(
        self,
        path: Path,
        *,
        create: bool = True,
        synchronous: Synchronous = "full",
        migrations: Sequence[Migration] = MIGRATIONS,
    ) -> None:
        """Open the journal at ``path``, and make it first unless ``create`` is False.

        Raises:
            StoreError: it cannot be made or read, is something else, or is a newer flowrun's.
        """
        self.path = path
        if create:
            _make_file(path)
        if not path.is_file():
            what = "is not a file" if path.exists() else "is not there: no run has been kept in it"
            raise StoreError(f"the journal {path} {what}; {_OTHER_REMEDY}")
        self._connection = self._connect(synchronous)
        try:
            with self.errors():
                self._settle(migrations)
        except BaseException:
            self._connection.close()
            raise

    def _connect(self, synchronous: Synchronous) -> sqlite3.Connection:
        with self.errors():
            connection = sqlite3.connect(
                self.path,
                timeout=BUSY_SECONDS,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=512,
            )
            connection.execute(f"PRAGMA synchronous = {'FULL' if synchronous == 'full' else 'NORMAL'}")
            return connection

    def _settle(self, migrations: Sequence[Migration]) -> None:
        """Refuse what is not ours, before anything is changed; then bring the tables up to date."""
        [(application, version, tables)] = self.rows(_WHAT_IT_IS)
        if application != APPLICATION_ID and (application or version or tables):
            raise StoreError(f"{self.path} is a database, but no journal of flowrun; {_OTHER_REMEDY}")
        if version > len(migrations):
            raise StoreError(
                f"the journal {self.path} has version {version}, and this flowrun knows those up to "
                f"{len(migrations)}: upgrade flowrun, or name another file with --journal"
            )
        if self.value("PRAGMA journal_mode") != "wal":
            self._turn_to_wal()
        if version < len(migrations):
            self._migrate(migrations)

    def _turn_to_wal(self) -> None:
        """Turn a new file to WAL; SQLite does not wait here, as it does elsewhere, while another process does so."""
        until = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                self._connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
            time.sleep(_PAUSE)

    def _migrate(self, migrations: Sequence[Migration]) -> None:
        with self.transaction():
            before: int = self.value("PRAGMA user_version")
            self._refuse_while_used(before, len(migrations))
            for version in range(before, len(migrations)):
                for statement in migrations[version]:
                    self.execute(statement)
            self.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            self.execute(f"PRAGMA user_version = {len(migrations)}")

    def _refuse_while_used(self, before: int, after: int) -> None:
        """Keep the tables of a process that writes in the old ones; what has no version yet has none."""
        users = living(self.rows(HOLDERS), here=this_process(), now=time.time()) if before not in (0, after) else []
        if users:
            raise StoreError(
                f"the journal {self.path} must be brought from version {before} to {after}, and process "
                f"{users[0].pid} on {users[0].host} is using it; try again when that has ended"
            )

    def execute(self, sql: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """Run one statement; call it within ``transaction`` or ``errors``."""
        return self._connection.execute(sql, values)

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Give all rows of a query."""
        with self.errors():
            return self._connection.execute(sql, values).fetchall()

    def value(self, sql: str, values: Sequence[object] = ()) -> Any:
        """Give the first value of a query's first row; None if there is none."""
        rows = self.rows(sql, values)
        return rows[0][0] if rows else None

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write all of what follows, or nothing; what is read in it is not changed by others meanwhile."""
        with self.errors():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn SQLite's errors into ``StoreError``s."""
        try:
            yield
        except (sqlite3.Error, OSError) as exc:
            raise self._explain(exc) from exc

    def _explain(self, exc: Exception) -> StoreError:
        code = getattr(exc, "sqlite_errorname", "")
        remedy = next((text for name, text in _REMEDIES.items() if code.startswith(name)), _OTHER_REMEDY)
        return StoreError(f"the journal {self.path} cannot be used: {exc}; {remedy}")

    def close(self) -> None:
        """Close the file; the last process to do so leaves it without its -wal. May be called twice."""
        self._connection.close()


def json_list(values: Iterable[object]) -> str:
    """Give values as one parameter for ``IN (SELECT value FROM json_each(?))``, however many they are."""
    return msgspec.json.encode(list(values)).decode()


def _make_file(path: Path) -> None:
    """Make an empty file, and its folder, that nobody else can read, unless it is there."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError as exc:
        if not path.parent.is_dir():
            raise StoreError(
                f"the journal {path} cannot be made: {exc.filename} is no folder; {_OTHER_REMEDY}"
            ) from exc
    except OSError as exc:
        raise StoreError(f"the journal {path} cannot be made: {exc.strerror}; {_OTHER_REMEDY}") from exc


def network_file_system(path: Path, mounts: str | None = None) -> str | None:
    """Name the network file system that a path lies on; None for a local one, or where that cannot be told.

    SQLite's shared memory and locks are not kept by these: a journal there may be damaged when two machines use it.
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
