"""The lines of a result file: where each begins, and the row and outcome that it states. Broken lines are skipped."""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec


class Line(msgspec.Struct, frozen=True):
    """The members of a result line that say which row it belongs to and how the row's run ended."""

    row: int
    status: str
    error: "_Error | None" = None

    @property
    def outcome(self) -> str:
        """Return the error's name, or the status if there is no error."""
        return self.error.name if self.error is not None else self.status


class _Error(msgspec.Struct, frozen=True):
    name: str


def raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (offset in bytes, line) for each line of a file; nothing if there is no file."""
    if not path.exists():
        return
    offset = 0
    with path.open("rb") as file:
        for raw in file:
            yield offset, raw
            offset += len(raw)


def lines(path: Path) -> Iterator[tuple[bytes, Line]]:
    """Yield the complete lines of a result file."""
    for _, raw in raw_lines(path):
        if (line := parse_line(raw)) is not None:
            yield raw, line


def parse_line(raw: bytes) -> Line | None:
    """Parse a line; None if it is incomplete or no result."""
    if not raw.endswith(b"\n"):
        return None
    try:
        return msgspec.json.decode(raw, type=Line)
    except ValueError:
        return None


def ends_within_a_line(path: Path) -> bool:
    """Return whether the last line of a file lacks its line break. The file must not be empty."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
