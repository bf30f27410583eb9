"""A story for the terminal: a line or a few for each thing that happened, children indented below their parent.

Nothing that was said in a run reaches the terminal as an instruction: what it would obey is shown as a mark.
"""

from collections.abc import Iterator, Set
from datetime import UTC, tzinfo
from typing import Final, assert_never

from flowrun.core.messages import Message
from flowrun.errors import Failure
from flowrun.excerpts import cut
from flowrun.spec.model import JSON
from flowrun.transcript.formatting import (
    counted,
    describe_attention,
    describe_departure,
    describe_exit,
    duration,
    failure_is_shown,
    figures,
    known_calls,
    moment,
    one_line,
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
"""So many lines of a text are shown, unless all is wanted."""
_EARLIER: Final = 3
"""So many new messages of a round are shown, the last ones."""

_CHILDREN: Final = 3
"""If a state started more children than these, those in which all went well take one line each."""


def render_text(
    story: Transcript, *, coloured: bool = False, width: int = 100, whole: bool = False, zone: tzinfo = UTC
) -> str:
    """Write a story. ``whole`` shows long texts and threads from their beginning, else they are cut to ``width``."""
    return "\n".join(line.rstrip() for line in _Writer(coloured, width, whole, zone).story(story)) + "\n"


class _Writer:
    """Writes lines; ``_width`` is what a line of a text may take."""

    def __init__(self, coloured: bool, width: int, whole: bool, zone: tzinfo) -> None:
        self._coloured, self._width, self._whole, self._zone = coloured, width, whole, zone

    def story(self, story: Transcript) -> Iterator[str]:
        """Write a run: what it is, its visits, how it ended."""
        status = self._styled(status_words(story.status), _STATUS_STYLE.get(story.status, "yellow"))
        flow, run = printable_line(f"{story.flow} {story.version}"), printable_line(story.run)
        yield f"{self._styled(flow, 'bold')}  run {run}  {status}"
        took = [moment(story.began, self._zone), duration(story.seconds), *figures(story.totals)]
        yield self._styled(" · ".join(took), "dim")
        yield from self._course(story)

    def _course(self, story: Transcript) -> Iterator[str]:
        """Write what a run was given, its visits, and how it ended."""
        if story.departed is not None:
            yield self._styled(f"! {describe_departure(story.departed)}", "red")
        yield from self._values("inputs", story.inputs)
        known = set() if self._whole else known_calls(story)
        for visit in story.visits:
            yield ""
            yield from self._visit(visit, known)
        yield ""
        yield from self._end(story)

    def _end(self, story: Transcript) -> Iterator[str]:
        outcome = story.outcome
        if outcome is not None and outcome.error is not None:
            yield self._failure(outcome.error, "failed" if outcome.status == "failed" else outcome.status)
        if outcome is not None and (outcome.status == "succeeded" or outcome.output is not None):
            yield from self._block("output", outcome.output)
        for one in story.attention:
            yield self._styled(f"! {printable_line(describe_attention(one, story))}", "yellow")
        if outcome is None and not story.attention and story.status != "given_up":
            yield self._styled(f"it has not ended: {status_words(story.status)}", "yellow")

    def _visit(self, visit: Visit, known: Set[str]) -> Iterator[str]:
        again = f"  attempt {visit.attempt}" if visit.attempt > 1 else ""
        took = "" if visit.seconds is None or not visit.acts else f"  {duration(visit.seconds)}"
        state = self._styled(f"{visit.step:>3}  {visit.state}", "bold")
        yield f"{state}  {self._styled(f'{visit.type}{again}{took}', 'dim')}"
        for act in visit.acts:
            yield from (f"     {line}" for line in self._act(act, visit, known))
        for name, value in visit.sets.items():
            yield f"     {self._styled('set', 'dim')} {name} = {self._line(one_line(value), len(name) + 12)}"
        if visit.left is None:
            return
        if visit.left.failure is not None and visit.left.how != "end" and not failure_is_shown(visit):
            yield f"     {self._failure(visit.left.failure, 'failed')}"
        if visit.left.how == "retry":
            yield "     → another attempt"
        elif visit.left.how != "end":
            why = describe_exit(visit.left)
            yield f"     → {visit.left.to}" + (self._styled(f"  {printable_line(why)}", "dim") if why else "")

    def _act(self, act: Activity, visit: Visit, known: Set[str]) -> Iterator[str]:
        match act:
            case Round():
                yield from self._round(act, known)
            case FunctionCall():
                yield from self._call(act)
            case Question():
                yield from self._said("asks", "yellow", act.prompt)
                if act.answered:
                    took = "" if act.seconds is None else f"  ({duration(act.seconds)})"
                    yield f"{self._styled('answer', 'green')}  {self._line(one_line(act.answer), 24)}{took}"
                elif visit.left is None:
                    yield self._styled("no answer yet", "yellow")
            case Pause():
                yield self._styled(f"paused {duration(act.planned if act.seconds is None else act.seconds)}", "dim")
            case Child():
                yield from self._child(act, brief=len(visit.acts) > _CHILDREN)
            case _:
                assert_never(act)

    def _round(self, round_: Round, known: Set[str]) -> Iterator[str]:
        new = [message for message in round_.messages if message.tool_call_id not in known]
        shown = new if self._whole else new[-_EARLIER:]
        if hidden := len(new) - len(shown):
            yield self._styled(f"... {counted(hidden, 'message')} before these", "dim")
        for message in shown:
            yield from self._message(message)
        reply = round_.reply
        if round_.failure is not None:
            yield self._failure(round_.failure, "failed")
        elif reply is None:
            yield self._styled("no reply yet", "yellow")
        else:
            calls = reply.tool_calls
            yield from self._message(Message(role="assistant", content=reply.content, tool_calls=calls), style="cyan")
            took = "" if round_.seconds is None else f", {duration(round_.seconds)}"
            yield self._styled(f"{tokens(reply.usage)}{took}", "dim")

    def _message(self, message: Message, *, style: str = "dim") -> Iterator[str]:
        label = f"{message.role} {message.name}" if message.name else message.role
        if message.content or not message.tool_calls:
            yield from self._said(label, style, message.content or "")
        for call in message.tool_calls:
            yield f"{self._styled(label, style)}  calls {self._line(f'{call.name}({call.arguments})', 24)}"

    def _call(self, call: FunctionCall) -> Iterator[str]:
        took = f"  ({duration(call.seconds)})" if call.seconds is not None and call.status != "refused" else ""
        made = self._line(f"{call.name}({', '.join(_arguments(call.arguments))})", 14)
        yield f"{self._styled(made, 'magenta')}{took}"
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
        """Write a child: in a line if all went well and it has many siblings, else whole."""
        story, outcome = child.story, child.outcome
        status: Status = outcome.status if outcome is not None else story.status if story is not None else "interrupted"
        label = self._styled(f"{child.flow} {child.label}".strip(), "magenta")
        took = "" if child.seconds is None else self._styled(f"  {duration(child.seconds)}", "dim")
        styled = self._styled(status_words(status), _STATUS_STYLE.get(status, "yellow"))
        yield f"{label}  {styled}{took}  {self._styled(printable_line(child.run), 'dim')}"
        if outcome is not None and (story is None or (brief and not self._whole and outcome.status == "succeeded")):
            error = outcome.error
            yield f"  {self._line(one_line(outcome.output), 16) if error is None else self._failure(error, 'failed')}"
        elif story is not None:
            inner = _Writer(self._coloured, max(self._width - 7, 40), self._whole, self._zone)
            yield from (f"  {line}" for line in inner._course(story))

    # --- texts and values -----------------------------------------------------------------------------------------

    def _values(self, title: str, values: JSON) -> Iterator[str]:
        if values:
            yield self._styled(title, "dim")
            for name, value in values.items():
                yield f"  {printable_line(name)}: {self._line(one_line(value), len(name) + 4)}"

    def _block(self, title: str, value: JSON) -> Iterator[str]:
        yield self._styled(title, "dim")
        yield from (f"  {line}" for line in self._cut(pretty(value)))

    def _said(self, label: str, style: str, text: str) -> Iterator[str]:
        first, *rest = self._cut(text)
        yield f"{self._styled(label, style)}  {first}"
        yield from (f"  {line}" for line in rest)

    def _cut(self, text: str) -> list[str]:
        """Give a text as lines, of which only the first are shown, each as far as there is room."""
        lines = text.splitlines() or [""]
        if self._whole:
            return list(map(printable_line, lines))
        shown = [self._line(line, 14, squeeze=False) for line in lines[:_LINES]]
        more = len(lines) - len(shown)
        return [*shown, self._styled(f"... {counted(more, 'line')} more", "dim")] if more else shown

    def _line(self, text: str, taken: int, *, squeeze: bool = True) -> str:
        line = printable_line(" ".join(text.split()) if squeeze else text)
        room = max(self._width - taken, 24)
        return line if self._whole else cut(line, room, "…")

    def _failure(self, failure: Failure, label: str) -> str:
        return f"{self._styled(label, 'red')}  {failure.name}: {printable_line(' '.join(failure.message.split()))}"

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if self._coloured and text else text


def _arguments(arguments: JSON) -> Iterator[str]:
    if isinstance(arguments, dict):
        yield from (f"{name}={one_line(value)}" for name, value in arguments.items())
    else:
        yield one_line(arguments)
