"""What came of a test, as data and as text for people."""

from collections.abc import Iterator, Sequence
from typing import Final, Literal

import msgspec

from flowrun.core.messages import Message
from flowrun.errors import FlowrunError, Place, SpecError, dotted
from flowrun.testing.compare import Problem, as_path
from flowrun.unicode import printable, printable_line

_MESSAGES: Final = 12
"""So many messages of a thread are shown, the last ones."""

_CONTENT: Final = 2000
"""So many characters of a message are shown."""


class Conversation(msgspec.Struct, frozen=True, kw_only=True):
    """A thread of a run or of a child; ``of`` says whose. The first ``given`` messages were there from the start."""

    of: str
    messages: Sequence[Message]
    given: int = 0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a test passed; if not, why, and what happened. ``reason`` is why it was skipped."""

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
    """Write a failed test: where it is, each problem, the path, the messages."""
    head = f"{verdict.place}  {printable_line(verdict.name)}"
    return printable("\n".join([head, *(f"  {line}" for line in _body(verdict))]))


def render_problem(problem: Problem) -> Iterator[str]:
    """Write a problem, line by line."""
    yield from problem.what.splitlines()
    yield from (f"  {line}" for line in problem.lines)


def explain_error(exc: FlowrunError) -> Iterator[Problem]:
    """Give an error as problems; every issue of a spec is one."""
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
    """Show a short thread whole; of a long one neither the examples at its start nor too many messages."""
    messages = conversation.messages
    earlier = max(len(messages) - _MESSAGES, conversation.given - 1) if len(messages) > _MESSAGES else 0
    if earlier:
        yield f"... {earlier} earlier"
    for message in messages[earlier:]:
        yield from message_lines(message)


def message_lines(message: Message) -> Iterator[str]:
    """Write a message: its role, its text, and its calls."""
    head = f"{message.role} {message.name}:" if message.name else f"{message.role}:"
    if message.content is not None or not message.tool_calls:
        content = message.content or ""
        shown = content if len(content) <= _CONTENT else f"{content[:_CONTENT]} ..."
        first, *rest = shown.splitlines() or [""]
        yield f"{head} {first}".rstrip()
        yield from (f"  {line}" for line in rest)
    for call in message.tool_calls:
        yield f"{head} calls {call.name}({call.arguments})"


def summary(verdicts: Sequence[Verdict]) -> str:
    """Count the tests in one line: ``3 passed, 1 failed, 0 skipped``."""
    return ", ".join(
        f"{sum(verdict.status == status for verdict in verdicts)} {status}"
        for status in ("passed", "failed", "skipped")
    )
