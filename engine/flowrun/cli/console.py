"""The live view of one run, on stderr: a line per event, and a spinner with the current activity."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Self, TextIO

import msgspec
from rich.status import Status
from rich.text import Text

from flowrun.cli import EXIT_DONE, EXIT_FAILED, EXIT_WAITING
from flowrun.cli.terminal import as_lines, hide, rich_console, write_answer, write_json
from flowrun.core.events import (
    AskModel,
    CallFunction,
    Effect,
    Event,
    Failed,
    Notice,
    Replied,
    RequestInput,
    Returned,
    Sleep,
    Started,
)
from flowrun.durations import spell_duration
from flowrun.excerpts import cut
from flowrun.runtime.engines import BackendSettings
from flowrun.runtime.run_result import RunResult, answer_text, mask_result
from flowrun.spec import mask, mask_excerpt

_WIDTH = 100


class Console:
    """The port ``Observer`` that prints a run's events; on a terminal, with a spinner for the pending effect."""

    def __init__(self, *, quiet: bool, secrets: Mapping[str, str]) -> None:
        self._rich = rich_console(stderr=True, quiet=quiet)
        self.secrets = secrets
        hide(secrets)
        self._status: Status | None = None
        self._child = ""
        self._started_at: dict[tuple[str, int, int], float] = {}
        self._calls: dict[tuple[str, int, int], CallFunction] = {}
        self._loading: tuple[str, float] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop_spinner()

    def progress(self, message: str) -> None:
        """Show a stage of the model's loading, and print the time of the previous one."""
        self._finish_loading()
        self._loading = (message, time.monotonic())
        self._spin(message)

    def note(self, label: str, text: str) -> None:
        """Print a note."""
        self._finish_loading()
        self._stop_spinner()
        self._line("dim", label, text)

    def notify(self, notice: Notice) -> None:
        """Print the event, then show the effects that it caused."""
        self._finish_loading()
        self._stop_spinner()
        self._child = notice.run.partition(".")[2]
        self._show_event(notice.event)
        for effect in notice.effects:
            self._show_effect(effect)

    def conclude(self, result: RunResult, commands: Sequence[str] = ()) -> None:
        """Print how the run ended, or what it waits for and the ``commands`` that resume it."""
        self._finish_loading()
        self._stop_spinner()
        run, usage, self._child = result.run, result.run.usage, ""
        tokens = f"{run.rounds} rounds, {usage.prompt_tokens} + {usage.completion_tokens} tokens"
        if run.outcome is None:
            self._rich.quiet = False
            for ask in result.waiting:
                self._line("yellow", "waiting", f"state {ask.state} asks: {ask.prompt}")
            for call in result.in_doubt:
                arguments = self._shorten(json.dumps(dict(call.arguments), ensure_ascii=False))
                what = f"{call.tool or call.entrypoint}({arguments})"
                self._line("yellow", "in doubt", f"{what} was begun, and nobody knows whether it was done")
            for command in commands:
                self._line("yellow", "next", command)
            if not commands:
                lost = "nobody was there to answer, and the run is lost: run it on a terminal, or with --durable"
                self._line("yellow", "waiting", lost)
        elif (error := run.outcome.error) is None:
            self._line("green", run.outcome.status, f"{' > '.join(run.path)}  ({tokens})")
        else:
            where = f" in state {error.state}" if error.state else ""
            self._rich.quiet = False  # the reason of a failure is not progress: --quiet does not hide it
            self._line("red", run.outcome.status, f"{error.name}{where}: {error.message}")

    def _show_event(self, event: Event) -> None:
        match event:
            case Replied():
                seconds = self._took(event.step, 0)
                calls = ", ".join(f"{call.name}({self._shorten(call.arguments)})" for call in event.reply.tool_calls)
                usage = event.reply.usage
                figures = f"{usage.prompt_tokens} + {usage.completion_tokens} tokens, {spell_duration(seconds)}"
                self._line("cyan", "reply", f"{calls or self._shorten(event.reply.content or '')}  ({figures})")
            case Returned():
                call, seconds = (
                    self._calls.get((self._child, event.step, event.index)),
                    self._took(event.step, event.index),
                )
                name = f"{call.tool or call.entrypoint}: " if call is not None else ""
                value = event.value if isinstance(event.value, str) else json.dumps(event.value, ensure_ascii=False)
                self._line("magenta", "result", f"{name}{self._shorten(value)}  ({spell_duration(seconds)})")
            case Failed():
                call = self._calls.get((self._child, event.step, event.index))
                self._took(event.step, event.index)
                name = f"{call.tool or call.entrypoint}: " if call is not None else ""
                self._line("red", "failed", f"{name}{event.failure.name}: {event.failure.message}")
            case Started():
                for name, value in event.inputs.items():
                    self._line("dim", "input", f"{name}: {self._shorten(str(value))}")
            case _:
                pass

    def _show_effect(self, effect: Effect) -> None:
        match effect:
            case AskModel():
                self._started_at[self._child, effect.step, 0] = time.monotonic()
                self._spin(f"{effect.state}: the model is writing")
            case CallFunction():
                self._started_at[self._child, effect.step, effect.index] = time.monotonic()
                self._calls[self._child, effect.step, effect.index] = effect
                self._spin(f"{effect.state}: {effect.tool or effect.entrypoint} is running")
            case RequestInput():
                self._line("yellow", "asks", effect.prompt)
            case Sleep():
                self._spin(f"another attempt in {spell_duration(effect.seconds)}")
            case _:
                pass

    def _took(self, step: int, index: int) -> float:
        self._calls.pop((self._child, step, index), None)
        started = self._started_at.pop((self._child, step, index), None)
        return 0.0 if started is None else time.monotonic() - started

    def _finish_loading(self) -> None:
        if self._loading is not None:
            message, since = self._loading
            self._line("dim", "model", f"{message}  ({spell_duration(time.monotonic() - since)})")
            self._loading = None

    def _spin(self, message: str) -> None:
        if not self._rich.is_terminal:
            return
        if self._status is None:
            self._status = self._rich.status(Text(message))
            self._status.start()
        else:
            self._status.update(Text(message))

    def _stop_spinner(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None

    def _shorten(self, text: str) -> str:
        """Return a text as one line of limited length, masked first: a cut must not leave half of a secret."""
        return cut(" ".join(mask(text, self.secrets).split()), _WIDTH, "…")

    def _line(self, style: str, label: str, text: str) -> None:
        line = Text(f"{label:>9}  ", style=style)
        if self._child:
            line.append(f"[{self._child}] ", style="dim")
        line.append(as_lines(mask_excerpt(text, self.secrets), indent=" " * len(line)), style="default")
        self._rich.print(line, soft_wrap=True)


class RunView(msgspec.Struct, frozen=True):
    """How a verb shows a run: its answer goes to ``answers``, or with ``full`` its result as JSON; all else to stderr.

    ``verbose`` shows the log of vLLM too.
    """

    answers: TextIO
    console: Console
    full: bool
    verbose: bool

    @property
    def settings(self) -> BackendSettings:
        """Return the settings for the run's backends."""
        return BackendSettings(verbose=self.verbose, progress=self.console.progress)

    def conclude(self, result: RunResult, commands: Sequence[str] = ()) -> int:
        """Print how a run ended and what resumes it, write its answer, and return the exit code."""
        self.console.conclude(result, commands)
        secrets = self.console.secrets
        if self.full:
            write_json(self.answers, json.dumps(mask_result(result.to_dict(), secrets), ensure_ascii=False, indent=2))
        elif (text := answer_text(mask(result.output, secrets))) is not None:
            write_answer(self.answers, text)
        if result.run.outcome is None:
            return EXIT_WAITING
        return EXIT_DONE if result.run.status == "succeeded" else EXIT_FAILED
