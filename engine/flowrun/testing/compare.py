"""Compares a finished run with the expectations of a test, and yields problems with readable diffs."""

import difflib
from collections.abc import Iterator, Sequence
from json import dumps
from typing import Any, Final

import msgspec

from flowrun.core.events import Move, RequestInput
from flowrun.core.machine import Run
from flowrun.core.messages import Message
from flowrun.errors import Failure
from flowrun.spec.model import JSON
from flowrun.spec.strict_json import parse_leniently
from flowrun.testing.fakes import StubbedFunctions
from flowrun.testing.suite import Expectation
from flowrun.testing.trace import Trace

_ONE_LINE: Final = 100
"""A value whose JSON has more characters is shown line by line."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A reason why a test fails: one sentence, and lines with the details."""

    what: str
    lines: tuple[str, ...] = ()


def compare_run(expect: Expectation, trace: Trace, functions: StubbedFunctions) -> Iterator[Problem]:
    """Yield a problem for each expectation that the run does not meet."""
    run = trace.run
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
        yield from _differ("the tools' calls", msgspec.to_builtins(expect.calls), functions.calls)
    if expect.function_calls is not None:
        yield from _differ_in_parts("the calls of call states", expect.function_calls, functions.function_calls)
    if expect.requests is not None:
        yield from _differ_in_parts("the questions", expect.requests, list(map(_see_request, trace.requests)))
    if expect.moves is not None:
        yield from _differ_in_parts("the moves", expect.moves, list(map(_see_move, trace.moves)))
    if expect.rounds is not None and expect.rounds != run.rounds:
        yield Problem(what=f"the run has {run.rounds} rounds, and was to have {expect.rounds}")
    known = {name: run.vars[name] for name in expect.vars if name in run.vars}
    yield from _differ("the variables", dict(expect.vars), known)
    for thread, messages in expect.messages.items():
        last = list(run.threads.get(thread, ()))[-len(messages) :] if messages else []
        what = f"thread {thread}'s last messages"
        yield from _differ_in_parts(what, messages, list(map(_see_message, last)))


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


def _differ_in_parts(what: str, expected: Sequence[msgspec.Struct], actual: Sequence[JSON]) -> Iterator[Problem]:
    """Compare two lists of mappings, and of each mapping only the members that are expected."""
    wanted: list[dict[str, JSON]] = msgspec.to_builtins(expected)
    found = [
        {name: value for name, value in have.items() if index >= len(wanted) or name in wanted[index]}
        for index, have in enumerate(actual)
    ]
    if not same(wanted, found):
        lines = [[dumps(one, ensure_ascii=False) for one in listed] for listed in (wanted, found)]
        yield Problem(what=f"{what} are not as expected", lines=("- expected, + actual", *diff_lines(*lines)))


def _see_request(request: RequestInput) -> dict[str, JSON]:
    """Return a question in the form of ``ExpectedRequest``. Its call has all arguments, as the person sees them."""
    seen: dict[str, JSON] = {"state": request.state, "prompt": request.prompt}
    if (call := request.call) is None:
        return seen
    return {**seen, "call": {"name": call["name"], "arguments": {**call["arguments"], **call["hidden"]}}}


def _see_move(move: Move) -> dict[str, JSON]:
    """Return a move in the form of ``ExpectedMove``."""
    seen: dict[str, JSON] = {"state": move.state, "how": move.how}
    if move.to:
        seen["to"] = move.to
    if move.index is not None:
        seen["index"] = move.index
    return seen if move.failure is None else {**seen, "error": move.failure.name}


def _see_message(message: Message) -> dict[str, JSON]:
    """Return a message in the form of ``ExpectedMessage``."""
    seen: dict[str, JSON] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        seen["tool_calls"] = [
            {"name": call.name, "arguments": parse_leniently(call.arguments)} for call in message.tool_calls
        ]
    return {**seen, **{name: value for name in ("tool_call_id", "name") if (value := getattr(message, name))}}


def same(left: JSON, right: JSON) -> bool:
    """Return whether two JSON values are equal: 1 equals 1.0, but not true."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)


def diff(expected: JSON, actual: JSON) -> Iterator[str]:
    """Yield a diff of two values: one below the other if both are short, else line by line."""
    left, right = (dumps(value, ensure_ascii=False) for value in (expected, actual))
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
    return dumps(value, ensure_ascii=False, indent=2, sort_keys=True).splitlines()
