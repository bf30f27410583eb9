"""One batch of the command line, from its rows to its closing figures, wherever its runs are run."""

import asyncio
import itertools
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from flowrun.adapters.journal import ENDED
from flowrun.batch import Batch, Meter, Options, Results, Row, RowFile, run_by, run_here, run_name
from flowrun.batch.batch import RunRow
from flowrun.batch.loop import Room
from flowrun.cli.assembly import Settings, backends_of, calm_collector
from flowrun.cli.driving import driving, history_of
from flowrun.cli.progress import BatchView, spell_seconds
from flowrun.durable import keep_flow
from flowrun.errors import UsageError
from flowrun.prepare import Flow
from flowrun.runner import Result, Runner
from flowrun.snapshots import Snapshot


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a flow comes from: all that is needed to prepare it elsewhere as it was prepared here."""

    path: Path
    profile: str | None
    project_dir: Path | None
    max_tools: int
    snapshot: Snapshot


class Session(msgspec.Struct, kw_only=True):
    """What a batch did in this process; ``seconds`` are those from the first row to the last result."""

    meter: Meter
    seconds: float = 0.0
    stopped: str | None = None
    interrupted: bool = False
    open: int = 0

    def figures(self) -> dict[str, Any]:
        """Give what it took, as JSON data."""
        usage = msgspec.to_builtins(self.meter.usage)
        return {"seconds": round(self.seconds, 3), "rounds": self.meter.rounds, "usage": usage}

    def spell(self) -> str:
        """Write what it took as people read it."""
        usage, rounds, seconds = self.meter.usage, self.meter.rounds, self.seconds
        parts = [f"{rounds:,} rounds"]
        if usage.prompt_tokens:
            cached = f"{usage.cached_tokens / usage.prompt_tokens:.0%} cached"
            parts.append(f"{usage.prompt_tokens:,} ({cached}) + {usage.completion_tokens:,} tokens")
        if usage.rerendered:
            parts.append(f"{usage.rerendered:,} prompts rendered anew")
        if seconds:
            parts.append(f"{rounds / seconds:.1f} rounds/s")
            parts += [f"{usage.completion_tokens / seconds:,.0f} tokens/s"] if usage.completion_tokens else []
        return f"{spell_seconds(seconds)}: {', '.join(parts)}"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that is to be run: ``total`` rows of a flow."""

    flow: Flow
    origin: Origin
    rows: Iterator[Row]
    total: int
    results: Results
    options: Options
    settings: Settings
    view: BatchView
    session: Session

    async def drive(self, run_row: RunRow, room: Room) -> None:
        """Run the rows, and show how it goes.

        Raises:
            BatchStopped: it ended early.
        """
        batch = Batch(run_row, self.results, room, self.options)
        watching = asyncio.create_task(self.view.watch(batch, self.session.meter, total=self.total))
        begun = time.monotonic()
        try:
            await batch.run(self.rows)
        finally:
            self.session.open = batch.open
            self.session.seconds = time.monotonic() - begun
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching


def rows_to_run(file: RowFile, results: Results, *, retry_failed: bool) -> Iterator[Row]:
    """Give the rows to run, read as they are needed."""
    if retry_failed:
        results.retry()
        return (row for row in file if row.number in results.failed)
    return (row for row in file if row.number not in results.finished)


def count_rows_to_run(outcomes: Mapping[str, int], rows: int, *, retry_failed: bool) -> tuple[int, int]:
    """Give how many rows are to be run and how many are skipped, from the outcomes of earlier results."""
    finished = sum(outcomes.values())
    failed = finished - outcomes.get("succeeded", 0)
    return (failed, finished - failed) if retry_failed else (rows - finished, finished)


async def run_in_process(job: Job) -> None:
    """Run a batch in this process."""
    meter = job.session.meter
    backends = meter.around(backends_of(job.flow, job.settings))
    calm_collector()
    try:
        for backend in backends.values():
            await backend.start()
        runner = Runner(backends=backends, functions=job.flow.functions)
        run_row = run_here(runner, job.flow.graph, messages=job.options.messages, batch=job.results.batch)
        await job.drive(run_row, meter)
    finally:
        for backend in backends.values():
            await backend.stop()


def runs_begun(journal: Path, job: Job) -> dict[str, str]:
    """Give the statuses of the runs that earlier sessions of a batch began, by their ids."""
    if not journal.exists():
        return {}
    return {row.id: row.status for row in history_of(journal).runs(batch=job.results.batch)}


async def run_durably(job: Job, journal: Path, begun: Mapping[str, str]) -> None:
    """Run a batch in this process, each run written down as it goes; those begun before are taken up."""
    origin, meter, batch = job.origin, job.session.meter, job.results.batch
    kept = keep_flow(job.flow, origin.path, profile=origin.profile, project_dir=origin.project_dir)
    async with driving(job.flow, kept, journal, settings=job.settings, batch=batch, around=meter.around) as (
        runs,
        kept_in,
        _,
    ):
        if held := await kept_in.take([run for run, status in begun.items() if status not in ENDED]):
            who = held[0].holder
            raise UsageError(f"process {who.pid} on {who.host} drives run {held[0].run} of this batch: end it first")

        async def drive(row: Row) -> Result:
            run = run_name(batch, row)
            for attempt in itertools.count(2):
                if row.number not in job.results.failed or begun.get(run) not in _TRIED_ANEW:
                    break
                run = f"{run_name(batch, row)}-{attempt}"
            return await (runs.go_on(run) if run in begun else runs.start(row.inputs, run))

        await job.drive(run_by(drive, messages=job.options.messages), meter)


_TRIED_ANEW: Final = frozenset({"failed", "cancelled"})
"""A run that ended so is not taken up when its row is tried anew: another one is begun."""
