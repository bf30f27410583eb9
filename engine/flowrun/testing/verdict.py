"""The result of a test, as data and as readable text."""

from collections.abc import Iterator, Sequence
from typing import Final, Literal

import msgspec

from flowrun.core.messages import Message
from flowrun.errors import FlowrunError, Place, SpecError, dotted
from flowrun.excerpts import beginning
from flowrun.testing.compare import Problem, as_path
from flowrun.unicode import printable, printable_line

_MESSAGES: Final = 12
"""The number of messages of a thread that are shown: the last ones."""

_CONTENT: Final = 2000
"""The number of characters of a message that are shown."""


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """A thread of a run or of a child; ``of`` is its heading. The first ``given`` messages are its prologue."""

    of: str
    messages: Sequence[Message]
    given: int = 0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a test.

    ``reason`` says why it was skipped. ``problems``, ``path`` and ``conversations`` are those of a failed test.
    """

    file: str
    name: str
    place: Place
    status: Literal["passed", "failed", "skipped"]
    reason: str = ""
    problems: tuple[Problem, ...] = ()
    path: Sequence[str] = ()
    conversations: tuple[Conversation, ...] = ()
    seconds: float = 0.0


def render_verdict(verdict: Verdict) -> str:
    """Render the verdict of a failed test: its place, the problems, the path and the messages."""
    heading = f"{verdict.place}  {printable_line(verdict.name)}"
    return printable("\n".join([heading, *(f"  {line}" for line in _body(verdict))]))


def render_problem(problem: Problem) -> Iterator[str]:
    """Render a problem, line by line."""
    yield from problem.what.splitlines()
    yield from (f"  {line}" for line in problem.lines)


def explain_error(exc: FlowrunError) -> Iterator[Problem]:
    """Yield an error as problems: one for each issue of a spec, one for any other error."""
    if not isinstance(exc, SpecError):
        first, *rest = str(exc).splitlines()
        yield Problem(what=first, lines=tuple(line.removeprefix("  ") for line in rest))
        return
    for issue in exc.issues:
        lines = tuple(line for text in (issue.message, issue.remedy) for line in text.splitlines())
        yield Problem(what=f"{issue.place}  {issue.code}  {dotted(issue.path)}".rstrip(), lines=lines)


def _body(verdict: Verdict) -> Iterator[str]:
    for problem in verdict.problems:
        yield from render_problem(problem)
    if verdict.path:
        yield f"path: {as_path(verdict.path)}"
    for conversation in verdict.conversations:
        yield f"{conversation.of}:"
        yield from (f"  {line}" for line in _messages(conversation))


def _messages(conversation: Conversation) -> Iterator[str]:
    """Render all messages of a short thread; of a long one only the last, without the examples at its start."""
    messages = conversation.messages
    earlier = max(len(messages) - _MESSAGES, conversation.given - 1) if len(messages) > _MESSAGES else 0
    if earlier:
        yield f"... {earlier} earlier"
    for message in messages[earlier:]:
        yield from message_lines(message)


def message_lines(message: Message) -> Iterator[str]:
    """Render a message: its role, its text, and its calls with their ids."""
    named = f"{message.role} {message.name}" if message.name else message.role
    heading = f"{named} ({message.tool_call_id}):" if message.tool_call_id else f"{named}:"
    if message.content is not None or not message.tool_calls:
        first, *rest = beginning(message.content or "", _CONTENT).splitlines() or [""]
        yield f"{heading} {first}".rstrip()
        yield from (f"  {line}" for line in rest)
    for call in message.tool_calls:
        yield f"{heading} calls {call.name}({call.arguments})  ({call.id})"


def summary(verdicts: Sequence[Verdict]) -> str:
    """Count the tests in one line: ``3 passed, 1 failed, 0 skipped``."""
    return ", ".join(
        f"{sum(verdict.status == status for verdict in verdicts)} {status}"
        for status in ("passed", "failed", "skipped")
    )
