"""Where the results of a batch lie: one file of lines, or a folder with a part for every so many rows.

Beside the results lies what they belong to, which is locked while a batch writes; and, while rows are tried anew, their
new results.
"""

import os
import shutil
from pathlib import Path
from typing import Final, Protocol

import msgspec

SHARD_ROWS: Final = 100_000


class Sink(Protocol):
    """Names the files of a batch's results. ``rows`` is how many a part takes; None: any number."""

    @property
    def path(self) -> Path:
        """Give what the user calls the results: the file, or the folder."""

    @property
    def rows(self) -> int | None:
        """Give how many rows a part takes; None: any number."""

    @property
    def beside(self) -> Path:
        """Give the file that says what the results belong to."""

    @property
    def retried(self) -> Path:
        """Give the file of results that will take the place of older ones."""

    @property
    def aside(self) -> Path:
        """Give where results are put that are no more wanted."""

    def parts(self) -> list[Path]:
        """Give the files with results that there are, in their order."""

    def part(self, index: int) -> Path:
        """Name a part, counted from 0."""

    def put_aside(self) -> None:
        """Put the results where they are in nobody's way."""


class OneFile(msgspec.Struct, frozen=True):
    """Results in one file: ``out.jsonl``, with ``out.jsonl.batch`` and ``out.jsonl.retried`` beside it."""

    path: Path
    rows: int | None = None

    @property
    def beside(self) -> Path:
        """See ``Layout.beside``."""
        return self._named("batch")

    @property
    def retried(self) -> Path:
        """See ``Layout.retried``."""
        return self._named("retried")

    @property
    def aside(self) -> Path:
        """See ``Layout.aside``."""
        return self._named("old")

    def parts(self) -> list[Path]:
        """See ``Layout.parts``."""
        return [self.path] if self.path.exists() else []

    def part(self, index: int) -> Path:
        """See ``Layout.part``."""
        return self.path

    def put_aside(self) -> None:
        """See ``Layout.put_aside``."""
        os.replace(self.path, self.aside)

    def _named(self, suffix: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{suffix}")


class Folder(msgspec.Struct, frozen=True):
    """Results in a folder: ``part-00000.jsonl`` and so on, and ``results.*`` once they are merged."""

    path: Path
    rows: int | None = SHARD_ROWS

    @property
    def beside(self) -> Path:
        """See ``Layout.beside``."""
        return self.path / "batch"

    @property
    def retried(self) -> Path:
        """See ``Layout.retried``."""
        return self.path / "retried"

    @property
    def aside(self) -> Path:
        """See ``Layout.aside``."""
        return self.path / "old"

    def parts(self) -> list[Path]:
        """See ``Layout.parts``."""
        return sorted(self.path.glob("part-*.jsonl"))

    def part(self, index: int) -> Path:
        """See ``Layout.part``."""
        return self.path / f"part-{index:05}.jsonl"

    def merged(self, kind: str) -> Path:
        """Name the file with all results in the rows' order; ``kind`` is its suffix."""
        return self.path / f"results.{kind}"

    def drop_merged(self) -> None:
        """Remove the files that hold all results: some are about to change."""
        for merged in self.path.glob("results.*"):
            merged.unlink()

    def put_aside(self) -> None:
        """See ``Layout.put_aside``."""
        shutil.rmtree(self.aside, ignore_errors=True)
        self.aside.mkdir()
        for file in (*self.parts(), *self.path.glob("results.*")):
            os.replace(file, self.aside / file.name)
