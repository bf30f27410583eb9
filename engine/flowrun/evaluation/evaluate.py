"""The scores of an eval file, made of the records of its sides: what judges are to be asked, and the scored records."""

from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path

from flowrun.batch.rows import RowFile
from flowrun.errors import SpecError
from flowrun.evaluation.eval_file import EvalFile, FunctionScore
from flowrun.evaluation.judging import FILE, Judge, Judgements, Question, questions_of
from flowrun.evaluation.scored_side import Rows, ScoredSide, SideRecords, write_scored
from flowrun.evaluation.scoring import Scorer, compile_score
from flowrun.runtime.project import CompiledFlow, Project
from flowrun.spec import EntrypointError, issue_at, mask


class Scoring:
    """The scores of an eval file, ready to be made.

    Attributes:
        rows: the rows by their ids.
        secrets: those of the flow and the judges, each with the text that replaces it.
    """

    def __init__(
        self, file: EvalFile, flow: CompiledFlow, project: Project, folder: Path, cassette: str | None = None
    ) -> None:
        """Import the functions, compile the judges, and read the rows and the judgements.

        Args:
            folder: of the evaluation, where judgements are kept.
            cassette: replies in place of the judges' models.

        Raises:
            SpecError: a function cannot be imported, or a judge has errors.
            UsageError: the rows cannot be read.
        """
        self._file = file
        self.rows = read_rows(file, flow)
        self._scorers = _compile(file, project.folder)
        self._judges = {
            name: Judge(score, project.compile(score.flow), cassette) for name, score in file.judges.items()
        }
        self.secrets = {**flow.secrets}
        for judge in self._judges.values():
            self.secrets |= judge.flow.secrets
        self.judgements = Judgements(folder / FILE)

    def records(self, results: Path) -> SideRecords:
        """Return the records of a side. Raises as ``SideRecords`` does."""
        return SideRecords(results, self.rows, self._file.samples)

    def questions(self, sides: Iterable[SideRecords]) -> dict[str, tuple[Judge, list[Question]]]:
        """Return what judges are to be asked about the records of sides, by the names of the scores."""
        found: dict[str, tuple[Judge, list[Question]]] = {}
        listed = list(sides)
        for name, judge in self._judges.items():
            runs = (run for side in listed for run in side.runs())
            if questions := list(questions_of(judge, runs, self.judgements)):
                found[name] = (judge, questions)
        return found

    def shown_rows(self) -> Rows:
        """Return the rows without secrets, for people."""
        return {name: mask(row, self.secrets) for name, row in self.rows.items()} if self.secrets else self.rows

    def write(self, records: SideRecords, path: Path) -> ScoredSide:
        """Score the records of a side, and write them with their scores."""
        judges = {name: partial(self.judgements.score, judge) for name, judge in self._judges.items()}
        scorers: Mapping[str, Scorer] = {**self._scorers, **judges}
        in_order = {name: scorers[name] for name in self._file.scores}
        return write_scored(records, path, in_order, self.secrets)


def read_rows(file: EvalFile, flow: CompiledFlow) -> Rows:
    """Return the rows of an evaluation by their ids.

    Raises:
        UsageError: they cannot be read.
    """
    rows = RowFile(file.rows, flow.spec)
    rows.survey()
    return {str(row.id): row for row in rows}


def _compile(file: EvalFile, project_dir: Path | None) -> dict[str, Scorer]:
    found: dict[str, Scorer] = {}
    for name, score in file.scores.items():
        try:
            scorer = compile_score(score, file.path, project_dir)
        except EntrypointError as exc:
            assert isinstance(score, FunctionScore)
            at = ("scores", name, "entrypoint")
            raise SpecError([issue_at(file.document, "FR501", at, exc.message, exc.remedy)]) from exc
        if scorer is not None:
            found[name] = scorer
    return found
