"""Shows the progress of a batch on stderr: a bar on a terminal, a plain line every few seconds elsewhere."""

import asyncio
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table
from rich.text import Text

from flowrun.batch import Batch, Meter, Results
from flowrun.batch.job import BatchTotals
from flowrun.cli.terminal import hide, rich_console
from flowrun.durations import spell_duration
from flowrun.spec import mask_excerpt
from flowrun.spec.suggestions import did_you_mean

_LINE_SECONDS: Final = 10.0
_BAR_SECONDS: Final = 0.2
_WINDOW_SECONDS: Final = 15.0


class _Sample(NamedTuple):
    at: float
    done: int
    rounds: int
    tokens: int


class BatchView:
    """The view of a batch: its progress, and its totals at the end. It implements ``job.BatchReporter``."""

    def __init__(self, *, quiet: bool, secrets: Mapping[str, str]) -> None:
        self._rich = rich_console(stderr=True)
        self._quiet = quiet
        self._secrets = secrets
        hide(secrets)
        self._bar: Progress | None = None
        self._samples: deque[_Sample] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def say(self, message: str, *, important: bool = False) -> None:
        """Show a line: a stage of the models' loading, or a message to the user."""
        if important or not self._quiet:
            self._rich.print(mask_excerpt(message, self._secrets), style="dim", soft_wrap=True, markup=False)

    async def watch(self, batch: Batch, meter: Meter, *, total: int) -> None:
        """Show the progress of a batch until cancelled. ``total`` is the number of rows to run in this process."""
        if self._quiet:
            return
        if not self._rich.is_terminal:
            while True:
                await asyncio.sleep(_LINE_SECONDS)
                self._rich.print(f"{batch.done}/{total} done, {self._figures(batch, meter, total)}", soft_wrap=True)
        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self._rich,
            transient=True,
            expand=True,
        )
        task = self._bar.add_task("rows", total=total, figures="")
        self._bar.start()
        try:
            while True:
                self._bar.update(task, completed=batch.done, figures=self._figures(batch, meter, total))
                await asyncio.sleep(_BAR_SECONDS)
        finally:
            self._bar.stop()

    def _figures(self, batch: Batch, meter: Meter, total: int) -> str:
        now, usage = time.monotonic(), meter.usage
        self._samples.append(_Sample(now, batch.done, meter.rounds, usage.completion_tokens))
        while len(self._samples) > 2 and self._samples[0].at < now - _WINDOW_SECONDS:
            self._samples.popleft()
        first, last = self._samples[0], self._samples[-1]
        seconds = last.at - first.at
        parts = [f"{batch.live} live", f"{batch.failed} failed"]
        if seconds > 0:
            parts.append(f"{(last.rounds - first.rounds) / seconds:.1f} rounds/s")
            parts += [f"{(last.tokens - first.tokens) / seconds:,.0f} tokens/s"] if last.tokens else []
        if usage.prompt_tokens:
            parts.append(f"{usage.cached_tokens / usage.prompt_tokens:.0%} cached")
        if seconds > 0 and last.done > first.done:
            left = (total - last.done) * seconds / (last.done - first.done)
            parts.append(f"{spell_duration(left, whole=True)} left")
        return ", ".join(parts)

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
            passed = f"{rows}: {', '.join(columns)}: no input of the flow, and passed through into the results"
            self.say(f"{passed}; {near}" if near else passed, important=True)

    def say_kept(self, results: Results) -> None:
        """Show what opening the results has removed from them, and what of them does not count."""
        if results.mended:
            what = f"{results.path}: {results.mended} lines removed, which are broken or there twice"
            kept = f"; {results.foreign} of them are no results of this batch, and in {results.sink.foreign}"
            self.say(what + (kept if results.foreign else ""), important=bool(results.foreign))
        if results.gone:
            gone = f"{results.gone} results of rows that the input has no more are kept, and do not count"
            self.say(f"{results.path}: {gone}", important=True)

    def explain_open(self, status: str, count: int, batch: str) -> None:
        """Show how many runs of a status have not ended, and the command that lists them."""
        what = "wait for human input" if status == "waiting" else "have a call in doubt"
        command = f"flowrun runs --batch {batch} --status {status}"
        self.say(f"{count} {what}, and get their results once they are over: {command}", important=True)


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
