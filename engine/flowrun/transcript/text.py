"""Renders a transcript for the terminal: some lines for each activity, children indented below their parent.

No text of a run can control the terminal: control characters are shown as marks.
"""

from collections.abc import Iterator, Sequence, Set
from datetime import UTC, tzinfo
from typing import Final, assert_never

from flowrun.core.approvals import call_lines
from flowrun.core.events import SaidMessages
from flowrun.core.messages import Message
from flowrun.durations import spell_duration
from flowrun.errors import Failure
from flowrun.excerpts import cut
from flowrun.spec.model import JSON
from flowrun.transcript.formatting import (
    as_line,
    counted,
    describe_attention,
    describe_divergence,
    describe_exit,
    describe_fork,
    failure_is_shown,
    figures,
    known_calls,
    moment,
    pretty,
    status_words,
    tokens,
)
from flowrun.transcript.model import Activity, Child, FunctionCall, Pause, Question, Round, Status, Transcript, Visit
from flowrun.unicode import printable_line

_STYLES: Final = {
    "red": "31;1",
    "green": "32;1",
    "yellow": "33;1",
    "cyan": "36",
    "magenta": "35",
    "bold": "1",
    "dim": "2",
}
_STATUS_STYLE: Final[dict[Status, str]] = {"succeeded": "green", "failed": "red", "cancelled": "red", "running": "cyan"}
_LINES: Final = 8
"""The lines of a text that are shown without ``full``."""
_EARLIER: Final = 3
"""The last new messages of a round that are shown without ``full``."""

_CHILDREN: Final = 3
"""If a state started more children than this, each one that succeeded is shown in one line."""


def render_text(
    transcript: Transcript,
    *,
    coloured: bool = False,
    width: int = 100,
    full: bool = False,
    zone: tzinfo = UTC,
    commands: Sequence[str] = (),
) -> str:
    """Render a transcript. With ``full``, texts and threads are complete; else they are cut to ``width`` columns.

    Args:
        commands: how each thing that needs attention is resolved, in the order of ``transcript.attention``.
    """
    writer = _Writer(coloured, width, full, zone)
    lines = [*writer.lines(transcript), *(f"  {printable_line(command)}" for command in commands)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def render_messages(
    messages: Sequence[Message], *, coloured: bool = False, width: int = 100, full: bool = False
) -> Iterator[str]:
    """Yield the lines of messages, as those of a transcript are rendered."""
    writer = _Writer(coloured, width, full, UTC)
    for message in messages:
        yield from writer._message(message, style="cyan" if message.role == "assistant" else "dim")


class _Writer:
    """Renders lines; ``width`` is the number of columns."""

    def __init__(self, coloured: bool, width: int, full: bool, zone: tzinfo) -> None:
        self._coloured, self._width, self._full, self._zone = coloured, width, full, zone

    def lines(self, transcript: Transcript) -> Iterator[str]:
        """Yield the lines of a run: its title, its visits, and its end."""
        status = self._styled(status_words(transcript.status), _STATUS_STYLE.get(transcript.status, "yellow"))
        flow, run = printable_line(f"{transcript.flow} {transcript.version}"), printable_line(transcript.run)
        yield f"{self._styled(flow, 'bold')}  run {run}  {status}"
        took = [moment(transcript.began, self._zone), spell_duration(transcript.seconds), *figures(transcript.totals)]
        yield self._styled(" · ".join(took), "dim")
        yield from self._body(transcript)

    def _body(self, transcript: Transcript) -> Iterator[str]:
        """Yield the lines of a run's inputs, visits, and end."""
        if transcript.diverged_at is not None:
            yield self._styled(f"! {describe_divergence(transcript.diverged_at)}", "red")
        if transcript.forked_from is not None:
            yield self._styled(describe_fork(transcript.forked_from), "dim")
        yield from self._values("inputs", transcript.inputs)
        known = set() if self._full else known_calls(transcript)
        for visit in transcript.visits:
            yield ""
            yield from self._visit(visit, known)
        yield ""
        yield from self._end(transcript)

    def _end(self, transcript: Transcript) -> Iterator[str]:
        outcome = transcript.outcome
        if outcome is not None and outcome.error is not None:
            yield self._failure(outcome.error, "failed" if outcome.status == "failed" else outcome.status)
        if outcome is not None and (outcome.status == "succeeded" or outcome.output is not None):
            yield from self._block("output", outcome.output)
        for one in transcript.attention:
            yield self._styled(f"! {printable_line(describe_attention(one, transcript))}", "yellow")
        if outcome is None and not transcript.attention and transcript.status != "given_up":
            yield self._styled(f"it has not ended: {status_words(transcript.status)}", "yellow")

    def _visit(self, visit: Visit, known: Set[str]) -> Iterator[str]:
        attempt = f"  attempt {visit.attempt}" if visit.attempt > 1 else ""
        took = "" if visit.seconds is None or not visit.activities else f"  {spell_duration(visit.seconds)}"
        state = self._styled(f"{visit.step:>3}  {visit.state}", "bold")
        yield f"{state}  {self._styled(f'{visit.type}{attempt}{took}', 'dim')}"
        for activity in visit.activities:
            yield from (f"     {line}" for line in self._activity(activity, visit, known))
        for name, value in visit.sets.items():
            yield f"     {self._styled('set', 'dim')} {name} = {self._line(as_line(value), len(name) + 12)}"
        for said in visit.said:
            yield from (f"     {line}" for line in self._said(said))
        if visit.exit is None:
            return
        if visit.exit.failure is not None and visit.exit.how != "end" and not failure_is_shown(visit):
            yield f"     {self._failure(visit.exit.failure, 'failed')}"
        if visit.exit.how == "retry":
            yield "     → another attempt"
        elif visit.exit.how != "end":
            why = describe_exit(visit.exit)
            yield f"     → {visit.exit.to}" + (self._styled(f"  {printable_line(why)}", "dim") if why else "")

    def _said(self, said: SaidMessages) -> Iterator[str]:
        how = "begins the thread anew" if said.replace else "says on the thread"
        yield self._styled(f"{how} {said.thread}:", "dim")
        for message in said.messages:
            yield from self._message(message)

    def _activity(self, activity: Activity, visit: Visit, known: Set[str]) -> Iterator[str]:
        match activity:
            case Round():
                yield from self._round(activity, known)
            case FunctionCall():
                yield from self._call(activity)
            case Question():
                yield from self._labelled("asks", "yellow", activity.prompt)
                yield from (printable_line(line) for line in call_lines(activity.call))
                if activity.failure is not None:
                    yield self._failure(activity.failure, "failed")
                elif activity.answered:
                    took = "" if activity.seconds is None else f"  ({spell_duration(activity.seconds)})"
                    yield f"{self._styled('answer', 'green')}  {self._line(as_line(activity.answer), 24)}{took}"
                elif visit.exit is None:
                    yield self._styled("no answer yet", "yellow")
            case Pause():
                if activity.seconds is None and visit.type == "pause":
                    yield self._styled(f"sleeping until {moment(activity.ends, self._zone)}", "yellow")
                else:
                    paused = activity.planned if activity.seconds is None else activity.seconds
                    yield self._styled(f"paused {spell_duration(paused)}", "dim")
            case Child():
                yield from self._child(activity, brief=len(visit.activities) > _CHILDREN)
            case _:
                assert_never(activity)

    def _round(self, round_: Round, known: Set[str]) -> Iterator[str]:
        new = [message for message in round_.messages if message.tool_call_id not in known]
        shown = new if self._full else new[-_EARLIER:]
        if hidden := len(new) - len(shown):
            yield self._styled(f"... {counted(hidden, 'message')} before these", "dim")
        if round_.system is not None:
            yield from self._labelled("system", "dim", round_.system)
        for message in shown:
            yield from self._message(message)
        if round_.left_out:
            yield self._styled(f"{counted(round_.left_out, 'message')} of the thread not read", "dim")
        reply = round_.reply
        if round_.failure is not None:
            yield self._failure(round_.failure, "failed")
        elif reply is None:
            yield self._styled("no reply yet", "yellow")
        else:
            calls = reply.tool_calls
            yield from self._message(Message(role="assistant", content=reply.shown, tool_calls=calls), style="cyan")
            took = "" if round_.seconds is None else f", {spell_duration(round_.seconds)}"
            yield self._styled(f"{tokens(reply.usage)}{took}", "dim")

    def _message(self, message: Message, *, style: str = "dim") -> Iterator[str]:
        label = f"{message.role} {message.name}" if message.name else message.role
        if message.content or not message.tool_calls:
            yield from self._labelled(label, style, message.content or "")
        for call in message.tool_calls:
            yield f"{self._styled(label, style)}  calls {self._line(f'{call.name}({call.arguments})', 24)}"

    def _call(self, call: FunctionCall) -> Iterator[str]:
        took = f"  ({spell_duration(call.seconds)})" if call.seconds is not None and call.status != "refused" else ""
        signature = self._line(f"{call.name}({', '.join(_arguments(call.arguments))})", 14)
        yield f"{self._styled(signature, 'magenta')}{took}"
        match call.status:
            case "returned":
                yield from (f"  {line}" for line in self._cut(pretty(call.value)))
            case "failed" | "refused":
                if call.failure is not None:
                    yield f"  {self._failure(call.failure, call.status)}"
            case "in_doubt":
                yield f"  {self._styled('in doubt: it began, and there is no result', 'yellow')}"
            case "running" | "open" | "given_up":
                words = {"running": "it is running", "open": "not made yet", "given_up": "given up"}
                yield f"  {self._styled(words[call.status], 'yellow')}"
            case _:
                assert_never(call.status)

    def _child(self, child: Child, *, brief: bool) -> Iterator[str]:
        """Yield the lines of a child: with ``brief``, one line if it succeeded."""
        transcript, outcome = child.transcript, child.outcome
        label = self._styled(f"{child.flow} {child.label}".strip(), "magenta")
        took = "" if child.seconds is None else self._styled(f"  {spell_duration(child.seconds)}", "dim")
        styled = self._styled(status_words(child.status), _STATUS_STYLE.get(child.status, "yellow"))
        yield f"{label}  {styled}{took}  {self._styled(printable_line(child.run), 'dim')}"
        if outcome is not None and (transcript is None or (brief and not self._full and outcome.status == "succeeded")):
            error = outcome.error
            yield f"  {self._line(as_line(outcome.output), 16) if error is None else self._failure(error, 'failed')}"
        elif transcript is not None:
            inner = _Writer(self._coloured, max(self._width - 7, 40), self._full, self._zone)
            yield from (f"  {line}" for line in inner._body(transcript))

    # --- texts and values -----------------------------------------------------------------------------------------

    def _values(self, title: str, values: JSON) -> Iterator[str]:
        if values:
            yield self._styled(title, "dim")
            for name, value in values.items():
                yield f"  {printable_line(name)}: {self._line(as_line(value), len(name) + 4)}"

    def _block(self, title: str, value: JSON) -> Iterator[str]:
        yield self._styled(title, "dim")
        yield from (f"  {line}" for line in self._cut(pretty(value)))

    def _labelled(self, label: str, style: str, text: str) -> Iterator[str]:
        first, *rest = self._cut(text)
        yield f"{self._styled(label, style)}  {first}"
        yield from (f"  {line}" for line in rest)

    def _cut(self, text: str) -> list[str]:
        """Return the lines of a text; without ``full``, only the first ones, each cut to the width."""
        lines = text.splitlines() or [""]
        if self._full:
            return list(map(printable_line, lines))
        shown = [self._line(line, 14, squeeze=False) for line in lines[:_LINES]]
        more = len(lines) - len(shown)
        return [*shown, self._styled(f"... {counted(more, 'line')} more", "dim")] if more else shown

    def _line(self, text: str, taken: int, *, squeeze: bool = True) -> str:
        line = printable_line(" ".join(text.split()) if squeeze else text)
        room = max(self._width - taken, 24)
        return line if self._full else cut(line, room, "…")

    def _failure(self, failure: Failure, label: str) -> str:
        return f"{self._styled(label, 'red')}  {failure.name}: {printable_line(' '.join(failure.message.split()))}"

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self._coloured and text else text


def _arguments(arguments: JSON) -> Iterator[str]:
    if isinstance(arguments, dict):
        yield from (f"{name}={as_line(value)}" for name, value in arguments.items())
    else:
        yield as_line(arguments)
