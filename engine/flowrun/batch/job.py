"""One batch: its rows, where they run, its results and totals."""

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Protocol

import msgspec

from flowrun.batch.batch import Batch, Options, RunRow, run_here
from flowrun.batch.loop import Capacity
from flowrun.batch.meter import Meter
from flowrun.batch.results import Results
from flowrun.batch.rows import Row, RowFile
from flowrun.runtime.backends import BackendSettings, make_backends, started
from flowrun.runtime.prepare import Flow
from flowrun.runtime.runner import Runner
from flowrun.runtime.stored_flow import StoredFlow
from flowrun.spec.model import WaitState


class BatchReporter(Protocol):
    """Shows how a batch goes."""

    def say(self, message: str, *, important: bool = False) -> None:
        """Show a line: a stage of the models' loading, or what the user should know."""

    async def watch(self, batch: Batch, meter: Meter, *, total: int) -> None:
        """Show progress until cancelled. ``total`` is the number of rows of this process."""


class FlowReference(msgspec.Struct, frozen=True, kw_only=True):
    """Where a flow comes from: all that is needed to prepare it elsewhere as it was prepared here."""

    kept: StoredFlow
    max_tools: int


class BatchTotals(msgspec.Struct, kw_only=True):
    """What a batch did in this process; ``seconds`` are those from the first row to the last result."""

    meter: Meter
    seconds: float = 0.0
    stopped: str | None = None
    interrupted: bool = False
    open: Mapping[str, int] = {}

    def figures(self) -> dict[str, Any]:
        """Give what it took, as JSON data."""
        usage = msgspec.to_builtins(self.meter.usage)
        return {"seconds": round(self.seconds, 3), "rounds": self.meter.rounds, "usage": usage}


class BatchJob(msgspec.Struct, frozen=True, kw_only=True):
    """A batch that is to be run: ``total`` rows of a flow."""

    flow: Flow
    origin: FlowReference
    rows: Iterator[Row]
    total: int
    results: Results
    options: Options
    settings: BackendSettings
    view: BatchReporter
    session: BatchTotals

    async def drive(self, run_row: RunRow, room: Capacity) -> None:
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
            self.session.open = dict(batch.open)
            self.session.seconds = time.monotonic() - begun
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching


def states_that_wait(flow: Flow) -> str:
    """Name the wait states of a flow and its sub-flows, in words; empty if there are none."""
    found = [
        f"state {name} of {tree.loaded.spec.name}"
        for tree in flow.tree.walk()
        for name, state in tree.loaded.spec.states.items()
        if isinstance(state, WaitState)
    ]
    return ", ".join(found)


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


async def run_in_process(job: BatchJob) -> None:
    """Run a batch in this process."""
    meter = job.session.meter
    backends = meter.around(make_backends(job.flow, job.settings))
    async with started(backends):
        runner = Runner(backends=backends, functions=job.flow.functions)
        run_row = run_here(runner, job.flow.graph, messages=job.options.messages, batch=job.results.batch)
        await job.drive(run_row, meter)
