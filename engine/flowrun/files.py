"""Maps the system's errors about files to errors of flowrun, and makes new file names survive a power cut."""

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from flowrun.errors import FlowrunError, UsageError

PRIVATE: Final = 0o600
"""The mode of new files that hold what models, tools and people said: only their owner may read them."""


@contextmanager
def file_errors(what: str, error: type[FlowrunError] = UsageError, remedy: str = "") -> Iterator[None]:
    """Raise an ``OSError`` as an error of flowrun that says what failed, the system's reason, and a remedy."""
    try:
        yield
    except OSError as exc:
        raise error(f"{what}: {exc.strerror or exc}{remedy}") from exc


def open_private(path: Path, *, like: Path) -> BinaryIO:
    """Open a new or emptied file for writing: readable by its owner only, or as ``like`` is if that exists."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, PRIVATE)
    os.fchmod(descriptor, stat.S_IMODE(like.stat().st_mode) if like.exists() else PRIVATE)
    return os.fdopen(descriptor, "wb")


@contextmanager
def replaced_private(path: Path) -> Iterator[BinaryIO]:
    """Open a file that is written whole or not at all: readable by its owner only, or as the file that it replaces.

    Of a symbolic link, the file that it leads to is written.
    """
    path = Path(os.path.realpath(path))
    descriptor, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if path.exists():
                os.fchmod(descriptor, stat.S_IMODE(path.stat().st_mode))
            yield file
        os.replace(fresh, path)
    except BaseException:
        os.unlink(fresh)
        raise


def sync_folder(file: Path) -> None:
    """Sync the folder of a file, so that a new file's name survives a power cut."""
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
