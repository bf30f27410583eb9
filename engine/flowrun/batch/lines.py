"""The lines of a batch's results: where each begins, and what of it says where it belongs. A broken one is none."""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec


class Line(msgspec.Struct, frozen=True):
    """What of a result line says where it belongs."""

    row: int
    status: str
    error: "_Error | None" = None

    @property
    def outcome(self) -> str:
        """Give the error's name, or the status where there is none."""
        return self.error.name if self.error is not None else self.status


class _Error(msgspec.Struct, frozen=True):
    name: str


def raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Give where each line of a file begins, and the line; none if there is no file."""
    if not path.exists():
        return
    at = 0
    with path.open("rb") as file:
        for raw in file:
            yield at, raw
            at += len(raw)


def lines(path: Path) -> Iterator[tuple[bytes, Line]]:
    """Give the whole lines of a file of results."""
    for _, raw in raw_lines(path):
        if (line := parse_line(raw)) is not None:
            yield raw, line


def parse_line(raw: bytes) -> Line | None:
    """Read a line; None if it is not whole."""
    if not raw.endswith(b"\n"):
        return None
    try:
        return msgspec.json.decode(raw, type=Line)
    except ValueError:
        return None


def ends_within_a_line(path: Path) -> bool:
    """Tell whether the last line of a file has no end."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
