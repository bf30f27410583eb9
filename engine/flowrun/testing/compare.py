"""Compares what came of a run with what was to come of it. Gives problems, each with a diff that people can read."""

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
"""Values whose JSON is longer than so many characters are shown line by line."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why a test fails: one sentence, and lines that show it."""

    what: str
    lines: tuple[str, ...] = ()


def compare_run(expect: Expectation, run: Run, calls: Sequence[JSON]) -> Iterator[Problem]:
    """Give a problem for each expectation that fails; ``calls`` are those of tools."""
    outcome = run.outcome
    error = outcome.error if outcome is not None else None
    status = "waiting" if outcome is None else outcome.status
    if status != expect.whole_status:
        yield Problem(what=_status(run, status, expect.whole_status, error))
    elif expect.error is not None and (error is None or error.name != expect.error):
        yield Problem(what=f"the error is not {expect.error}, but {explain(error)}")
    if expect.path is not None and expect.path != tuple(run.path):
        lines = (f"expected  {as_path(expect.path)}", f"actual    {as_path(run.path)}")
        yield Problem(what="the path is another one", lines=lines)
    if expect.output is not msgspec.UNSET and status == expect.whole_status:
        yield from _differ("the output", expect.output, outcome.output if outcome is not None else None)
    if expect.calls is not None:
        yield from _differ("the tools' calls", msgspec.to_builtins(expect.calls), calls)


_ENDED: Final = {"succeeded": "succeeded", "failed": "failed", "waiting": "waits", "cancelled": "was cancelled"}
_TO_END: Final = {"succeeded": "succeed", "failed": "fail", "waiting": "wait"}


def _status(run: Run, status: str, expected: str, error: Failure | None) -> str:
    """Say how a run ended instead, and what is to be known of that."""
    why = {"failed": f": {explain(error)}", "waiting": f": state {run.state} has no answer"}
    return f"the run {_ENDED[status]}, and was to {_TO_END[expected]}{why.get(status, '')}"


def explain(error: Failure | None) -> str:
    """Write an error in one line."""
    if error is None:
        return "there is none"
    return f"{error.name}: {error.message}{f' (in state {error.state})' if error.state else ''}"


def as_path(states: Sequence[str]) -> str:
    """Write a path in one line."""
    return " > ".join(states) or "(no state)"


def _differ(what: str, expected: Any, actual: Any) -> Iterator[Problem]:
    if not same(expected, actual):
        verb = "are" if what.endswith("s") else "is"
        lines = tuple(diff(expected, actual))
        yield Problem(what=f"{what} {verb} not as expected", lines=lines)


def same(one: JSON, other: JSON) -> bool:
    """Tell whether two JSON values are the same; true is not 1, but 1 is 1.0."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def diff(expected: JSON, actual: JSON) -> Iterator[str]:
    """Show how two values differ: one below the other if both are short, else line by line."""
    left, right = (json.dumps(value, ensure_ascii=False) for value in (expected, actual))
    if max(len(left), len(right)) <= _ONE_LINE:
        yield f"expected  {left}"
        yield f"actual    {right}"
        return
    yield "- expected, + actual"
    yield from diff_lines(_lines(expected), _lines(actual))


def diff_lines(left: Sequence[str], right: Sequence[str], *, context: int = 3) -> Iterator[str]:
    """Show how two texts differ, with some lines around; what is left out between them shows as ``...``."""
    for index, line in enumerate(difflib.unified_diff(left, right, n=context, lineterm="")):
        if index < 2:  # the names of the files
            continue
        if not line.startswith("@@"):
            yield f"{line[0]} {line[1:]}"
        elif index > 2:
            yield "  ..."


def _lines(value: JSON) -> list[str]:
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True).splitlines()
