"""A durable batch: runs that earlier processes began are resumed, and the journal stores the events of each run."""

import itertools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from flowrun.batch.batch import run_id_of, run_with
from flowrun.batch.job import BatchJob
from flowrun.batch.rows import Row
from flowrun.core.events import Started
from flowrun.core.recovery import recover
from flowrun.errors import Failure, StoreError, UsageError
from flowrun.journal import ENDED, LeaseLost, RunDamaged, RunRow, open_history
from flowrun.runtime.draining import drain_on_sigterm
from flowrun.runtime.run_result import RunResult, failed_result
from flowrun.runtime.session import Session
from flowrun.runtime.stored_flow import load_stored_flow
from flowrun.spec.model import JSON


class EarlierRuns:
    """The runs that earlier processes of a durable batch began; ``rows`` are their journal rows by run id."""

    def __init__(self, journal: Path, batch: str) -> None:
        self._history = open_history(journal) if journal.exists() else None
        found = self._history.runs(batch=batch) if self._history is not None else ()
        self.rows: dict[str, RunRow] = {row.id: row for row in found}

    def close(self) -> None:
        """Close the journal, which is read until the batch ends."""
        if self._history is not None:
            self._history.close()

    @property
    def open(self) -> list[RunRow]:
        """Return the runs that have not ended."""
        return [row for row in self.rows.values() if row.status not in ENDED]

    def began_with(self, run: str, inputs: Mapping[str, JSON]) -> bool:
        """Return whether a run began with these inputs; the rows of the file may have changed since."""
        assert self._history is not None
        match self._history.events(run):
            case [first, *_] if isinstance(first.event, Started):
                return dict(first.event.inputs) == dict(inputs)
            case _:
                return False

    def result_of(self, run: str) -> RunResult:
        """Return the result of an ended run that began with another spec, or other values of its variables.

        Only the flow that the run began with can apply its events.
        """
        assert self._history is not None
        flow = load_stored_flow(self._history, self.rows[run]).prepare_to_show(os.environ)
        recorded = self._history.events(run)
        return RunResult(
            run=recover(flow.graph, (one.event for one in recorded)).run,
            began=recorded[0].at,
            ended=recorded[-1].at,
            origin=flow.origin,
        )


async def run_durably(job: BatchJob, journal: Path, earlier: EarlierRuns, *, drain: float) -> None:
    """Run a batch in this process with a journal, and resume the runs that earlier processes began.

    Args:
        drain: the seconds in which calls may return after SIGTERM.

    Raises:
        UsageError: another process runs some of the batch's runs, or unfinished runs began with another spec.
    """
    stored, meter, batch = job.stored, job.totals.meter, job.results.batch
    async with Session(
        journal=journal, max_tools=job.max_tools, batch=batch, drain=drain, settings=job.settings
    ) as session:
        runs = await session.runs_of(job.flow, wrap=meter.wrap)
        if stale := [row.id for row in earlier.open if row.spec != stored.digest]:
            raise UsageError(
                f"{len(stale)} runs of this batch, such as {stale[0]}, began with another spec: `flowrun resume --all` "
                "ends them with theirs, `flowrun cancel` gives them up"
            )
        if held := await session.journal.take([row.id for row in earlier.open if not row.damaged]):
            holder = held[0].holder
            raise UsageError(
                f"process {holder.pid} on {holder.host} drives run {held[0].run} of this batch: end it first"
            )

        async def run_or_resume(row: Row) -> RunResult:
            first = run_id_of(batch, row)
            for run in itertools.chain([first], (f"{first}-{attempt}" for attempt in itertools.count(2))):
                if run not in earlier.rows:
                    return await runs.start(row.inputs, run, seed=row.seed)
                status = earlier.rows[run].status
                if row.place in job.results.failed and status in _NEW_RUN_ON_RETRY:
                    continue
                if not earlier.began_with(run, job.flow.spec.add_defaults(row.inputs)):
                    continue
                if earlier.rows[run].spec != stored.digest:
                    return earlier.result_of(run)
                result = await runs.resume(run)
                if status not in _NEW_RUN_ON_RETRY or not _was_unavailable(result):
                    return result
            raise AssertionError("names do not end")

        async def run_by_itself(row: Row) -> RunResult:
            try:
                return await run_or_resume(row)
            except StoreError as exc:
                if (name := _OF_ONE_RUN.get(type(exc))) is None:
                    raise
                return failed_result("", Failure(name=name, message=str(exc)))

        run_row = run_with(run_by_itself, messages=job.options.messages)
        await drain_on_sigterm(session, job.run_rows(run_row, meter))


def _was_unavailable(result: RunResult) -> bool:
    """Return whether a run ended with ``backend.unavailable``: its row then has no result, and is run again."""
    error = result.run.outcome.error if result.run.outcome is not None else None
    return error is not None and error.name == "backend.unavailable"


_OF_ONE_RUN: Final[Mapping[type[StoreError], str]] = {
    RunDamaged: "journal.damaged",
    LeaseLost: "journal.lease_lost",
}
"""Errors of the journal that stop only the run that they concern, and the names of its row's error."""

_NEW_RUN_ON_RETRY: Final = frozenset({"failed", "cancelled"})
"""The statuses of ended runs that a retry of their row does not resume: it begins a new run."""
