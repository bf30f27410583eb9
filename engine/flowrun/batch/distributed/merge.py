"""All parts of a batch's results as one file, in the rows' order; the parts stay, for a batch goes on with them.

The parts are read twice: once to learn where each row's line is, once in the rows' order. Eight bytes a row are held.
"""

import bisect
import mmap
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from flowrun.batch.lines import raw_lines
from flowrun.batch.sinks import Folder
from flowrun.errors import StoreError, UsageError

Format = Literal["jsonl", "parquet"]

_BATCH: Final = 1024  # rows
_TEXTS: Final = ("output", "messages", "threads", "waiting")
"""Members of a result that may be any JSON: in Parquet they are its text."""


class _Head(msgspec.Struct, frozen=True):
    row: int
    id: str | int


class _Index:
    """Where each row's line is, counted over all parts; ``ids_are_numbers`` tells whether all of them are."""

    def __init__(self, parts: Sequence[Path]) -> None:
        self.ids_are_numbers = True
        self._ends = list(accumulate(part.stat().st_size for part in parts))
        self._places = array("Q")  # by row: 0 for none, else one more than where its line begins
        at = 0
        for part in parts:
            for place, raw in raw_lines(part):
                head = msgspec.json.decode(raw, type=_Head)
                self.ids_are_numbers &= isinstance(head.id, int)
                self._note(head.row, at + place)
            at += part.stat().st_size

    def _note(self, row: int, at: int) -> None:
        if row >= len(self._places):
            self._places.extend(bytes(row + 1 - len(self._places)))
        self._places[row] = at + 1

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Give the lines by their rows' order: the part's number and where in it."""
        for place in self._places:
            if place:
                part = bisect.bisect_right(self._ends, place - 1)
                yield part, place - 1 - (self._ends[part - 1] if part else 0)


def check_format(kind: Format) -> None:
    """Find out now rather than after the last row whether a format can be written.

    Raises:
        UsageError: a package is missing.
    """
    if kind == "parquet":
        _pyarrow()


def merge_parts(folder: Folder, kind: Format) -> Path:
    """Write all results of a folder into one file, in the rows' order, and give it. It is there whole or not at all.

    Raises:
        StoreError: it cannot be written; the parts are kept.
    """
    merged = folder.merged(kind)
    fresh = merged.with_name(f"{merged.name}.new")
    try:
        index = _Index(folder.parts())
        with ExitStack() as stack:
            lines = _lines(index, [stack.enter_context(_mapped(part)) for part in folder.parts()])
            if kind == "parquet":
                _write_parquet(fresh, lines, index)
            else:
                with fresh.open("wb") as file:
                    file.writelines(lines)
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(fresh, merged)
    except OSError as exc:
        raise StoreError(f"{merged}: {exc.strerror or exc}; all results are kept, in part-*.jsonl") from exc
    return merged


def _mapped(part: Path) -> Any:
    with part.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if part.stat().st_size else ExitStack()


def _lines(index: _Index, parts: Sequence[mmap.mmap]) -> Iterator[bytes]:
    for part, at in index:
        text = parts[part]
        yield text[at : text.find(b"\n", at) + 1]


# --- Parquet


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as exc:
        raise UsageError('Parquet needs pyarrow: pip install "flowrun[parquet]"') from exc
    return pyarrow


def _write_parquet(path: Path, lines: Iterator[bytes], index: _Index) -> None:
    arrow = _pyarrow()
    schema = _schema(arrow, index)
    with arrow.parquet.ParquetWriter(path, schema) as writer:
        while batch := list(islice(lines, _BATCH)):
            records = [_record(msgspec.json.decode(raw), index) for raw in batch]
            writer.write_batch(arrow.RecordBatch.from_pylist(records, schema))


def _schema(arrow: Any, index: _Index) -> Any:
    text, number = arrow.string(), arrow.int64()
    usage = ("prompt_tokens", "completion_tokens", "cached_tokens", "rerendered")
    return arrow.schema(
        {
            "id": number if index.ids_are_numbers else text,
            "row": number,
            "status": text,
            "output": text,
            "error": arrow.struct({"name": text, "message": text, "state": text}),
            "path": arrow.list_(text),
            "rounds": number,
            "usage": arrow.struct(dict.fromkeys(usage, number)),
            **dict.fromkeys(_TEXTS[1:], text),
        }
    )


def _record(result: Mapping[str, Any], index: _Index) -> dict[str, Any]:
    texts = {name: msgspec.json.encode(value).decode() for name in _TEXTS if (value := result.get(name)) is not None}
    named = result["id"] if index.ids_are_numbers else str(result["id"])
    return {**result, **dict.fromkeys(_TEXTS), **texts, "id": named}
