"""What an evaluation says, for people: cells of a table, one page with the rows that changed first, and JUnit."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec
from markupsafe import Markup

from flowrun.durations import spell_duration
from flowrun.evaluation.eval_file import EvalFile
from flowrun.evaluation.scored_side import Rows, ScoredSide
from flowrun.evaluation.statistics import Difference, Estimate
from flowrun.evaluation.summary import Costs, EvalSummary, GroupSummary, RowChange, ScoreSummary, changes_of
from flowrun.excerpts import cut
from flowrun.records import Entry, Record, render_table_page
from flowrun.records.record import pretty_json
from flowrun.spec import place_of
from flowrun.spec.model import JSON
from flowrun.testing.compare import Problem
from flowrun.testing.verdict import Verdict
from flowrun.transcript.page_parts import page_templates, read_part
from flowrun.unicode import visible

_LONGEST: Final = 60
"""The characters of a group's value in a table."""

_CHANGE: Final = "change"


class Table(NamedTuple):
    """A table as text: the names of its columns, and its rows."""

    head: Sequence[str]
    body: Sequence[Sequence[str]]


def table_of(summary: EvalSummary) -> Table:
    """Return the scores, each followed by its groups."""
    compared = summary.against is not None
    sampled = summary.samples > 1
    head = ["score", "mean", *([f"pass@{summary.samples}", f"pass^{summary.samples}"] if sampled else [])]
    head += [visible(str(summary.against)), "difference", "won", "lost", "p"] if compared else []
    body: list[list[str]] = []
    for score in summary.scores:
        cells = [score.name, _estimate(score.estimate)]
        cells += [_share(score.pass_at), _share(score.pass_all)] if sampled else []
        cells += [_mean(score.theirs), *_difference(score.difference)] if compared else []
        body.append(cells)
        body += [_group(group, sampled=sampled, compared=compared) for group in score.groups]
    return Table(head, body)


def _group(group: GroupSummary, *, sampled: bool, compared: bool) -> list[str]:
    value = group.value if isinstance(group.value, str) and not _is_json(group.value) else _as_json(group.value)
    rows = group.estimate.rows
    name = f"  {group.member} {cut(visible(value), _LONGEST, '…')} ({rows} row{'s' if rows != 1 else ''})"
    cells = [name, _estimate(group.estimate), *(["", ""] if sampled else [])]
    return [*cells, *(["", *_difference(group.difference)] if compared else [])]


def _is_json(text: str) -> bool:
    """Return whether a text could be taken for another value, as 1 for a number."""
    try:
        msgspec.json.decode(text)
    except ValueError:
        return False
    return True


def _as_json(value: JSON) -> str:
    return msgspec.json.encode(value).decode()


def notes_of(summary: EvalSummary) -> Iterator[str]:
    """Yield what else is to be said: costs, tests, runs without a score."""
    if summary.missing:
        yield f"{summary.missing} runs have no record yet: run the same command again"
    yield _costs("each run", summary.costs)
    if summary.their_costs is not None:
        yield _costs(f"{visible(str(summary.against))}", summary.their_costs)
    for locked, whose in ((summary.locked, "models"), (summary.their_locked, f"models of {summary.against}")):
        if locked:
            yield visible(f"{whose}, as they were locked: {'; '.join(locked)}")
    tests = {score.difference.test for score in summary.scores if score.difference is not None}
    if tests:
        yield f"p: {' and '.join(sorted(tests))}, over the {summary.paired} rows that both have"
    for score in summary.scores:
        if score.unscored:
            yield f"{score.name}: {score.unscored} runs have no score: {visible(cut(score.why, 300, '…'))}"


def _costs(what: str, costs: Costs) -> str:
    seconds = "" if costs.seconds is None else f", {spell_duration(costs.seconds)}"
    failed = f", {costs.failed} of {costs.runs} runs did not succeed" if costs.failed else ""
    return f"{what}: {costs.prompt_tokens:,.0f} + {costs.completion_tokens:,.0f} tokens{seconds}{failed}"


def _estimate(estimate: Estimate | None) -> str:
    if estimate is None:
        return "none"
    if estimate.interval is None:
        return f"{estimate.mean:.3g}"
    return f"{estimate.mean:.3f} [{estimate.interval.low:.3f}, {estimate.interval.high:.3f}]"


def _mean(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.mean:.3f}"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.3f}"


def _difference(difference: Difference | None) -> list[str]:
    if difference is None:
        return ["", "", "", ""]
    interval = difference.interval
    around = "" if interval is None else f" [{interval.low:+.3f}, {interval.high:+.3f}]"
    p_value = "" if difference.p_value is None else f"{difference.p_value:.2g}"
    return [f"{difference.mean:+.3f}{around}", str(difference.won), str(difference.lost), p_value]


# --- data ---------------------------------------------------------------------------------------------------------


def as_data(summary: EvalSummary) -> dict[str, Any]:
    """Return a summary as JSON data, with names for the members of its tuples."""
    return {
        "name": summary.name,
        "passes": summary.passes,
        "rows": summary.rows,
        "missing": summary.missing,
        "samples": summary.samples,
        "against": summary.against,
        "paired": summary.paired,
        "scores": {score.name: _score_data(score) for score in summary.scores},
        "gates": msgspec.to_builtins(summary.gates),
        "costs": msgspec.to_builtins(summary.costs),
        "their_costs": msgspec.to_builtins(summary.their_costs),
        "locked": list(summary.locked),
        "their_locked": list(summary.their_locked),
    }


def _score_data(score: ScoreSummary) -> dict[str, Any]:
    return {
        "mean": _estimate_data(score.estimate),
        "pass_at": score.pass_at,
        "pass_all": score.pass_all,
        "theirs": _estimate_data(score.theirs),
        "difference": _difference_data(score.difference),
        "groups": [
            {
                "member": group.member,
                "value": group.value,
                "mean": _estimate_data(group.estimate),
                "difference": _difference_data(group.difference),
            }
            for group in score.groups
        ],
        "unscored": score.unscored,
    }


def _estimate_data(estimate: Estimate | None) -> JSON:
    return None if estimate is None else {**estimate._asdict(), "interval": _pair(estimate.interval)}


def _difference_data(difference: Difference | None) -> JSON:
    return None if difference is None else {**difference._asdict(), "interval": _pair(difference.interval)}


def _pair(interval: tuple[float, float] | None) -> JSON:
    return None if interval is None else list(interval)


# --- JUnit --------------------------------------------------------------------------------------------------------


def verdicts_of(file: EvalFile, summary: EvalSummary) -> list[Verdict]:
    """Return a test for each gate, and one for each score: whether every run has it."""
    verdicts = [
        Verdict(
            file=str(file.path),
            name=f"gate {gate.score} {gate.what}",
            place=place_of(file.document, ("gate", gate.score, gate.what)),
            status={"passed": "passed", "failed": "failed", "unchecked": "skipped"}[gate.status],  # type: ignore[arg-type]
            reason=gate.message,
            problems=(Problem(what=gate.message),) if gate.status == "failed" else (),
        )
        for gate in summary.gates
    ]
    for score in summary.scores:
        problems = (Problem(what=f"{score.unscored} runs have no score", lines=(score.why,)),) if score.unscored else ()
        verdicts.append(
            Verdict(
                file=str(file.path),
                name=f"score {score.name}",
                place=place_of(file.document, ("scores", score.name)),
                status="failed" if problems else "passed",
                problems=problems,
            )
        )
    return verdicts


# --- the page -----------------------------------------------------------------------------------------------------


def render_report(summary: EvalSummary, rows: Rows, ours: ScoredSide, theirs: ScoredSide | None) -> Iterator[bytes]:
    """Yield the page: the scores, and the records, of which those of rows that changed stand first."""
    changes = [] if theirs is None else changes_of(rows, ours, theirs, [score.name for score in summary.scores])
    entries = _entries(ours, theirs, changes)
    return render_table_page(summary.name, entries, heading="Evaluation", above=_above(summary, len(changes)))


def _above(summary: EvalSummary, changed: int) -> Markup:
    table = table_of(summary)
    page = _template().render(
        summary=summary, head=table.head, body=table.body, notes=list(notes_of(summary)), changed=changed
    )
    return Markup(page)  # noqa: S704 - its template escapes


@cache
def _template() -> Any:
    return page_templates({"summary": read_part("summary.html.jinja", __package__)}).get_template("summary")


def _entries(ours: ScoredSide, theirs: ScoredSide | None, changes: Sequence[RowChange]) -> Iterator[Entry]:
    places = {change.id: place for place, change in enumerate(changes)}
    runs = sorted(ours.runs, key=lambda run: places.get(run.id, len(places)))  # stable: the others stay in order
    if theirs is None:
        yield from ours.entries(runs)
        return
    others = {(run.id, run.sample): run for run in theirs.runs}
    by_row = {change.id: change.changes for change in changes}
    for run, entry in zip(runs, ours.entries(runs), strict=True):
        other = others.get((run.id, run.sample))
        beside = "" if other is None else next(map(_beside, theirs.entries([other])))
        scores = _with_changes(entry.record, by_row.get(run.id, {}))
        record = msgspec.structs.replace(entry.record, scores=scores)
        yield entry._replace(record=record, beside=beside)


def _with_changes(record: Record, changes: Mapping[str, float]) -> dict[str, JSON]:
    """Return the scores of a record, each with how far the mean of its row changed."""
    scores: dict[str, JSON] = {}
    for name, value in (record.scores or {}).items():
        scores[name] = value
        scores[f"{name} {_CHANGE}"] = round(changes.get(name, 0.0), 6)
    return scores


def _beside(entry: Entry) -> str:
    """Return what the other side said in a run, as text."""
    record = entry.record
    error = record.error
    parts = [record.status if error is None else f"{record.status}: {error.name}: {error.message}"]
    parts += [pretty_json(record.output)] if record.output else []
    parts += [f"{name}: {reason}" for name, reason in (record.reasons or {}).items()]
    return visible("\n".join(parts))
