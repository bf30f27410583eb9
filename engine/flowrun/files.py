"""Maps the system's errors about files to errors of flowrun, and makes new file names survive a power cut."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowrun.errors import FlowrunError, UsageError


@contextmanager
def file_errors(what: str, error: type[FlowrunError] = UsageError, remedy: str = "") -> Iterator[None]:
    """Raise an ``OSError`` as an error of flowrun that says what failed, the system's reason, and a remedy."""
    try:
        yield
    except OSError as exc:
        raise error(f"{what}: {exc.strerror or exc}{remedy}") from exc


def sync_folder(file: Path) -> None:
    """Sync the folder of a file, so that a new file's name survives a power cut."""
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
