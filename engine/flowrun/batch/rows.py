"""The rows of a batch, read one by one: a line of JSON, a record of CSV or a row of Parquet holds a run's inputs.

A row that cannot be read is still a row: its ``wrong`` has the reason, and the other rows run.
"""

import codecs
import csv
import hashlib
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec

from flowrun.batch.arrow import load_arrow
from flowrun.batch.row_ids import RowIds
from flowrun.core.run import mixed_seed
from flowrun.errors import UsageError
from flowrun.excerpts import cut
from flowrun.functions.json_values import NotJSON, to_json
from flowrun.spec.json_types import may_be_text
from flowrun.spec.model import JSON, Spec
from flowrun.spec.strict_json import parse_json
from flowrun.unicode import find_encoding_error

ID: Final = "id"
"""The member that identifies a row: no two rows have the same. It is an input too only if the flow has one so named."""

MAX_NAMED: Final = 20
"""The members that are no inputs of which a survey has the names."""

MAX_CHARACTERS: Final = 200
"""The characters of columns' names in an error."""

_UNDECODED: Final = re.compile("[\udc80-\udcff]")
"""What the error handler ``surrogateescape`` makes of bytes that are no UTF-8."""

_CSV: Final = {".csv": ",", ".tsv": "\t"}
_LINES: Final = frozenset({".jsonl", ".ndjson"})
_PARQUET: Final = ".parquet"


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs of one run.

    Attributes:
        number: the number of the line in a JSON Lines file, else of the record; from 1.
        id: what the row is known by: its own id, or its number if it has none.
        columns: the members that are no inputs of the flow; they pass through into the result.
        wrong: why the inputs could not be read.
        sample: which of the row's samples this is, from 1 to ``samples``.
        seed: what the seeds of its requests are made of; None: the row has one sample.
    """

    number: int
    id: str | int
    inputs: Mapping[str, JSON] = {}
    columns: Mapping[str, JSON] = {}
    wrong: str | None = None
    sample: int = 1
    samples: int = 1
    seed: int | None = None

    @property
    def place(self) -> int:
        """The number of its run in the batch, from 1: the samples of a row follow each other."""
        return place_of(self.number, self.sample, self.samples)

    def each_sample(self, samples: int, seed: int) -> "Iterator[Row]":
        """Yield the row's samples, each with a seed of its own, which is the same in every session.

        Args:
            seed: that of the spec.
        """
        if samples == 1:
            yield self
            return
        for sample in range(1, samples + 1):
            own = mixed_seed(seed, str(self.id), sample)
            yield msgspec.structs.replace(self, sample=sample, samples=samples, seed=own)


def place_of(row: int, sample: int, samples: int) -> int:
    """Return the number of a run in a batch with so many samples of each row; 0 if the batch has no such sample."""
    return (row - 1) * samples + sample if row and sample <= samples else 0


class Survey(msgspec.Struct, frozen=True):
    """The number of rows in a file, the digest of its bytes, and some names of members that are no inputs."""

    count: int
    digest: str
    columns: tuple[str, ...] = ()


class RowFile:
    """A file of rows; its suffix determines the format."""

    def __init__(self, path: Path, spec: Spec) -> None:
        """Check the file's suffix, and the column names of a table.

        Raises:
            UsageError: the file does not exist or cannot be read, has no known format, or has a column twice.
        """
        self.path = path
        self._spec = spec
        self._repeated: dict[int, int] = {}  # the rows whose id an earlier row has, with the number of that row
        self._suffix = path.suffix.lower()
        if self._suffix not in {*_LINES, *_CSV, _PARQUET}:
            raise UsageError(f"{path}: rows are read from .jsonl, .ndjson, .csv, .tsv or .parquet; rename it")
        if not path.is_file():
            raise UsageError(f"there is no file {path}")
        if self._suffix not in _LINES:
            self._check_columns()

    def survey(self) -> Survey:
        """Read the file, find the rows whose id an earlier row has, and return the file's digest and number of rows.

        Raises:
            UsageError: the file is no valid CSV or Parquet.
        """
        count, digest = self._count()
        ids, columns = RowIds(count), dict[str, None]()
        self._repeated.clear()
        for row in self:
            if earlier := ids.add(row.id, row.number):
                self._repeated[row.number] = earlier
            if row.columns and len(columns) < MAX_NAMED:
                columns |= dict.fromkeys(row.columns)
        return Survey(count, digest, tuple(columns)[:MAX_NAMED])

    def _count(self) -> tuple[int, str]:
        """Return the number of rows, and the digest of the file's bytes."""
        with self.path.open("rb") as file:
            if self._suffix in _LINES:
                digest = hashlib.blake2b(digest_size=16)
                count = 0
                for line in file:
                    digest.update(line)
                    count += not line.isspace()
                return count, digest.hexdigest()
            file_digest = hashlib.file_digest(file, partial(hashlib.blake2b, digest_size=16)).hexdigest()
        if self._suffix == _PARQUET:
            return _parquet(self.path).metadata.num_rows, file_digest
        return max(0, sum(1 for _ in self._records()) - 1), file_digest

    def __iter__(self) -> Iterator[Row]:
        """Return an iterator over the rows in their order; it holds one row or record batch in memory."""
        if self._suffix in _LINES:
            return self._lines()
        return self._parquet_rows() if self._suffix == _PARQUET else self._csv_rows()

    # --- lines of JSON

    def _lines(self) -> Iterator[Row]:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.isspace():
                    yield self._line(number, line)

    def _line(self, number: int, line: bytes) -> Row:
        try:
            value = parse_json((line.removeprefix(codecs.BOM_UTF8) if number == 1 else line).decode())
        except ValueError as exc:
            return Row(number=number, id=number, wrong=f"line {number} is no JSON: {exc}")
        if not isinstance(value, dict):
            return Row(number=number, id=number, wrong=f"line {number} must be a JSON object, input names to values")
        return self._row(number, value)

    def _row(self, number: int, values: dict[str, JSON]) -> Row:
        row_id = values.get(ID, number)
        if ID in values and ID not in self._spec.inputs:
            del values[ID]
        if earlier := self._repeated.get(number):
            return Row(number=number, id=number, wrong=f"row {number} has the id {row_id!r} of row {earlier}")
        if not isinstance(row_id, (str, int)) or isinstance(row_id, bool) or find_encoding_error(row_id):
            return Row(number=number, id=number, wrong=f"row {number}: id must be a text or a whole number")
        further = {name: values.pop(name) for name in [name for name in values if name not in self._spec.inputs]}
        return Row(number=number, id=row_id, inputs=values, columns=further)

    # --- tables

    def _check_columns(self) -> None:
        columns = _parquet(self.path).schema_arrow.names if self._suffix == _PARQUET else next(self._records(), [])
        if byte := _byte_that_is_no_text(columns):
            raise UsageError(f"{self.path}: its first line is not in UTF-8: it holds the byte {byte}")
        if twice := [name for name, times in Counter(columns).items() if times > 1]:
            raise UsageError(f"{self.path}: two columns have the same name: {cut(', '.join(twice), MAX_CHARACTERS)}")

    def _records(self) -> Iterator[list[str]]:
        # bytes that are no UTF-8 become surrogates, and cost their record only
        csv.field_size_limit(sys.maxsize)  # 131,072 characters are few for a document
        with self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
            try:
                yield from filter(None, csv.reader(file, delimiter=_CSV[self._suffix], strict=True))
            except csv.Error as exc:
                raise UsageError(f"{self.path} cannot be read as CSV: {exc}") from exc

    def _csv_rows(self) -> Iterator[Row]:
        records = self._records()
        columns = next(records, [])
        for number, record in enumerate(records, 1):
            if len(record) != len(columns):
                wrong = f"record {number} has {len(record)} cells, and the table has {len(columns)} columns"
                yield Row(number=number, id=number, wrong=wrong)
                continue
            if byte := _byte_that_is_no_text(record):
                yield Row(number=number, id=number, wrong=f"record {number} is not in UTF-8: it holds the byte {byte}")
                continue
            # An empty cell is a missing value: CSV cannot express it in another way.
            cells = {column: cell for column, cell in zip(columns, record, strict=True) if cell}
            yield self._row(number, {column: self._cell(column, cell) for column, cell in cells.items()})

    def _cell(self, column: str, cell: str) -> JSON:
        """Parse a cell: text if the input may be text, else JSON; text again if it is no JSON."""
        if may_be_text(self._spec.inputs.get(column, {})):
            return cell
        try:
            return parse_json(cell)
        except ValueError:
            return cell  # the check against the input's schema reports it

    def _parquet_rows(self) -> Iterator[Row]:
        number = 0
        for batch in _parquet(self.path).iter_batches(batch_size=1024):
            for record in batch.to_pylist():
                number += 1
                try:
                    values = {column: to_json(value) for column, value in record.items() if value is not None}
                except NotJSON as exc:
                    yield Row(number=number, id=number, wrong=f"row {number} holds {exc}")
                    continue
                yield self._row(number, values)


def _byte_that_is_no_text(cells: Sequence[str]) -> str | None:
    """Return the first byte that is no UTF-8 in the cells of a record, such as ``0xe9``; None if there is none."""
    found = next((byte for cell in cells if not cell.isascii() and (byte := _UNDECODED.search(cell))), None)
    return None if found is None else f"{ord(found[0]) - 0xDC00:#x}"


def _parquet(path: Path) -> Any:
    arrow = load_arrow(path)
    try:
        return arrow.parquet.ParquetFile(path)
    except (arrow.ArrowException, OSError) as exc:
        raise UsageError(f"{path} cannot be read as Parquet: {exc}") from exc
