"""Compares a finished run with the expectations of a test, and yields problems with readable diffs."""

import difflib
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from flowrun.core.machine import Run
from flowrun.errors import Failure
from flowrun.spec.model import JSON
from flowrun.testing.suite import Expectation

_ONE_LINE: Final = 100
"""A value whose JSON has more characters is shown line by line."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A reason why a test fails: one sentence, and lines with the details."""

    what: str
    lines: tuple[str, ...] = ()


def compare_run(expect: Expectation, run: Run, calls: Sequence[JSON]) -> Iterator[Problem]:
    """Yield a problem for each expectation that the run does not meet.

    Args:
        calls: the tool calls of the run, in the form of ``ExpectedCall``.
    """
    outcome = run.outcome
    error = outcome.error if outcome is not None else None
    status = "waiting" if outcome is None else outcome.status
    if status != expect.full_status:
        yield Problem(what=_status(run, status, expect.full_status, error))
    elif expect.error is not None and (error is None or error.name != expect.error):
        yield Problem(what=f"the error is not {expect.error}, but {explain(error)}")
    if expect.path is not None and expect.path != tuple(run.path):
        lines = (f"expected  {as_path(expect.path)}", f"actual    {as_path(run.path)}")
        yield Problem(what="the path is another one", lines=lines)
    if expect.output is not msgspec.UNSET and status == expect.full_status:
        yield from _differ("the output", expect.output, outcome.output if outcome is not None else None)
    if expect.calls is not None:
        yield from _differ("the tools' calls", msgspec.to_builtins(expect.calls), calls)


_ENDED: Final = {"succeeded": "succeeded", "failed": "failed", "waiting": "waits", "cancelled": "was cancelled"}
_TO_END: Final = {"succeeded": "succeed", "failed": "fail", "waiting": "wait"}


def _status(run: Run, status: str, expected: str, error: Failure | None) -> str:
    """Return a sentence about a run that ended with another status than expected."""
    why = {"failed": f": {explain(error)}", "waiting": f": state {run.state} has no answer"}
    return f"the run {_ENDED[status]}, and was to {_TO_END[expected]}{why.get(status, '')}"


def explain(error: Failure | None) -> str:
    """Return an error as one line of text."""
    if error is None:
        return "there is none"
    return f"{error.name}: {error.message}{f' (in state {error.state})' if error.state else ''}"


def as_path(states: Sequence[str]) -> str:
    """Return a path as one line of text."""
    return " > ".join(states) or "(no state)"


def _differ(what: str, expected: Any, actual: Any) -> Iterator[Problem]:
    if not same(expected, actual):
        verb = "are" if what.endswith("s") else "is"
        lines = tuple(diff(expected, actual))
        yield Problem(what=f"{what} {verb} not as expected", lines=lines)


def same(left: JSON, right: JSON) -> bool:
    """Return whether two JSON values are equal: 1 equals 1.0, but not true."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def diff(expected: JSON, actual: JSON) -> Iterator[str]:
    """Yield a diff of two values: one below the other if both are short, else line by line."""
    left, right = (json.dumps(value, ensure_ascii=False) for value in (expected, actual))
    if max(len(left), len(right)) <= _ONE_LINE:
        yield f"expected  {left}"
        yield f"actual    {right}"
        return
    yield "- expected, + actual"
    yield from diff_lines(_lines(expected), _lines(actual))


def diff_lines(left: Sequence[str], right: Sequence[str], *, context: int = 3) -> Iterator[str]:
    """Yield a diff of two texts; ``...`` marks equal lines that are left out.

    Args:
        context: the number of equal lines around each difference.
    """
    for index, line in enumerate(difflib.unified_diff(left, right, n=context, lineterm="")):
        if index < 2:  # the header lines with the file names
            continue
        if not line.startswith("@@"):
            yield f"{line[0]} {line[1:]}"
        elif index > 2:
            yield "  ..."


def _lines(value: JSON) -> list[str]:
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True).splitlines()
