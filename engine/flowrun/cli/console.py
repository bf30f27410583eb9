"""The live view of one run, on stderr: a line per event, and on a terminal a live line with what is awaited."""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from json import dumps
from typing import Final, Self, TextIO

import msgspec
from rich.text import Text

from flowrun.cli import EXIT_DONE, EXIT_FAILED, EXIT_WAITING
from flowrun.cli.awaited import Awaited, Ended, name_of
from flowrun.cli.human_input import is_interactive
from flowrun.cli.live import Clock, LiveLine, Stages
from flowrun.cli.terminal import as_lines, hide, rich_console, write_answer, write_json
from flowrun.core.approvals import call_text
from flowrun.core.events import (
    Answered,
    CallFunction,
    ChildEnded,
    Effect,
    Event,
    Failed,
    Notice,
    Replied,
    RequestInput,
    Returned,
    Sleep,
    Started,
    TimedOut,
    Written,
)
from flowrun.core.graph import Graph
from flowrun.core.messages import Usage
from flowrun.core.ports import Observer
from flowrun.durations import spell_duration, spell_moment
from flowrun.excerpts import cut
from flowrun.runtime.engines import BackendSettings
from flowrun.runtime.run_result import RunResult, answer_text, encode_json, mask_result
from flowrun.spec import mask, mask_excerpt

_WIDTH: Final = 100
_ARGUMENTS_WIDTH: Final = 60
_TOKENS_FOR_SPEED: Final = 10


class Console:
    """The port ``Observer`` that prints a run's events; on a terminal, with a live line for what is awaited.

    Args:
        graph: the graph of the run.
        secrets: the values to mask, each with the text that is shown in its place.

    ``resumed_by`` is the command that resumes the run, if it is durable.
    """

    def __init__(self, graph: Graph, secrets: Mapping[str, str], *, quiet: bool, clock: Clock = time.monotonic) -> None:
        self._rich = rich_console(stderr=True, quiet=quiet)
        self.secrets = secrets
        hide(secrets)
        self._quiet = quiet
        self._awaited = Awaited(graph, clock)
        self._stages = Stages(lambda text: self._line("dim", "model", text), clock)
        self._live = LiveLine(self._rich, self.awaited_now, clock, below=self._awaited.text)
        self.resumed_by = ""

    @property
    def is_live(self) -> bool:
        """Return whether it shows what is in progress, besides what has happened."""
        return self._rich.is_terminal and not self._quiet

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.hide()

    def progress(self, stage: str) -> None:
        """Show a stage of the model's start, and print the time of the previous one."""
        self._stages.begin(stage)
        self._live.show()

    def note(self, label: str, text: str) -> None:
        """Print a note."""
        self.finish()
        self._line("dim", label, text)
        self._awaited.begin()

    def notify(self, notice: Notice) -> None:
        """Print the event, then show the effects that it caused."""
        self._stages.end()
        if isinstance(notice.event, Started) and "." not in notice.run:
            self._awaited.begin()
        ended = self._awaited.take(notice)
        is_live = self._awaited.pending and not (self._awaited.asks and is_interactive())
        if not is_live:
            self._live.hide()  # the run has ended, or there is a question, and what is typed
        self._show_event(notice, ended)
        for effect in notice.effects:
            self._show_effect(notice, effect)
        if is_live:
            self._live.show()

    def write(self, written: Written) -> None:
        """Show a piece of what a model writes, until its reply is there."""
        self._awaited.write(written)

    def finish(self) -> None:
        """End what is live: the last stage, and the line at the bottom."""
        self._live.hide()
        self._stages.end()

    def conclude(self, result: RunResult, commands: Sequence[str] = ()) -> None:
        """Print how the run ended, or what it waits for and the ``commands`` that resume it."""
        self.finish()
        run, totals = result.run, spell_totals(result, *self._awaited.times())
        if run.outcome is None:
            self._rich.quiet = False
            for ask in result.waiting:
                self._line("yellow", "waiting", f"state {ask.state} asks: {_question(ask)}")
            for call in result.in_doubt:
                self._line("yellow", "in doubt", f"{self._call(call)} was begun, and nobody knows whether it was done")
            for command in commands:
                self._line("yellow", "next", command)
            if result.status == "sleeping" and result.wakes is not None:
                self._line("yellow", "sleeping", f"until {spell_moment(result.wakes, None)}")
            elif not commands:
                lost = "nobody was there to answer, and the run is lost: run it on a terminal, or with --durable"
                self._line("yellow", "waiting", lost)
        elif (error := run.outcome.error) is None:
            self._line("green", run.outcome.status, totals)
        else:
            where = f" in state {error.state}" if error.state else ""
            self._rich.quiet = False  # the reason of a failure is not progress: --quiet does not hide it
            self._line("red", run.outcome.status, f"{error.name}{where}: {error.message}")
            self._rich.quiet = self._quiet
            self._line("dim", "path", totals)

    def awaited_now(self) -> tuple[str, float] | None:
        """Return what is awaited, without secrets, and since when; None if nothing is."""
        awaited = self._stages.current or self._awaited.describe()
        return None if awaited is None else (mask_excerpt(awaited[0], self.secrets), awaited[1])

    def _show_event(self, notice: Notice, ended: Ended | None) -> None:
        event = notice.event
        if isinstance(event, Started):
            for name, value in event.inputs.items():
                place = self._awaited.place(notice.run, "")
                self._line("dim", "input", f"{name}: {self._shorten(str(value))}", place)
        elif isinstance(event, TimedOut):
            for move in notice.moves:
                if move.failure is not None and move.how != "end":
                    text = f"{move.failure.name}: {move.failure.message}"
                    self._line("red", "failed", text, self._awaited.place(notice.run, move.state))
        elif ended is not None:
            self._show_ended(event, ended)

    def _show_ended(self, event: Event, ended: Ended) -> None:
        call = f"{self._call(ended.effect)}: " if isinstance(ended.effect, CallFunction) else ""
        seconds = spell_duration(ended.seconds)
        match event:
            case Replied(reply=reply):
                calls = ", ".join(f"{call.name}({self._shorten(call.arguments)})" for call in reply.tool_calls)
                figures = ", ".join([seconds, *spell_tokens(reply.usage), *spell_speed(reply.usage, ended.seconds)])
                self._line("cyan", "reply", f"{calls or self._shorten(reply.shown)}  ({figures})", ended.place)
            case Returned(value=value):
                text = value if isinstance(value, str) else dumps(value, ensure_ascii=False)
                self._line("magenta", "result", f"{call}{self._shorten(text)}  ({seconds})", ended.place)
            case Failed(failure=failure):
                self._line("red", "failed", f"{call}{failure.name}: {failure.message}  ({seconds})", ended.place)
            case Answered(value=value):
                text = value if isinstance(value, str) else dumps(value, ensure_ascii=False)
                self._line("green", "answer", self._shorten(text), ended.place)
            case ChildEnded(outcome=outcome):
                counts = f", {ended.done} ended, {ended.left} under way" if ended.done + ended.left > 1 else ""
                text = f"run {event.step}.{event.index} {outcome.status}{counts}"
                figures = ", ".join([seconds, spell_count(event.rounds, "round"), *spell_tokens(event.usage)])
                self._line("dim", "sub-run", f"{text}  ({figures})", ended.place)
            case _:
                pass

    def _show_effect(self, notice: Notice, effect: Effect) -> None:
        match effect:
            case RequestInput():
                place = self._awaited.place(notice.run, effect.state)
                self._line("yellow", "asks", _question(effect), place)
            case Sleep():
                text = self._awaited.pause(notice.run, notice.state, effect)
                safe = f"; safe to stop: {self.resumed_by} continues it" if text.startswith("sleeping") else ""
                text += safe if self.resumed_by else ""
                self._line("dim", "pause", text, self._awaited.place(notice.run, notice.state))
            case _:
                pass

    def _call(self, call: CallFunction) -> str:
        arguments = self._shorten(dumps(dict(call.arguments), ensure_ascii=False), _ARGUMENTS_WIDTH)
        return f"{name_of(call)}({arguments})"

    def _shorten(self, text: str, width: int = _WIDTH) -> str:
        """Return a text as one line of limited length, masked first: a cut must not leave half of a secret."""
        return cut(" ".join(mask(text, self.secrets).split()), width, "…")

    def _line(self, style: str, label: str, text: str, place: str = "") -> None:
        line = Text(f"{label:>9}  ", style=style)
        if place:
            line.append(f"[{place}] ", style="dim")
        line.append(as_lines(mask_excerpt(text, self.secrets), indent=" " * len(line)), style="default")
        self._rich.print(line, soft_wrap=True)


def _question(effect: RequestInput) -> str:
    """Return a question with the call that it is about, which stands in a line of its own, after the prompt."""
    return "\n".join(filter(None, (effect.prompt, call_text(effect.call))))


def spell_totals(result: RunResult, seconds: float, times: Mapping[str, float]) -> str:
    """Render the path of a run that has ended, its rounds and tokens, and where its time went."""
    run = result.run
    spent = ", ".join(f"{kind} {spell_duration(spent)}" for kind, spent in times.items() if spent)
    counts = ", ".join([spell_count(run.rounds, "round"), *spell_tokens(run.usage)])
    return f"{' > '.join(run.path)}  ({counts}; {spell_duration(seconds)}{f': {spent}' if spent else ''})"


def spell_tokens(usage: Usage) -> Iterator[str]:
    """Yield the tokens that a model read and wrote; nothing if they are not known."""
    if usage.prompt_tokens:
        cached = f" ({usage.cached_tokens:,} cached)" if usage.cached_tokens else ""
        yield f"{usage.prompt_tokens:,} tokens read{cached}"
    if usage.completion_tokens:
        yield f"{usage.completion_tokens:,} written"


def spell_speed(usage: Usage, seconds: float) -> Iterator[str]:
    """Yield the tokens written a second, the time to the first one included; nothing for a reply of few tokens."""
    if usage.completion_tokens >= _TOKENS_FOR_SPEED and seconds > 0:
        yield f"{usage.completion_tokens / seconds:,.1f} tokens/s"


def spell_count(count: int, noun: str) -> str:
    """Render a number of things."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


class _TextWatcher:
    """The port ``TextObserver`` that shows on a console what models write; the console itself shows all else."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def notify(self, notice: Notice) -> None:
        """Do nothing: the console is notified too."""

    def notify_text(self, written: Written) -> None:
        """Show a piece. See ``ports.TextObserver.notify_text``."""
        self._console.write(written)


class RunView(msgspec.Struct, frozen=True):
    """How a verb shows a run: its answer goes to ``answers``, or with ``full`` its result as JSON; all else to stderr.

    ``verbose`` shows the log of vLLM too; with ``tokens`` the result has them; with ``locked`` the models must be those
    of the lock.
    """

    answers: TextIO
    console: Console
    full: bool
    verbose: bool
    tokens: bool = False
    locked: bool = False

    @property
    def settings(self) -> BackendSettings:
        """Return the settings for the run's backends."""
        note = partial(self.console.note, "model")
        return BackendSettings(
            verbose=self.verbose,
            locked=self.locked,
            keeps_tokens=self.tokens,
            progress=self.console.progress,
            note=note,
        )

    @property
    def observers(self) -> list[Observer]:
        """Return the observers of the run. On a terminal, one of them watches what models write; not with ``full``."""
        watches = self.console.is_live and not self.full
        return [self.console, *([_TextWatcher(self.console)] if watches else [])]

    def conclude(self, result: RunResult, commands: Sequence[str] = ()) -> int:
        """Print how a run ended and what resumes it, write its answer, and return the exit code."""
        self.console.conclude(result, commands)
        secrets = self.console.secrets
        if self.full:
            write_json(self.answers, encode_json(mask_result(result.to_dict(), secrets), indent=2))
        elif (text := answer_text(mask(result.output, secrets))) is not None:
            write_answer(self.answers, text)
        if result.run.outcome is None:
            return EXIT_WAITING
        return EXIT_DONE if result.run.status == "succeeded" else EXIT_FAILED
