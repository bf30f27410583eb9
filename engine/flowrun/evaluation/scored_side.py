"""The records of one side with their scores, in the order of the rows. Memory holds their scores, not their texts."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from flowrun.batch.lines import GONE, has_other_inputs, raw_lines
from flowrun.batch.rows import Row
from flowrun.core.messages import Usage
from flowrun.evaluation.scoring import Scored, ScoredRun, Scorer, run_to_score
from flowrun.files import file_errors, replaced_private
from flowrun.records import Entry, RecordFiles
from flowrun.records.record import parse_record
from flowrun.spec import mask
from flowrun.unicode import one_json_line

Rows = Mapping[str | int, Row]
"""The rows of an evaluation by their ids."""


class RunScores(NamedTuple):
    """The scores of a run, and where its record is in the file of the side.

    Attributes:
        scores: by name; None for one that the run does not have.
        errors: why it could not be scored, by score.
    """

    id: str | int
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
        others: the number of records of no row; they are left out.
    """

    path: Path
    runs: Sequence[RunScores]
    changed: int = 0
    others: int = 0

    def by_row(self, score: str) -> dict[str | int, list[float]]:
        """Return the scores of each row's samples, by the rows' ids, without rows that have none."""
        found: dict[str | int, list[float]] = {}
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

    Attributes:
        changed, others: see ``ScoredSide``.
    """

    def __init__(self, results: Path, rows: Rows, samples: int) -> None:
        """Find where the record of each run is.

        Args:
            samples: the number of samples of each row that count.

        Raises:
            UsageError: there are no results, or they cannot be read.
        """
        self.changed = self.others = 0
        self._rows = rows
        self._places: list[tuple[int, int, Path, int]] = []
        for file in RecordFiles(results).files:
            with file_errors(str(file)):
                for offset, raw in raw_lines(file):
                    self._add(file, offset, raw, samples)
        self._places.sort(key=lambda place: place[:2])

    def _add(self, file: Path, offset: int, raw: bytes, samples: int) -> None:
        record = parse_record(raw)
        if record is None:
            return
        row = None if record.id is None else self._rows.get(record.id)
        if row is None or record.row == GONE or (record.sample or 1) > samples:
            self.others += 1
        elif has_other_inputs(raw, row.inputs):
            self.changed += 1
        else:
            self._places.append((row.number, record.sample or 1, file, offset))

    def __iter__(self) -> Iterator[tuple[Row, ScoredRun, bytes]]:
        """Yield each run with its row, and its record's line."""
        numbers = {row.number: row for row in self._rows.values()}
        opened: dict[Path, Any] = {}
        try:
            for number, _, path, offset in self._places:
                file = opened.get(path) or opened.setdefault(path, path.open("rb"))
                file.seek(offset)
                raw = file.readline()
                record = parse_record(raw)
                if record is not None:
                    row = numbers[number]
                    yield row, run_to_score(record, raw, row), raw
        finally:
            for file in opened.values():
                file.close()

    def runs(self) -> Iterator[ScoredRun]:
        """Yield the runs."""
        return (run for _, run, _ in self)

    def first(self) -> Mapping[str, Any]:
        """Return the first record; an empty mapping if there is none."""
        return next((run.data for run in self.runs()), {})


def write_scored(
    records: SideRecords,
    path: Path,
    scorers: Mapping[str, Scorer],
    secrets: Mapping[str, str],
) -> ScoredSide:
    """Score the records of a side, and write them with their scores.

    Args:
        scorers: by the names of the scores.
        secrets: what no reason may hold, each with the text that replaces it.
    """
    scored: list[RunScores] = []
    offset = 0
    with file_errors(str(path)), replaced_private(path) as file:
        for line, (row, run, raw) in enumerate(records, 1):
            found = {name: scorer(run) for name, scorer in scorers.items()}
            written = one_json_line(_with_scores(raw, found, secrets)) + b"\n"
            file.write(written)
            record = run.record
            scored.append(
                RunScores(
                    id=row.id,
                    sample=record.sample or 1,
                    status=record.status,
                    scores={name: one.value for name, one in found.items()},
                    errors={name: mask(one.reason, secrets) for name, one in found.items() if one.is_error},
                    usage=record.usage,
                    seconds=record.seconds,
                    offset=offset,
                    line=line,
                )
            )
            offset += len(written)
    return ScoredSide(path, scored, records.changed, records.others)


def _with_scores(raw: bytes, found: Mapping[str, Scored], secrets: Mapping[str, str]) -> bytes:
    members = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    reasons = {name: mask(one.reason, secrets) for name, one in found.items() if one.reason}
    scores: dict[str, Any] = {**members, "scores": {name: one.value for name, one in found.items()}, "reasons": reasons}
    if not reasons:
        del scores["reasons"]
    return msgspec.json.encode(scores)
