"""A batch job: its rows, its results and totals, and the run of it in this process."""

import asyncio
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import msgspec

from flowrun.batch.batch import Batch, Options, RunRow, run_in_this_process
from flowrun.batch.results import Fingerprint, OnChange, Results
from flowrun.batch.rows import Row, RowFile
from flowrun.batch.sinks import Sink
from flowrun.errors import UsageError
from flowrun.runtime.engines import BackendSettings
from flowrun.runtime.loop import Capacity
from flowrun.runtime.meter import Meter
from flowrun.runtime.project import CompiledFlow
from flowrun.runtime.session import Session
from flowrun.runtime.stored_flow import StoredFlow, store_flow
from flowrun.spec.model import Spec


class BatchReporter(Protocol):
    """Shows the progress of a batch."""

    def say(self, message: str, *, important: bool = False) -> None:
        """Show a message to the user; the current stage has ended."""

    def progress(self, stage: str) -> None:
        """Show a stage before or after the rows, and its time once it has ended."""

    def say_columns(self, rows: Path, columns: Sequence[str], inputs: Collection[str]) -> None:
        """Show which members of the rows are no inputs of the flow."""

    async def watch(self, batch: Batch, meter: Meter, *, total: int) -> None:
        """Show progress until cancelled.

        Args:
            total: the number of rows to run in this process.
        """


class BatchTotals(msgspec.Struct, kw_only=True):
    """The totals of a batch in this process.

    Attributes:
        seconds: the time from the first row to the last result.
        stopped: the reason why the batch ended early.
        open: the number of runs that have not ended, by status.
    """

    meter: Meter
    seconds: float = 0.0
    stopped: str | None = None
    interrupted: bool = False
    open: Mapping[str, int] = {}

    def figures(self) -> dict[str, Any]:
        """Return the time, rounds and tokens as JSON data."""
        usage = msgspec.to_builtins(self.meter.usage)
        return {"seconds": round(self.seconds, 3), "rounds": self.meter.rounds, "usage": usage}


class BatchJob(msgspec.Struct, frozen=True, kw_only=True):
    """A batch to run: ``total`` runs of a flow.

    Attributes:
        rows_in_file: the number of rows.
        total: the number of runs to make.
        skipped: the number of runs that have a result.
        samples: the number of runs a row.
        stored: the flow in the form from which another process compiles the same flow.
        max_tools: the number of functions that run at once, in each process.
    """

    flow: CompiledFlow
    stored: StoredFlow
    max_tools: int
    rows: Iterator[Row]
    rows_in_file: int
    total: int
    skipped: int
    samples: int
    results: Results
    options: Options
    settings: BackendSettings
    view: BatchReporter
    totals: BatchTotals

    async def run_rows(self, run_row: RunRow, capacity: Capacity) -> None:
        """Run the rows, show the progress, and fill in the totals.

        Raises:
            BatchStopped: the batch ended early; see ``Batch.run``.
        """
        meter = self.totals.meter
        batch = Batch(run_row, self.results, capacity, self.options, self.flow.origin, meter=meter)
        progress = asyncio.create_task(self.view.watch(batch, meter, total=self.total))
        started_at = time.monotonic()
        try:
            await batch.run(self.rows)
        finally:
            self.totals.open = dict(batch.open)
            self.totals.seconds = time.monotonic() - started_at
            progress.cancel()
            with suppress(asyncio.CancelledError):
                await progress


class ResultOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where results are, and what becomes of those that are there.

    Attributes:
        sink: the files.
        samples: the number of runs a row.
        on_change: what becomes of results of another spec or input.
        retry_failed: run only the rows that failed.
        journal: the journal of a durable batch.
    """

    sink: Sink
    samples: int = 1
    on_change: OnChange = "refuse"
    retry_failed: bool = False
    journal: Path | None = None


def open_job(
    flow: CompiledFlow,
    rows: Path,
    where: ResultOptions,
    *,
    options: Options,
    settings: BackendSettings,
    max_tools: int,
    view: BatchReporter,
) -> BatchJob:
    """Survey the rows and open the results.

    Raises:
        UsageError: the rows cannot be read, or there are none; or the results are refused.
        StoreError: the results cannot be read or written.
    """
    file, stored = RowFile(rows, flow.spec), store_flow(flow)
    view.progress(f"reading the rows of {rows}")
    survey = file.survey()
    output = where.sink.path
    if output.exists() and any(output.samefile(one) for one in (flow.path, rows)):
        raise UsageError(f"-o {output} is the spec or the rows themselves: name another file")
    if not survey.count:
        raise UsageError(f"{rows} has no rows")
    view.say_columns(rows, survey.columns, flow.spec.inputs)
    fingerprint = Fingerprint(
        spec=stored.snapshot.digest,
        input=survey.digest,
        rows=survey.count,
        samples=where.samples,
        journal=None if where.journal is None else str(where.journal.resolve()),
    )
    results = Results(
        where.sink,
        fingerprint,
        rows=file,
        secrets=flow.secrets,
        on_change=where.on_change,
        defaults=flow.spec.add_defaults,
    )
    total, skipped = count_rows_to_run(results.outcomes, survey.count * where.samples, retry_failed=where.retry_failed)
    to_run = rows_to_run(file, results, retry_failed=where.retry_failed, samples=where.samples, seed=seed_of(flow.spec))
    return BatchJob(
        flow=flow,
        stored=stored,
        max_tools=max_tools,
        rows=to_run,
        rows_in_file=survey.count,
        total=total,
        skipped=skipped,
        samples=where.samples,
        results=results,
        options=options,
        settings=settings,
        view=view,
        totals=BatchTotals(meter=Meter()),
    )


def rows_to_run(
    file: RowFile, results: Results, *, retry_failed: bool, samples: int = 1, seed: int = 0
) -> Iterator[Row]:
    """Return an iterator over the samples of rows to run, which reads the rows one by one.

    Args:
        seed: that of the spec, which those of the samples depend on.
    """
    each = (sample for row in file for sample in row.each_sample(samples, seed))
    if retry_failed:
        results.retry()
        return (row for row in each if row.place in results.failed)
    return (row for row in each if row.place not in results.finished)


def seed_of(spec: Spec) -> int:
    """Return the seed of a spec's sampling; 0 if it has none."""
    seed = spec.sampling.get("seed")
    return seed if isinstance(seed, int) else 0


def count_rows_to_run(outcomes: Mapping[str, int], rows: int, *, retry_failed: bool) -> tuple[int, int]:
    """Return (runs to make, runs to skip).

    Args:
        outcomes: the number of earlier results by outcome.
        rows: the number of runs of the batch: of rows in the file, times their samples.
    """
    finished = sum(outcomes.values())
    failed = finished - outcomes.get("succeeded", 0)
    return (failed, finished - failed) if retry_failed else (rows - finished, finished)


async def run_in_process(job: BatchJob) -> None:
    """Run a batch job in this process.

    Raises:
        BatchStopped: the batch ended early; see ``Batch.run``.
    """
    meter = job.totals.meter
    async with Session(max_tools=job.max_tools, keep_waiting=False, settings=job.settings) as session:
        runs = await session.runs_of(job.flow, wrap=meter.wrap)
        run_row = run_in_this_process(runs, messages=job.options.messages, batch=job.results.batch)
        await job.run_rows(run_row, meter)
