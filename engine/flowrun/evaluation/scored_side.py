"""The records of one side with their scores, in the order of the rows. Memory holds their scores, not their texts."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import msgspec

from flowrun.batch.lines import GONE, inputs_of
from flowrun.batch.rows import Row
from flowrun.core.messages import Usage
from flowrun.errors import StoreError
from flowrun.evaluation.scoring import Scored, ScoredRun, Scorer, run_to_score
from flowrun.excerpts import cut
from flowrun.files import file_errors, replaced_private
from flowrun.records import Entry, RecordFiles
from flowrun.records.record import parse_record
from flowrun.runtime.run_result import mask_result
from flowrun.spec import mask
from flowrun.spec.strict_json import same
from flowrun.unicode import one_json_line, well_formed

Rows = Mapping[str, Row]
"""The rows of an evaluation by their ids, as texts: 1 and "1" are one row, in a batch too."""

_LONGEST_REASON: Final = 2000  # characters


class RunScores(NamedTuple):
    """The scores of a run, and where its record is in the file of the side.

    Attributes:
        scores: by name; None for one that the run does not have.
        errors: why it could not be scored, by score.
    """

    id: str
    sample: int
    status: str
    scores: Mapping[str, float | bool | None]
    errors: Mapping[str, str]
    usage: Usage
    seconds: float | None
    offset: int
    line: int


class ScoredSide(NamedTuple):
    """The scored records of a side.

    Attributes:
        changed: the number of records that answer other inputs than their rows have now; they are left out.
        locked: what the records say of the lock of their models, as text.
    """

    path: Path
    runs: Sequence[RunScores]
    changed: int = 0
    locked: Sequence[str] = ()

    def by_row(self, score: str) -> dict[str, list[float]]:
        """Return the scores of each row's samples, by the rows' ids, without rows that have none."""
        found: dict[str, list[float]] = {}
        for run in self.runs:
            if (value := run.scores.get(score)) is not None:
                found.setdefault(run.id, []).append(float(value))
        return found

    def entries(self, runs: Sequence[RunScores]) -> Iterator[Entry]:
        """Yield the records of runs, in this order."""
        with file_errors(str(self.path)), self.path.open("rb") as file:
            for run in runs:
                file.seek(run.offset)
                raw = file.readline()
                record = parse_record(raw)
                assert record is not None  # this process has written it
                yield Entry(str(self.path), run.line, raw, record)


class SideRecords:
    """The records of a side as they were made, read in the order of the rows.

    The files stay open: a file that takes the place of one of them changes nothing.

    Attributes:
        changed: see ``ScoredSide``.
    """

    def __init__(self, results: Path, rows: Rows, samples: int) -> None:
        """Find where the record of each run is.

        Args:
            samples: the number of samples of each row that count.

        Raises:
            UsageError: there are no results, or they cannot be read.
        """
        self.changed = 0
        self._rows = rows
        self._samples = samples
        self._places: dict[tuple[int, int], tuple[BinaryIO, int]] = {}
        self._files: list[BinaryIO] = []
        for path in RecordFiles(results).files:
            with file_errors(str(path)):
                file = path.open("rb")
                self._files.append(file)
                offset = 0
                for raw in file:
                    self._add(file, offset, raw)
                    offset += len(raw)

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()

    def _add(self, file: BinaryIO, offset: int, raw: bytes) -> None:
        record = parse_record(raw)
        row = None if record is None or record.id is None else self._rows.get(str(record.id))
        if record is None or row is None or record.row == GONE or (record.sample or 1) > self._samples:
            return
        recorded = {} if record.masked else inputs_of(raw)
        if any(name in recorded and not same(recorded[name], value) for name, value in row.inputs.items()):
            self.changed += 1
        else:
            self._places[row.number, record.sample or 1] = file, offset

    def __iter__(self) -> Iterator[tuple[Row, ScoredRun, bytes]]:
        """Yield each run with its row, and its record's line."""
        numbers = {row.number: row for row in self._rows.values()}
        for (number, sample), (file, offset) in sorted(self._places.items(), key=lambda place: place[0]):
            file.seek(offset)
            raw = file.readline()
            record, row = parse_record(raw), numbers[number]
            if record is None or str(record.id) != str(row.id) or (record.sample or 1) != sample:
                raise StoreError(f"{file.name} was changed while it was read: run the same command again")
            yield row, run_to_score(record, raw, row), raw

    def runs(self) -> Iterator[ScoredRun]:
        """Yield the runs."""
        return (run for _, run, _ in self)


def write_scored(
    records: SideRecords,
    path: Path,
    scorers: Mapping[str, Scorer],
    secrets: Mapping[str, str],
) -> ScoredSide:
    """Score the records of a side, and write them with their scores.

    Args:
        scorers: by the names of the scores.
        secrets: what no record may hold, each with the text that replaces it.
    """
    scored: list[RunScores] = []
    models: dict[bytes, None] = {}
    offset = 0
    with file_errors(str(path)), replaced_private(path) as file:
        for line, (row, run, raw) in enumerate(records, 1):
            found = {name: scorer(run) for name, scorer in scorers.items()}
            written = one_json_line(_with_scores(raw, row, found, secrets)) + b"\n"
            file.write(written)
            record = run.record
            models[bytes(record.models)] = None
            scored.append(
                RunScores(
                    id=str(row.id),
                    sample=record.sample or 1,
                    status=record.status,
                    scores={name: one.value for name, one in found.items()},
                    errors={name: _reason(one, secrets) for name, one in found.items() if one.is_error},
                    usage=record.usage,
                    seconds=record.seconds,
                    offset=offset,
                    line=line,
                )
            )
            offset += len(written)
    return ScoredSide(path, scored, records.changed, list(_locked(models)))


def _locked(models: Iterable[bytes]) -> Iterator[str]:
    """Yield what records say of the lock of their models, each once; nothing if there was none.

    Args:
        models: the member ``models`` of records, as it is written.
    """
    found: dict[str, None] = {}
    for written in filter(None, models):
        for name, model in (msgspec.json.decode(written) or {}).items():
            if locked := model.get("locked"):
                commit = f", commit {locked['commit'][:12]}" if "commit" in locked else ""
                vllm = f", vLLM {locked['vllm']}" if "vllm" in locked else ""
                found[f"{name} {model['name']}{commit}{vllm}, lock {locked['digest']}"] = None
    yield from found


def _with_scores(raw: bytes, row: Row, found: Mapping[str, Scored], secrets: Mapping[str, str]) -> bytes:
    """Return a record with its scores, and with the other columns of its row as they are now."""
    members: dict[str, Any] = {**msgspec.json.decode(raw), "columns": row.columns}
    if not row.columns:
        del members["columns"]
    members = mask_result(members, secrets)
    reasons = {name: _reason(one, secrets) for name, one in found.items() if one.reason}
    members |= {"scores": {name: one.value for name, one in found.items()}}
    return msgspec.json.encode(members | ({"reasons": reasons} if reasons else {}))


def _reason(scored: Scored, secrets: Mapping[str, str]) -> str:
    """Return the reason of a score, masked before it is cut."""
    return cut(mask(well_formed(scored.reason), secrets), _LONGEST_REASON)
