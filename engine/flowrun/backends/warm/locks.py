"""Who may start an engine, and whose files those of an engine are: one process holds the lock of each (flock(2))."""

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Self


class EngineLock:
    """A lock that is held: by ``engine up`` from its look for an engine, and from the start on by the engine's process.

    Both have the same open file, so the lock is free when the last of them closes it or ends.
    """

    def __init__(self, path: Path, file: int) -> None:
        """Bind an open file that has the lock, such as one that another process passed on."""
        self._path = path
        self._file = file

    @classmethod
    def take(cls, path: Path) -> Self | None:
        """Return the lock of this path; None if another process has it.

        Raises:
            OSError: the file cannot be opened.
        """
        while True:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(path, file):
                    return cls(path, file)
            except BlockingIOError:
                os.close(file)
                return None
            os.close(file)  # who had it before deleted it

    def fileno(self) -> int:
        """Return the descriptor of the open file, to be passed on."""
        return self._file

    def close(self) -> None:
        """Close the file in this process: another one that has it keeps the lock."""
        if self._file != -1:
            os.close(self._file)
            self._file = -1

    def release(self) -> None:
        """Delete the file, and give the lock up."""
        if self._file != -1:
            self._path.unlink(missing_ok=True)
            self.close()


def _is_at(path: Path, file: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(path.stat(), os.fstat(file))
    return False
