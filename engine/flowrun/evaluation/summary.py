"""What an evaluation says: each score's mean with its interval, its difference to another side, and the gates. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from flowrun.batch.rows import Row
from flowrun.core.messages import Usage
from flowrun.evaluation.eval_file import EvalFile, Gate
from flowrun.evaluation.scored_side import Rows, RunScores, ScoredSide
from flowrun.evaluation.statistics import NOISE, Difference, Estimate, difference, estimate, mean_of, pass_all, pass_at
from flowrun.spec.model import JSON


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What the runs of a side took, each as the mean of a run; ``seconds`` is None if no record says it."""

    runs: int
    failed: int
    prompt_tokens: float
    completion_tokens: float
    seconds: float | None


class GroupSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A score in the rows that have a value for a member; ``value`` is None for those that lack it."""

    member: str
    value: JSON
    estimate: Estimate
    difference: Difference | None = None


class ScoreSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What an evaluation says of a score.

    Attributes:
        estimate: None if no run has the score.
        pass_at, pass_all: pass@k and pass^k for k samples a row; None for one sample, if rows have fewer, or if the
            score has other values than 0 and 1.
        theirs: the estimate of the other side, over the rows that both have.
        unscored: the number of runs that could not be scored, though they should.
        why: why the first of these could not.
    """

    name: str
    estimate: Estimate | None
    pass_at: float | None = None
    pass_all: float | None = None
    theirs: Estimate | None = None
    difference: Difference | None = None
    groups: Sequence[GroupSummary] = ()
    unscored: int = 0
    why: str = ""


class GateVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a gate is passed; ``unchecked`` if there is nothing to compare with."""

    score: str
    what: Literal["at_least", "max_drop"]
    status: Literal["passed", "failed", "unchecked"]
    limit: float
    value: float | None
    message: str


class EvalSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What an evaluation says.

    Attributes:
        against: what it is compared with, as the user named it.
        rows: the number of rows that have a record.
        missing: the number of runs that have none.
        paired: the number of rows that both sides have.
        locked, their_locked: see ``ScoredSide``.
    """

    name: str
    samples: int
    rows: int
    missing: int
    scores: Sequence[ScoreSummary]
    gates: Sequence[GateVerdict]
    costs: Costs
    against: str | None = None
    paired: int = 0
    their_costs: Costs | None = None
    locked: Sequence[str] = ()
    their_locked: Sequence[str] = ()

    @property
    def passes(self) -> bool:
        """Return whether every gate that could be checked is passed, and every run has its record and scores."""
        failed = any(gate.status == "failed" for gate in self.gates)
        return not (failed or self.missing or any(score.unscored for score in self.scores))


class RowChange(NamedTuple):
    """How a row's scores differ between two sides: by the score, our mean minus theirs."""

    id: str
    number: int
    changes: Mapping[str, float]

    @property
    def lost(self) -> bool:
        """Return whether a score is lower."""
        return any(change < 0 for change in self.changes.values())

    @property
    def size(self) -> float:
        """Return how much the scores differ."""
        return sum(map(abs, self.changes.values()))


def summarize(
    file: EvalFile, rows: Rows, ours: ScoredSide, theirs: ScoredSide | None = None, against: str | None = None
) -> EvalSummary:
    """Return what an evaluation says.

    Args:
        against: the name of the other side.
    """
    scores = [_score(name, file, rows, ours, theirs) for name in file.scores]
    by_name = {score.name: score for score in scores}
    paired = {run.id for run in theirs.runs} & {run.id for run in ours.runs} if theirs is not None else set()
    return EvalSummary(
        name=file.name,
        samples=file.samples,
        rows=len({run.id for run in ours.runs}),
        missing=len(rows) * file.samples - len(ours.runs),
        scores=scores,
        gates=[
            verdict for name, gate in file.gates.items() for verdict in _gates_of(name, gate, by_name[name], against)
        ],
        costs=_costs(ours.runs),
        against=against if theirs is not None else None,
        paired=len(paired),
        their_costs=None if theirs is None else _costs(theirs.runs),
        locked=ours.locked,
        their_locked=() if theirs is None else theirs.locked,
    )


def changes_of(rows: Rows, ours: ScoredSide, theirs: ScoredSide, scores: Sequence[str]) -> list[RowChange]:
    """Return the rows whose scores differ: first those that lost, the largest change first."""
    changes: dict[str, dict[str, float]] = {}
    for score in scores:
        mine, others = ours.by_row(score), theirs.by_row(score)
        for row in mine.keys() & others.keys():
            change = mean_of(mine[row]) - mean_of(others[row])
            if abs(change) > NOISE:
                changes.setdefault(row, {})[score] = change
    found = [RowChange(row, rows[row].number, changed) for row, changed in changes.items()]
    return sorted(found, key=lambda change: (not change.lost, -change.size, change.number))


def _score(name: str, file: EvalFile, rows: Rows, ours: ScoredSide, theirs: ScoredSide | None) -> ScoreSummary:
    mine = ours.by_row(name)
    others = None if theirs is None else theirs.by_row(name)
    errors = [
        run.errors[name] for side in (ours, theirs) if side is not None for run in side.runs if name in run.errors
    ]
    groups = list(mine.values())
    shared = [] if others is None else sorted(mine.keys() & others.keys(), key=lambda row: rows[row].number)
    sampled = file.samples > 1 and all(value in (0, 1) for group in groups for value in group)
    return ScoreSummary(
        name=name,
        estimate=estimate(groups) if groups else None,
        pass_at=pass_at(file.samples, groups) if sampled else None,
        pass_all=pass_all(file.samples, groups) if sampled else None,
        theirs=None if others is None or not shared else estimate([others[row] for row in shared]),
        difference=_difference(shared, mine, others),
        groups=[one for member in file.groups for one in _groups(member, rows, mine, others)],
        unscored=len(errors),
        why=errors[0] if errors else "",
    )


def _groups(
    member: str,
    rows: Rows,
    mine: Mapping[str, Sequence[float]],
    others: Mapping[str, Sequence[float]] | None,
) -> Iterator[GroupSummary]:
    by_value: dict[bytes, list[str]] = {}
    for row in sorted(mine, key=lambda row: rows[row].number):
        by_value.setdefault(msgspec.json.encode(_member(rows[row], member)), []).append(row)
    for value, listed in sorted(by_value.items()):
        shared = [row for row in listed if others is not None and row in others]
        yield GroupSummary(
            member=member,
            value=msgspec.json.decode(value),
            estimate=estimate([mine[row] for row in listed]),
            difference=_difference(shared, mine, others),
        )


def _member(row: Row, member: str) -> JSON:
    return {"id": row.id, **row.inputs, **row.columns}.get(member)


def _difference(
    shared: Sequence[str],
    mine: Mapping[str, Sequence[float]],
    others: Mapping[str, Sequence[float]] | None,
) -> Difference | None:
    if others is None or not shared:
        return None
    return difference([mine[row] for row in shared], [others[row] for row in shared])


def _gates_of(name: str, gate: Gate, score: ScoreSummary, against: str | None) -> Iterator[GateVerdict]:
    if gate.at_least is not None:
        mean = None if score.estimate is None else score.estimate.mean
        passed = mean is not None and mean >= gate.at_least
        said = "no run has this score" if mean is None else f"the mean is {mean:.4g}"
        yield GateVerdict(
            score=name,
            what="at_least",
            status="passed" if passed else "failed",
            limit=gate.at_least,
            value=mean,
            message=f"{name} at least {gate.at_least:g}: {said}",
        )
    if gate.max_drop is not None:
        yield _gate_of_drop(name, gate.max_drop, score, against)


def _gate_of_drop(name: str, limit: float, score: ScoreSummary, against: str | None) -> GateVerdict:
    what = f"{name} at most {limit:g} below"
    if against is None:
        message = f"{what} another version: give --against, to compare with one"
        return GateVerdict(score=name, what="max_drop", status="unchecked", limit=limit, value=None, message=message)
    change = None if score.difference is None else score.difference.mean
    passed = change is not None and change >= -limit
    said = "no row has the score on both sides" if change is None else f"the difference is {change:+.4g}"
    return GateVerdict(
        score=name,
        what="max_drop",
        status="passed" if passed else "failed",
        limit=limit,
        value=change,
        message=f"{what} {against}: {said}",
    )


def _costs(runs: Sequence[RunScores]) -> Costs:
    usage = sum((run.usage for run in runs), Usage())
    times = [run.seconds for run in runs if run.seconds is not None]
    return Costs(
        runs=len(runs),
        failed=sum(run.status != "succeeded" for run in runs),
        prompt_tokens=usage.prompt_tokens / max(len(runs), 1),
        completion_tokens=usage.completion_tokens / max(len(runs), 1),
        seconds=mean_of(times) if times else None,
    )
