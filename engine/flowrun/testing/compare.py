"""Compares what came of a run with expectations, and yields problems with readable diffs.

A test compares its run, an evaluation compares records: both as ``Observed``.
"""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from json import dumps
from typing import Any, Final

import msgspec

from flowrun.core.events import Move, RequestInput
from flowrun.core.messages import Message
from flowrun.errors import Failure
from flowrun.spec.model import JSON
from flowrun.spec.strict_json import parse_leniently, same
from flowrun.testing.fakes import StubbedFunctions
from flowrun.testing.suite import Expectation
from flowrun.testing.trace import Trace

_ONE_LINE: Final = 100
"""A value whose JSON has more characters is shown line by line."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A reason why a test fails: one sentence, and lines with the details."""

    what: str
    lines: tuple[str, ...] = ()


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a run, in the forms of ``Expectation``.

    Attributes:
        status: as in a record; ``waiting`` if the run has not ended.
        state: the state that it is in, for messages.
        messages: the threads by their names.
        calls, function_calls: what was called, by tools and by call states; sub-flows' too.
    """

    status: str
    state: str = ""
    error: Failure | None = None
    path: Sequence[str] = ()
    output: JSON = None
    rounds: int = 0
    vars: Mapping[str, JSON] = {}
    messages: Mapping[str, Sequence[Message]] = {}
    calls: Sequence[JSON] = ()
    function_calls: Sequence[JSON] = ()
    requests: Sequence[JSON] = ()
    moves: Sequence[JSON] = ()


def observe(trace: Trace, functions: StubbedFunctions) -> Observed:
    """Return what came of the run of a test."""
    run = trace.run
    outcome = run.outcome
    return Observed(
        status="waiting" if outcome is None else outcome.status,
        state=run.state,
        error=None if outcome is None else outcome.error,
        path=tuple(run.path),
        output=None if outcome is None else outcome.output,
        rounds=run.rounds,
        vars=run.vars,
        messages=run.threads,
        calls=functions.log.calls,
        function_calls=functions.log.function_calls,
        requests=list(map(see_request, trace.requests)),
        moves=list(map(see_move, trace.moves)),
    )


def compare(expect: Expectation, seen: Observed) -> Iterator[Problem]:
    """Yield a problem for each expectation that a run does not meet."""
    error = seen.error
    if seen.status != expect.full_status:
        yield Problem(what=_status(seen, expect.full_status))
    elif expect.error is not None and (error is None or error.name != expect.error):
        yield Problem(what=f"the error is not {expect.error}, but {explain(error)}")
    if expect.path is not None and expect.path != tuple(seen.path):
        lines = (f"expected  {as_path(expect.path)}", f"actual    {as_path(seen.path)}")
        yield Problem(what="the path is another one", lines=lines)
    if expect.output is not msgspec.UNSET and seen.status == expect.full_status:
        yield from _differ("the output", expect.output, seen.output)
    if expect.calls is not None:
        yield from _differ("the tools' calls", msgspec.to_builtins(expect.calls), seen.calls)
    if expect.function_calls is not None:
        yield from _differ_in_parts("the calls of call states", expect.function_calls, seen.function_calls)
    if expect.requests is not None:
        yield from _differ_in_parts("the questions", expect.requests, seen.requests)
    if expect.moves is not None:
        yield from _differ_in_parts("the moves", expect.moves, seen.moves)
    if expect.rounds is not None and expect.rounds != seen.rounds:
        yield Problem(what=f"the run has {seen.rounds} rounds, and was to have {expect.rounds}")
    known = {name: seen.vars[name] for name in expect.vars if name in seen.vars}
    yield from _differ("the variables", dict(expect.vars), known)
    for thread, messages in expect.messages.items():
        last = list(seen.messages.get(thread, ()))[-len(messages) :] if messages else []
        what = f"thread {thread}'s last messages"
        yield from _differ_in_parts(what, messages, list(map(_see_message, last)))


_ENDED: Final = {"succeeded": "succeeded", "failed": "failed", "waiting": "waits", "cancelled": "was cancelled"}
_TO_END: Final = {"succeeded": "succeed", "failed": "fail", "waiting": "wait"}


def _status(seen: Observed, expected: str) -> str:
    """Return a sentence about a run that ended with another status than expected."""
    why = {"failed": f": {explain(seen.error)}", "waiting": f": state {seen.state} has no answer"}
    ended = _ENDED.get(seen.status, f"is {seen.status}")
    return f"the run {ended}, and was to {_TO_END[expected]}{why.get(seen.status, '')}"


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


def see_request(request: RequestInput) -> dict[str, JSON]:
    """Return a question in the form of ``ExpectedRequest``. Its call has all arguments, as the person sees them."""
    seen: dict[str, JSON] = {"state": request.state, "prompt": request.prompt}
    if (call := request.call) is None:
        return seen
    return {**seen, "call": {"name": call["name"], "arguments": {**call["arguments"], **call["hidden"]}}}


def see_move(move: Move) -> dict[str, JSON]:
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
