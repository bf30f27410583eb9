"""The lines of a result file: where each begins, and the row and outcome that it states. Broken lines are skipped."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from flowrun.batch.rows import place_of

GONE: Final = 0
"""The ``row`` of a result whose row the input does not have any more."""


class Line(msgspec.Struct, frozen=True):
    """The members of a result line that say which row it belongs to and how the row's run ended."""

    row: int
    status: str
    id: str | int | None = None
    sample: int = 1
    error: "_Error | None" = None
    messages: msgspec.Raw = msgspec.Raw()

    def place(self, samples: int) -> int:
        """Return the number of the line's run in a batch with so many samples a row; ``GONE`` if it has no such run."""
        return place_of(self.row, self.sample, samples)

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


def with_row(raw: bytes, row: int) -> bytes:
    """Return a line with another ``row``; its other members stay as they are written."""
    members = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    return msgspec.json.encode({**members, "row": row}) + b"\n"


def inputs_of(raw: bytes) -> dict[str, Any]:
    """Return the inputs of a line."""
    return msgspec.json.decode(raw, type=_Inputs).inputs


class _Inputs(msgspec.Struct, frozen=True):
    inputs: dict[str, Any] = {}


def is_debris(raw: bytes) -> bool:
    """Return whether a line that is no result is what a crash leaves: without an end, or zeros."""
    return not raw.endswith(b"\n") or not raw.strip(b"\0\n")


def ends_within_a_line(path: Path) -> bool:
    """Return whether the last line of a file lacks its line break. The file must not be empty."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"
