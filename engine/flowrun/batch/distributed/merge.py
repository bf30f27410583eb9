"""Merges the shards of a batch's results into one file, in the order of the rows. The shards stay: a later session of
the batch continues them.

The shards are read twice: first to index where each row's line is, then in the order of the rows. The index takes
eight bytes of memory per row.
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

from flowrun.batch.arrow import load_arrow
from flowrun.batch.lines import raw_lines
from flowrun.batch.rows import place_of
from flowrun.batch.sinks import Folder
from flowrun.errors import StoreError
from flowrun.files import file_errors, open_private

Format = Literal["jsonl", "parquet"]

_BATCH: Final = 1024  # rows
_TEXTS: Final = (
    "output",
    "messages",
    "threads",
    "waiting",
    "columns",
    "inputs",
    "models",
    "sampling",
    "tools",
    "tokens",
)
"""The members of a result that may be any JSON; their Parquet columns hold the JSON as text."""


class _LineKey(msgspec.Struct, frozen=True):
    row: int
    id: str | int
    sample: int = 1


class _Index:
    """The offset of each run's line, counted over all shards; ``ids_are_numbers`` is true if all row ids are."""

    def __init__(self, shards: Sequence[Path], samples: int) -> None:
        self.ids_are_numbers = True
        self._ends = list(accumulate(shard.stat().st_size for shard in shards))
        self._offsets = array("Q")  # by row number: 0 for no line, else the line's offset plus 1
        start = 0
        for shard in shards:
            for offset, raw in raw_lines(shard):
                key = msgspec.json.decode(raw, type=_LineKey)
                self.ids_are_numbers &= isinstance(key.id, int)
                self._record(place_of(key.row, key.sample, samples), start + offset)
            start += shard.stat().st_size

    def _record(self, row: int, offset: int) -> None:
        if row >= len(self._offsets):
            self._offsets.extend(bytes(row + 1 - len(self._offsets)))
        self._offsets[row] = offset + 1

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield (index of the shard, offset in it) for each line, in the order of the rows."""
        for entry in islice(self._offsets, 1, None):  # row 0 stands for the rows that are not in the input any more
            if entry:
                shard = bisect.bisect_right(self._ends, entry - 1)
                yield shard, entry - 1 - (self._ends[shard - 1] if shard else 0)


def require_format(format: Format) -> None:
    """Check whether a format can be written, before the first row rather than after the last.

    Raises:
        UsageError: a package is missing.
    """
    if format == "parquet":
        load_arrow()


def merge_shards(folder: Folder, format: Format, samples: int = 1) -> Path:
    """Write all results of a folder into one file, in the order of the rows and their samples, and return its path.

    The file is replaced only when it is complete.

    Raises:
        StoreError: it cannot be written; the shards are kept.
        UsageError: a package for the format is missing.
    """
    merged = folder.merged(format)
    fresh = merged.with_name(f"{merged.name}.new")
    with file_errors(str(merged), StoreError, "; all results are kept, in part-*.jsonl"):
        index = _Index(folder.shards(), samples)
        with ExitStack() as stack:
            lines = _lines(index, [stack.enter_context(_mapped(shard)) for shard in folder.shards()])
            if format == "parquet":
                open_private(fresh, like=merged).close()
                _write_parquet(fresh, lines, index)
            else:
                with open_private(fresh, like=merged) as file:
                    file.writelines(lines)
        with fresh.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(fresh, merged)
    return merged


def _mapped(shard: Path) -> Any:
    with shard.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if shard.stat().st_size else ExitStack()


def _lines(index: _Index, shards: Sequence[mmap.mmap]) -> Iterator[bytes]:
    for shard, offset in index:
        text = shards[shard]
        yield text[offset : text.find(b"\n", offset) + 1]


# --- Parquet


def _write_parquet(path: Path, lines: Iterator[bytes], index: _Index) -> None:
    arrow = load_arrow()
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
            **dict.fromkeys(("sample", "seed"), number),
            "status": text,
            "output": text,
            "error": arrow.struct({"name": text, "message": text, "state": text}),
            "path": arrow.list_(text),
            "rounds": number,
            "usage": arrow.struct(dict.fromkeys(usage, number)),
            **dict.fromkeys(("began", "ended"), text),
            "seconds": arrow.float64(),
            "flow": arrow.struct(dict.fromkeys(("name", "version", "digest"), text)),
            "masked": arrow.bool_(),
            **dict.fromkeys(_TEXTS[1:], text),
        }
    )


def _record(result: Mapping[str, Any], index: _Index) -> dict[str, Any]:
    texts = {name: msgspec.json.encode(value).decode() for name in _TEXTS if (value := result.get(name)) is not None}
    row_id = result["id"] if index.ids_are_numbers else str(result["id"])
    return {**result, **dict.fromkeys(_TEXTS), **texts, "id": row_id}
