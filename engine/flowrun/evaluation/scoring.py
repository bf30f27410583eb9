"""Scores of a run: functions of its record and its row, so that what was recorded can be scored again. No model here.

A run that did not succeed and cannot be scored, because what a score reads is not there, has the score 0. A run that
succeeded and cannot be scored has none: this is a mistake of the eval, which its result says.
"""

import asyncio
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, assert_never

import msgspec

from flowrun.batch.results import SUCCEEDED
from flowrun.batch.rows import Row
from flowrun.errors import Failure
from flowrun.evaluation.comparisons import COMPARISONS
from flowrun.evaluation.eval_file import (
    ComparisonScore,
    ConditionScore,
    ExpectationScore,
    FunctionScore,
    JudgeScore,
    Score,
    ScoreScope,
)
from flowrun.excerpts import cut
from flowrun.functions.arguments import accept_json
from flowrun.functions.json_values import NotJSON, to_json
from flowrun.records.record import Record
from flowrun.spec import Signature, load_entrypoint, signature_of
from flowrun.spec.model import JSON, MAIN
from flowrun.templates import TemplateError, compile_condition, compile_value
from flowrun.testing.compare import Observed, compare
from flowrun.testing.load import parse_expectation
from flowrun.testing.suite import Expectation

_LARGEST: Final = 1e100
"""The largest score: sums of squares of larger ones are no numbers."""

UNREACHABLE: Final = (TemplateError, msgspec.ValidationError)
"""What templates raise if something that they read is not there, or has another type."""


class Scored(NamedTuple):
    """A score, and why it is so. ``value`` is None if there is none; if this is a mistake, ``is_error``."""

    value: float | bool | None
    reason: str = ""
    is_error: bool = False


class ScoredRun(NamedTuple):
    """A run to score: its record, and what templates see of it."""

    record: Record
    data: Mapping[str, Any]
    scope: Mapping[str, Any]

    @property
    def succeeded(self) -> bool:
        """Return whether the run succeeded."""
        return self.record.status == SUCCEEDED


Scorer = Callable[[ScoredRun], Scored]


def run_to_score(record: Record, raw: bytes, row: Row) -> ScoredRun:
    """Return a record with its row as it is now, which may have other columns than when the record was made.

    What the record does not have is not in scope either: a batch writes no trace, and messages only if it is told to.
    """
    data: dict[str, Any] = msgspec.json.decode(raw)
    scope: dict[str, Any] = {name: data[name] for name in _MEMBERS if name in data}
    scope["row"] = {"id": row.id, **row.inputs, **row.columns}
    scope["seconds"], scope["sample"] = data.get("seconds"), data.get("sample", 1)
    if "messages" in data:
        scope["threads"] = {MAIN: data["messages"], **data.get("threads", {})}
    if (trace := data.get("trace")) is not None:
        scope["calls"], scope["vars"] = trace["calls"], trace["vars"]
    return ScoredRun(record, data, scope)


_MEMBERS: Final = ("inputs", "output", "status", "error", "path", "rounds", "usage", "messages")
"""The members of a record that scores see under their own names."""


def guarded(scorer: Scorer) -> Scorer:
    """Return a scorer that gives 0 to a run that did not succeed and cannot be scored, and says so of any other."""

    def score(run: ScoredRun) -> Scored:
        try:
            return scorer(run)
        except (Exception, SystemExit) as exc:
            why = str(exc) if isinstance(exc, UNREACHABLE) else f"{type(exc).__name__}: {exc}"
            if run.succeeded:
                return Scored(None, f"it cannot be scored: {why}", is_error=True)
            return Scored(0.0, f"the run {'failed' if run.record.error is not None else run.record.status}: {why}")

    return score


def compile_score(score: Score, eval_file: Path, project_dir: Path | None) -> Scorer | None:
    """Return the function that makes a score; None for that of a judge.

    Args:
        eval_file: functions are found around it.
        project_dir: the folder that entrypoints are imported from; None: it is found from the file.

    Raises:
        EntrypointError: the function cannot be imported.
        TemplateError: a text is no template.
    """
    match score:
        case ConditionScore():
            holds = compile_condition(score.when)
            return guarded(lambda run: Scored(holds(run.scope)))
        case ExpectationScore():
            return guarded(_expectation(score))
        case ComparisonScore():
            return guarded(_comparison(score))
        case FunctionScore():
            return guarded(_function(score, eval_file, project_dir))
        case JudgeScore():
            return None
        case _:
            assert_never(score)


def as_scored(value: JSON) -> Scored:
    """Return the score that a function or a judge has given: a number, a truth value, null, or these under ``score``.

    Raises:
        ValueError: it is something else.
    """
    reason = ""
    if isinstance(value, dict):
        if "score" in value:
            reason = str(value.get("reason") or "")
            value = value["score"]
        elif len(value) == 1:
            (value,) = value.values()
    if value is None or isinstance(value, bool):
        return Scored(value, reason)
    if isinstance(value, int | float) and abs(value) <= _LARGEST:
        return Scored(float(value), reason)
    shown = cut(str(value), 100) if not isinstance(value, int) else "too large"
    raise ValueError(f"a score is a number, a truth value or null, or a mapping with a 'score'; this is {shown}")


def observed_of(run: ScoredRun) -> Observed:
    """Return what came of a run, as expectations compare it."""
    data, record = run.data, run.record
    trace = data.get("trace", {})
    waiting = data.get("waiting") or [{}]
    error = data["error"]
    return Observed(
        status=data["status"],
        state=waiting[0].get("state", ""),
        error=None if error is None else msgspec.convert(error, Failure),
        path=data["path"],
        output=data["output"],
        rounds=data["rounds"],
        messages=record.all_threads() or {},
        vars=trace.get("vars", {}),
        calls=trace.get("calls", []),
        function_calls=trace.get("function_calls", []),
        requests=trace.get("requests", []),
        moves=trace.get("moves", []),
    )


def _expectation(score: ExpectationScore) -> Scorer:
    render = compile_value(msgspec.json.decode(msgspec.json.encode(score.expect)))  # with lists, not tuples

    def compared(run: ScoredRun) -> Scored:
        expect = parse_expectation(render(run.scope))
        if run.succeeded and (missing := _missing(expect, run.data)):
            raise ValueError(f"its record has no {missing}: it was not made by flowrun eval")
        problems = ["\n".join((problem.what, *problem.lines)) for problem in compare(expect, observed_of(run))]
        return Scored(not problems, "\n".join(problems))

    return compared


def _missing(expect: Expectation, data: Mapping[str, Any]) -> str | None:
    """Return the member that a record lacks and an expectation compares; None if there is none."""
    words = (expect.calls, expect.function_calls, expect.requests, expect.moves)
    if "trace" not in data and (expect.vars or any(word is not None for word in words)):
        return "trace"
    return "messages" if expect.messages and "messages" not in data else None


def _comparison(score: ComparisonScore) -> Scorer:
    measure = COMPARISONS[score.compare]
    value = None if score.value is msgspec.UNSET else compile_value(score.value)
    expected = compile_value(score.expected)

    def compared(run: ScoredRun) -> Scored:
        said = _only_member(run.scope["output"]) if value is None else value(run.scope)
        if said is None and not run.succeeded:
            return Scored(0.0)
        return Scored(measure(said, expected(run.scope)))

    return compared


def _only_member(output: JSON) -> JSON:
    return next(iter(output.values())) if isinstance(output, dict) and len(output) == 1 else output


def _function(score: FunctionScore, eval_file: Path, project_dir: Path | None) -> Scorer:
    found = load_entrypoint(score.entrypoint, spec_file=eval_file, project_dir=project_dir)
    function = accept_json(found)  # with copies of what it is given
    render = None if score.arguments is None else compile_value(dict(score.arguments))
    names = names_for(signature_of(found))

    def called(run: ScoredRun) -> Scored:
        scope = run.scope
        value = function(
            **({name: scope[name] for name in names if name in scope} if render is None else render(scope))
        )
        if inspect.iscoroutine(value):
            value = asyncio.run(value)
        try:
            return as_scored(to_json(value))
        except NotJSON as exc:
            raise ValueError(f"{score.entrypoint} gave {exc}") from exc

    return called


def names_for(signature: Signature) -> list[str]:
    """Return the names of ``ScoreScope`` that a function takes."""
    known = list(ScoreScope.__annotations__)
    if signature.takes_any_name:
        return known
    taken = {parameter.name for parameter in signature.parameters}
    return [name for name in known if name in taken]
