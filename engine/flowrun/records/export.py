"""Exports records for training: chosen by score, one a group if wanted, none twice. Memory does not grow with them.

What has to be known of all records is in a temporary database of SQLite, which spills to the disk.
"""

import hashlib
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, Final

import msgspec

from flowrun.errors import StoreError, UsageError, install_extra
from flowrun.files import file_errors, open_private
from flowrun.records.record_files import RecordFiles
from flowrun.records.training_forms import OPTIONAL, Form, rows_in_form
from flowrun.unicode import one_json_line

_ROWS: Final = 4096
"""Rows of a row group of Parquet: what a file keeps of each group stays in memory until it is written."""

SUFFIXES: Final = (".jsonl", ".ndjson", ".parquet")


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """Which records are exported, besides that their runs succeeded.

    Attributes:
        min_scores: the least score by the name of each score.
        best_of: the score of which the best record of each row counts.
        dedupe: leave out rows that another one equals, but for where it comes from.
    """

    min_scores: Mapping[str, float] = {}
    best_of: str | None = None
    dedupe: bool = False


def export(results: Path, form: Form, output: Path, choice: Choice) -> Counter[str]:
    """Write records in a form for training; the file is replaced only when it is complete.

    Returns:
        The number of rows that were ``written``, and of the records or rows that were left out, by the reason.

    Raises:
        UsageError: there are no such results, a record does not hold what the form needs or has no such score, or the
            output has another suffix.
        StoreError: a file cannot be read or written.
    """
    if output.suffix.lower() not in SUFFIXES:
        raise UsageError(f"-o {output}: an export is written to {', '.join(SUFFIXES)}; rename it")
    counts: Counter[str] = Counter()
    fresh = output.with_name(f"{output.name}.new")
    with closing(sqlite3.connect("")) as known, file_errors(str(output), StoreError, ""):
        records = _chosen(results, choice, counts, known)
        rows = _rows(records, form, counts, known if choice.dedupe else None)
        try:
            _write(fresh, rows, like=output)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        os.replace(fresh, output)
    return counts


def _write(path: Path, rows: Iterator[dict[str, Any]], *, like: Path) -> None:
    with open_private(path, like=like) as file:
        if like.suffix.lower() != ".parquet":
            file.writelines(one_json_line(msgspec.json.encode(row)) + b"\n" for row in rows)
    if like.suffix.lower() == ".parquet":
        _write_parquet(path, rows)


def _records(results: Path, counts: Counter[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each record with its place."""
    files = RecordFiles(results)
    for entry in files.entries():
        record = msgspec.json.decode(entry.raw)
        if "flow" in record:
            yield f"{entry.file}:{entry.line}", record
        else:
            counts["no record"] += 1
    if files.broken:
        counts["no record"] += files.broken


def _chosen(results: Path, choice: Choice, counts: Counter[str], known: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    """Yield the records that are exported."""
    if choice.best_of is not None:
        _find_best(results, choice, known)
    for place, record in _records(results, counts):
        if reason := _left_out(record, choice):
            counts[reason] += 1
        elif choice.best_of is not None and not _is_best(known, place):
            counts["not the best of its row"] += 1
        else:
            yield record


def _left_out(record: Mapping[str, Any], choice: Choice) -> str | None:
    """Return why a record is left out, whatever the others are."""
    if record["status"] != "succeeded":
        return "did not succeed"
    if record.get("masked"):
        return "holds a masked secret"
    if any(_score(record, name) < least for name, least in choice.min_scores.items()):
        return "below --min-score"
    return None


def _score(record: Mapping[str, Any], name: str) -> float:
    score = (record.get("scores") or {}).get(name)
    if not isinstance(score, (bool, int, float)):
        known = ", ".join(record.get("scores") or ()) or "none"
        raise UsageError(f"the record of row {record.get('id')} has no score {name!r}; it has: {known}")
    return float(score)


def _find_best(results: Path, choice: Choice, known: sqlite3.Connection) -> None:
    """Find the best record of each row: the first of those with the highest score."""
    known.execute("CREATE TABLE best (row TEXT PRIMARY KEY, score REAL, place TEXT) WITHOUT ROWID")
    assert choice.best_of is not None
    for place, record in _records(results, Counter()):
        if _left_out(record, choice) is None:
            known.execute(
                "INSERT INTO best VALUES (?, ?, ?) ON CONFLICT (row) DO UPDATE SET score = excluded.score, "
                "place = excluded.place WHERE excluded.score > best.score",
                (str(record.get("row", record.get("run"))), _score(record, choice.best_of), place),
            )
    known.execute("CREATE UNIQUE INDEX places ON best (place)")


def _is_best(known: sqlite3.Connection, place: str) -> bool:
    return known.execute("SELECT 1 FROM best WHERE place = ?", (place,)).fetchone() is not None


def _rows(
    records: Iterable[Mapping[str, Any]], form: Form, counts: Counter[str], known: sqlite3.Connection | None
) -> Iterator[dict[str, Any]]:
    if known is not None:
        known.execute("CREATE TABLE seen (digest BLOB PRIMARY KEY) WITHOUT ROWID")
    members: set[str] | None = None
    for record in records:
        for row in rows_in_form(record, form):
            found = set(row) - OPTIONAL
            if (members := members or found) != found:
                raise UsageError("some records have tokens and others have none: export them with --to messages")
            if known is not None and not _is_new(known, row):
                counts["equal to another"] += 1
                continue
            counts["written"] += 1
            yield row


def _is_new(known: sqlite3.Connection, row: Mapping[str, Any]) -> bool:
    told = {name: value for name, value in row.items() if name in _TOLD}
    digest = hashlib.blake2b(msgspec.json.encode(told), digest_size=16).digest()
    return known.execute("INSERT OR IGNORE INTO seen VALUES (?)", (digest,)).rowcount == 1


_TOLD: Final = frozenset({"messages", "ids", "mask", "input_ids", "assistant_masks", "steps"})
"""The members of a row that are compared: not where it comes from, nor its log-probabilities."""


# --- Parquet


def _write_parquet(path: Path, rows: Iterator[Mapping[str, Any]]) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as exc:
        raise UsageError(f"{path}: Parquet needs pyarrow: {install_extra('parquet')}") from exc
    first = list(islice(rows, 1))
    columns = sorted({*first[0], *OPTIONAL}) if first else []
    types = {name: _type(pyarrow, name) for name in columns}
    schema = pyarrow.schema(types)
    with parquet.ParquetWriter(path, schema) as writer:
        batch: list[Mapping[str, Any]] = first
        while batch:
            told = [{name: _cell(name, row.get(name)) for name in columns} for row in batch]
            writer.write_batch(pyarrow.RecordBatch.from_pylist(told, schema))
            batch = list(islice(rows, _ROWS))


_NUMBERS: Final = {"row": "int64", "sample": "int64", "seed": "int64"}
_LISTS: Final = {
    "ids": "int32",
    "mask": "int8",
    "input_ids": "int32",
    "assistant_masks": "int8",
    "logprobs": "float32",
    "states": "string",
    "finish_reasons": "string",
}
_PLAIN: Final = frozenset({"thread", "child", "flow", "digest", "schema_version", "session_id"})


def _type(arrow: Any, name: str) -> Any:
    if name == "messages":
        function = arrow.struct({"name": arrow.string(), "arguments": arrow.string()})
        call = arrow.struct({"id": arrow.string(), "type": arrow.string(), "function": function})
        texts = dict.fromkeys(("role", "content", "reasoning", "tool_call_id", "name"), arrow.string())
        return arrow.list_(arrow.struct({**texts, "tool_calls": arrow.list_(call)}))
    if name in _LISTS:
        return arrow.list_(getattr(arrow, _LISTS[name])())
    return getattr(arrow, _NUMBERS.get(name, "string"))()


def _cell(name: str, value: Any) -> Any:
    """Return a value for its column: what may have any form is JSON as text."""
    if value is None or name in _LISTS or name in _NUMBERS or name in _PLAIN:
        return value
    if name == "messages":
        return [
            {**message, "tool_calls": [_texts(call) for call in message.get("tool_calls", ())]} for message in value
        ]
    return value if name == "id" and isinstance(value, str) else msgspec.json.encode(value).decode()


def _texts(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return a call whose arguments are text: those of different tools have different members."""
    arguments = call["function"]["arguments"]
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    return {**call, "function": {**call["function"], "arguments": text}}
