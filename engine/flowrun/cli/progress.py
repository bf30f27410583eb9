"""Shows the progress of a batch on stderr: a bar on a terminal, a plain line every few seconds elsewhere."""

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from flowrun.batch import Batch, Meter, Results
from flowrun.batch.job import BatchTotals
from flowrun.cli.live import Clock, LiveLine, Stages
from flowrun.cli.rates import Estimate, Rates, Totals
from flowrun.cli.terminal import hide, rich_console
from flowrun.core.messages import Usage
from flowrun.durations import spell_duration
from flowrun.excerpts import cut
from flowrun.spec import mask_excerpt
from flowrun.spec.suggestions import did_you_mean

if TYPE_CHECKING:
    from rich.console import RenderableType

_LINE_SECONDS: Final = 10.0
_BAR_SECONDS: Final = 0.2
_STAGE_SECONDS: Final = 1.0  # shorter stages have no line
_COLUMNS_SHOWN: Final = 400  # characters


class _Bar(Progress):
    """The bar of a batch, and its figures in a line below it."""

    figures = ""

    def get_renderables(self) -> "Iterator[RenderableType]":
        """Yield the bar and the line."""
        yield self.make_tasks_table(self.tasks)
        yield Text(f"  {self.figures}", no_wrap=True, overflow="ellipsis")


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of a batch at a moment; for the fields see ``Batch`` and ``Meter``."""

    at: float
    done: int
    failed: int = 0
    open: Mapping[str, int] = {}
    live: int = 0
    in_flight: int | None = None
    rounds: int = 0
    usage: Usage = Usage()


class BatchFigures:
    """What a batch is doing and how fast, as text, from its counts at one moment after another."""

    def __init__(self) -> None:
        self._rates = Rates()
        self._estimate = Estimate()

    def update(self, now: Counts, total: int) -> tuple[str, str]:
        """Return what the batch is doing, and its figures: now, over the last seconds, and until its end."""
        usage = now.usage
        ended = now.done + sum(now.open.values())
        rates = self._rates.update(Totals(now.at, ended, now.rounds, usage.prompt_tokens, usage.completion_tokens))
        left = self._estimate.update(now.at, done=ended, live=now.live, total=total)
        parts = [spell_live(now.live, now.in_flight), f"{now.failed:,} failed"]
        parts += [f"{count:,} {status.replace('_', ' ')}" for status, count in now.open.items()]
        parts += spell_rates(rates) if rates is not None else []
        if usage.prompt_tokens:
            parts.append(f"{usage.cached_tokens / usage.prompt_tokens:.0%} cached")
        if left is not None:
            parts.append(f"about {spell_duration(left, whole=True)} left")
        last = 0 < total - ended <= now.live
        return f"finishing the last {total - ended:,}" if last else "running", ", ".join(parts)


class BatchView:
    """The view of a batch: its progress, and its totals at the end. It implements ``job.BatchReporter``."""

    def __init__(self, *, quiet: bool, secrets: Mapping[str, str], clock: Clock = time.monotonic) -> None:
        self._rich = rich_console(stderr=True)
        self._quiet = quiet
        self._secrets = secrets
        hide(secrets)
        self._clock = clock
        self._bar: _Bar | None = None
        self._stages = Stages(self._show, clock, least=_STAGE_SECONDS)
        self._live = LiveLine(self._rich, lambda: self._stages.current, clock)
        self._figures = BatchFigures()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._live.hide()
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, message: str, *, important: bool = False) -> None:
        """Show a message to the user; the current stage has ended."""
        self._end_stage()
        if important or not self._quiet:
            self._show(message)

    def progress(self, stage: str) -> None:
        """Show a stage before or after the rows, and if it takes long, its time once it has ended."""
        if not self._quiet:
            self._stages.begin(mask_excerpt(stage, self._secrets))
            self._live.show()

    def _end_stage(self) -> None:
        self._live.hide()
        self._stages.end()

    def _show(self, text: str) -> None:
        self._rich.print(mask_excerpt(text, self._secrets), style="dim", soft_wrap=True, markup=False)

    async def watch(self, batch: Batch, meter: Meter, *, total: int) -> None:
        """Show the progress of a batch until cancelled. ``total`` is the number of rows to run in this process."""
        self._end_stage()
        if self._quiet:
            return
        if not self._rich.is_terminal:
            self._update(batch, meter, total)
            while True:
                await asyncio.sleep(_LINE_SECONDS)
                activity, figures = self._update(batch, meter, total)
                self._rich.print(f"{activity}: {batch.done:,}/{total:,} done, {figures}", soft_wrap=True)
        self._bar = _Bar(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            console=self._rich,
            transient=True,
            expand=True,
        )
        task = self._bar.add_task("", total=total)
        self._bar.start()
        try:
            while True:
                activity, self._bar.figures = self._update(batch, meter, total)
                self._bar.update(task, completed=batch.done, description=activity)
                await asyncio.sleep(_BAR_SECONDS)
        finally:
            self._bar.stop()

    def _update(self, batch: Batch, meter: Meter, total: int) -> tuple[str, str]:
        now = Counts(
            at=self._clock(),
            done=batch.done,
            failed=batch.failed,
            open=batch.open,
            live=batch.live,
            in_flight=meter.in_flight,
            rounds=meter.rounds,
            usage=meter.usage,
        )
        return self._figures.update(now, total)

    def conclude(self, outcomes: Mapping[str, int], *, skipped: int, missing: int, totals: BatchTotals) -> None:
        """Show the number of rows by outcome, and the totals.

        Args:
            outcomes: the number of rows by error name, or by status if there is no error.
            skipped: the number of rows that had a result before this process.
            missing: the number of rows without a result.
        """
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(justify="right")
        table.add_column()
        for name, count in sorted(outcomes.items(), key=lambda item: (item[0] != "succeeded", -item[1], item[0])):
            style = "green" if name == "succeeded" else "red"
            table.add_row(f"{count:,}", Text(name), style=style)
        if skipped:
            table.add_row(f"{skipped:,}", "of them finished before, and skipped", style="dim")
        if missing:
            table.add_row(f"{missing:,}", "not finished: run the same command again", style="yellow")
        self._rich.print(table)
        if not self._quiet:
            self._rich.print(spell_totals(totals), style="dim", soft_wrap=True)

    def say_columns(self, rows: Path, columns: Sequence[str], inputs: Collection[str]) -> None:
        """Show which members of the rows are no inputs of the flow: a misspelt input would be one of them."""
        if columns:
            near = " ".join(filter(None, (did_you_mean(column, inputs) for column in columns)))
            names = cut(", ".join(columns), _COLUMNS_SHOWN)
            passed = f"{rows}: {names}: no input of the flow, and passed through into the results"
            self.say(f"{passed}; {near}" if near else passed, important=True)

    def say_kept(self, results: Results, *, messages: bool) -> None:
        """Show what opening the results has removed from them, and what of them is not as it is wanted now.

        Args:
            messages: the results are to have the messages.
        """
        if results.mended:
            what = f"{results.path}: {results.mended} lines removed, which are broken or there twice"
            kept = f"; {results.foreign} of them are no results of this batch, and in {results.sink.foreign}"
            self.say(what + (kept if results.foreign else ""), important=bool(results.foreign))
        if results.gone:
            gone = f"{results.gone} results of rows or samples that the batch has no more are kept, and do not count"
            self.say(f"{results.path}: {gone}", important=True)
        if messages and results.without_messages:
            without = (
                f"{results.without_messages} rows succeeded without --messages before, and their results have none"
            )
            self.say(f"{results.path}: {without}: --restart runs every row anew", important=True)

    def explain_open(self, status: str, count: int, batch: str) -> None:
        """Show how many runs of a status have not ended, and the command that lists them."""
        what = "wait for human input" if status == "waiting" else "have a call in doubt"
        command = f"flowrun runs --batch {batch} --status {status}"
        self.say(f"{count} {what}, and get their results once they are over: {command}", important=True)


def spell_live(live: int, in_flight: int | None) -> str:
    """Render how many rows are live, and what they wait for, if that is known."""
    if in_flight is None:
        return f"{live:,} live"
    asking = min(in_flight, live)  # a row with parallel branches may ask more than once
    return f"{live:,} live ({asking:,} with the model, {live - asking:,} with tools)"


def spell_rates(rates: Totals) -> Iterator[str]:
    """Yield the rates of a batch: rows, rounds, and tokens read and written."""
    yield f"{rates.rows:.1f} rows/s"
    yield f"{rates.rounds:.1f} rounds/s"
    if rates.read or rates.written:
        yield f"{rates.read:,.0f} + {rates.written:,.0f} tokens/s"


def spell_totals(totals: BatchTotals) -> str:
    """Render the totals of a batch as text for people."""
    usage, rounds, seconds = totals.meter.usage, totals.meter.rounds, totals.seconds
    parts = [f"{rounds:,} rounds"]
    if usage.prompt_tokens:
        cached = f"{usage.cached_tokens / usage.prompt_tokens:.0%} cached"
        parts.append(f"{usage.prompt_tokens:,} ({cached}) + {usage.completion_tokens:,} tokens")
    if usage.rerendered:
        parts.append(f"{usage.rerendered:,} prompts rendered anew")
    if seconds:
        parts.append(f"{rounds / seconds:.1f} rounds/s")
        parts += [f"{usage.completion_tokens / seconds:,.0f} tokens/s"] if usage.completion_tokens else []
    return f"{spell_duration(seconds)}: {', '.join(parts)}"
