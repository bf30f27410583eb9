"""Exports records for training: chosen by score, one a group if wanted, none twice. Memory does not grow with them.

What has to be known of all records is in a temporary database of SQLite, which spills to the disk.
"""

import hashlib
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Final

import msgspec

from flowrun.batch.arrow import load_arrow
from flowrun.batch.results import SUCCEEDED
from flowrun.errors import StoreError, UsageError
from flowrun.files import file_errors, replaced_private
from flowrun.records.record import Entry, Record
from flowrun.records.record_files import RecordFiles
from flowrun.records.tally import is_figure
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
    with closing(sqlite3.connect("")) as known, file_errors(str(output), StoreError, ""):
        records = _chosen(results, choice, counts, known)
        rows = _rows(records, form, counts, known if choice.dedupe else None)
        with replaced_private(output) as file:
            if output.suffix.lower() == ".parquet":
                _write_parquet(file, rows, output)
            else:
                file.writelines(one_json_line(msgspec.json.encode(row)) + b"\n" for row in rows)
    return counts


def _entries(files: RecordFiles, counts: Counter[str]) -> Iterator[Entry]:
    for entry in files.entries():
        if entry.record.flow:
            yield entry
        else:
            counts["no record"] += 1
    if files.broken:
        counts["no record"] += files.broken


def _chosen(results: Path, choice: Choice, counts: Counter[str], known: sqlite3.Connection) -> Iterator[dict[str, Any]]:
    """Yield the records that are exported."""
    files = RecordFiles(results)
    if choice.best_of is not None:
        _find_best(files, choice, choice.best_of, known)
    for entry in _entries(files, counts):
        if reason := _left_out(entry.record, choice):
            counts[reason] += 1
        elif choice.best_of is not None and not _is_best(known, entry.place):
            counts["not the best of its row"] += 1
        else:
            yield msgspec.json.decode(entry.raw)


def _left_out(record: Record, choice: Choice) -> str | None:
    """Return why a record is left out, whatever the others are."""
    if record.status != SUCCEEDED:
        return "did not succeed"
    if record.masked:
        return "holds a masked secret"
    if any(_score(record, name) < least for name, least in choice.min_scores.items()):
        return "below --min-score"
    return None


def _score(record: Record, name: str) -> float:
    scores = record.scores or {}
    if not is_figure(score := scores.get(name)):
        known = ", ".join(scores) or "none"
        raise UsageError(f"the record of row {record.name} has no score {name!r}; it has: {known}")
    return float(score)


def _find_best(files: RecordFiles, choice: Choice, name: str, known: sqlite3.Connection) -> None:
    """Find the best record of each row: the first of those with the highest score."""
    known.execute("CREATE TABLE best (row TEXT PRIMARY KEY, score REAL, place TEXT) WITHOUT ROWID")
    for entry in _entries(files, Counter()):
        record = entry.record
        if _left_out(record, choice) is None:
            known.execute(
                "INSERT INTO best VALUES (?, ?, ?) ON CONFLICT (row) DO UPDATE SET score = excluded.score, "
                "place = excluded.place WHERE excluded.score > best.score",
                (str(record.run if record.row is None else record.row), _score(record, name), entry.place),
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


def _write_parquet(file: BinaryIO, rows: Iterator[Mapping[str, Any]], output: Path) -> None:
    arrow = load_arrow(output)
    first = list(islice(rows, 1))
    columns = sorted({*first[0], *OPTIONAL}) if first else []
    schema = arrow.schema({name: _type(arrow, name) for name in columns})
    with arrow.parquet.ParquetWriter(file, schema) as writer:
        batch: list[Mapping[str, Any]] = first
        while batch:
            told = [{name: _cell(name, row.get(name)) for name in columns} for row in batch]
            writer.write_batch(arrow.RecordBatch.from_pylist(told, schema))
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
