"""The files that a batch writes its results to: one file of lines, or a folder with shards of a fixed number of rows.

Next to the results lies a sidecar file: it names the spec and the input that they belong to, and is locked while a
batch writes. While rows are retried, their new results are in a file of their own.
"""

import os
from pathlib import Path
from typing import Final

import msgspec

SHARD_ROWS: Final = 100_000

FORMATS: Final = ("jsonl", "parquet")
"""The formats of merged results."""


class OneFile(msgspec.Struct, frozen=True):
    """Results in one file: ``out.jsonl``, with ``out.jsonl.batch`` and ``out.jsonl.retried`` next to it.

    A symbolic link is never moved or replaced: the results and all files next to them are where it leads.
    """

    path: Path
    rows: int | None = None

    @property
    def sidecar(self) -> Path:
        """Return the file that holds the results' fingerprint and is locked while a batch writes."""
        return self._named("batch")

    @property
    def retried(self) -> Path:
        """Return the file of new results that will replace older ones."""
        return self._named("retried")

    @property
    def backup(self) -> Path:
        """Return where the results of an earlier batch are moved to when it is restarted."""
        return self._named("old")

    @property
    def foreign(self) -> Path:
        """Return where lines are moved to that are no results of the batch."""
        return self._named("foreign")

    def special(self) -> Path | None:
        """Return a path of these that is there and is no regular file; None if there is none."""
        return _special(self._file, self.sidecar, self.retried, self.backup, self.foreign)

    def shards(self) -> list[Path]:
        """Return the existing files with results, in their order."""
        return [self._file] if self._file.exists() else []

    def shard(self, index: int) -> Path:
        """Return the path of a shard, counted from 0."""
        return self._file

    def back_up(self) -> None:
        """Move the results to ``backup``, which is overwritten."""
        os.replace(self._file, self.backup)

    @property
    def _file(self) -> Path:
        return Path(os.path.realpath(self.path)) if self.path.is_symlink() else self.path

    def _named(self, suffix: str) -> Path:
        return self._file.with_name(f"{self._file.name}.{suffix}")


class Folder(msgspec.Struct, frozen=True):
    """Results in a folder: ``part-00000.jsonl`` and so on, and ``results.*`` once they are merged."""

    path: Path
    rows: int | None = SHARD_ROWS

    @property
    def sidecar(self) -> Path:
        """See ``OneFile.sidecar``."""
        return self.path / "batch"

    @property
    def retried(self) -> Path:
        """See ``OneFile.retried``."""
        return self.path / "retried"

    @property
    def backup(self) -> Path:
        """See ``OneFile.backup``."""
        return self.path / "old"

    @property
    def foreign(self) -> Path:
        """See ``OneFile.foreign``."""
        return self.path / "foreign"

    def special(self) -> Path | None:
        """See ``OneFile.special``."""
        return _special(self.sidecar, self.retried, self.foreign, *self.shards(), *self._merged_files())

    def shards(self) -> list[Path]:
        """See ``OneFile.shards``."""
        return sorted(self.path.glob("part-*.jsonl"))

    def shard(self, index: int) -> Path:
        """See ``OneFile.shard``."""
        return self.path / f"part-{index:05}.jsonl"

    def merged(self, format: str) -> Path:
        """Return the path of the file with all results in the order of the rows; ``format`` is its suffix."""
        return self.path / f"results.{format}"

    def drop_merged(self) -> None:
        """Remove the merged files, because some results are about to change."""
        for merged in self._merged_files():
            merged.unlink()

    def _merged_files(self) -> list[Path]:
        return [path for format in FORMATS if (path := self.merged(format)).exists()]

    def back_up(self) -> None:
        """See ``OneFile.back_up``."""
        self.backup.mkdir(exist_ok=True)
        earlier = Folder(self.backup)
        for file in (*earlier.shards(), *earlier._merged_files()):  # other files in there are not ours
            file.unlink()
        for file in (*self.shards(), *self._merged_files()):
            os.replace(file, self.backup / file.name)


Sink = OneFile | Folder
"""The names of the files that hold a batch's results."""


def _special(*paths: Path) -> Path | None:
    return next((path for path in paths if path.exists() and not path.is_file()), None)
