"""SHA-256 of large files, computed once: a file whose size, time and inode are the same is not read again."""

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any, Final

from flowrun.files import replaced_private
from flowrun.spec.model_lock import LockedFile

SMALL: Final = 16 * 2**20
"""The bytes up to which a file is always read."""

_FRESH: Final = 2.0
"""Seconds after a change in which another one may leave a file's time as it is: its digest is not kept."""


class FileDigests:
    """The digests of files, kept in a file of the user's cache. Anything wrong with that file means that it is empty.

    Args:
        path: the file that keeps them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, list[Any]] | None = None
        self._changed = False

    def locked(self, file: Path, *, reads: bool) -> LockedFile:
        """Return a file's size and its SHA-256.

        Args:
            reads: read a large file that is not known; else its digest is left out.
        """
        real = file.resolve()
        before = os.stat(real)
        stamp = [before.st_size, before.st_mtime_ns, before.st_ino]
        known = self._load().get(str(real))
        if known is not None and known[:3] == stamp:
            return LockedFile(size=before.st_size, sha256=str(known[3]))
        if before.st_size > SMALL and not reads:
            return LockedFile(size=before.st_size)
        with real.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if before.st_size > SMALL and time.time() - before.st_mtime > _FRESH:
            self._load()[str(real)] = [*stamp, digest]
            self._changed = True
        return LockedFile(size=before.st_size, sha256=digest)

    def save(self) -> None:
        """Write what is new, if it can be written."""
        if self._changed:
            with contextlib.suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with replaced_private(self._path) as file:
                    file.write(json.dumps(self._load()).encode())
            self._changed = False

    def _load(self) -> dict[str, list[Any]]:
        if self._known is None:
            try:
                known = json.loads(self._path.read_text(encoding="utf-8"))
                self._known = {path: entry for path, entry in known.items() if len(entry) == 4}
            except (OSError, ValueError, TypeError, AttributeError):
                self._known = {}
        return self._known
