"""A durable batch: the runs that earlier processes began are resumed, and each row's run is written down as it goes."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from flowrun.batch.batch import run_by, run_name
from flowrun.batch.job import BatchJob
from flowrun.batch.rows import Row
from flowrun.core.events import Started
from flowrun.errors import UsageError
from flowrun.journal import ENDED, RunRow, open_history
from flowrun.runtime.durable import open_durable_runs
from flowrun.runtime.result import Result
from flowrun.runtime.runner import with_defaults
from flowrun.spec.model import JSON


class EarlierRuns:
    """The runs that earlier sessions of a durable batch began, by their ids."""

    def __init__(self, journal: Path, batch: str) -> None:
        self._history = open_history(journal) if journal.exists() else None
        found = self._history.runs(batch=batch) if self._history is not None else ()
        self.rows: dict[str, RunRow] = {row.id: row for row in found}

    @property
    def open(self) -> list[RunRow]:
        """Give those that are not over."""
        return [row for row in self.rows.values() if row.status not in ENDED]

    def is_of(self, run: str, inputs: Mapping[str, JSON]) -> bool:
        """Tell whether a run was begun with these inputs: the rows may have changed since."""
        assert self._history is not None
        match self._history.events(run):
            case [first, *_] if isinstance(first.event, Started):
                return dict(first.event.inputs) == dict(inputs)
            case _:
                return False


async def run_durably(job: BatchJob, journal: Path, begun: EarlierRuns) -> None:
    """Run a batch in this process, each run written down as it goes; those begun before are taken up.

    Raises:
        UsageError: runs of the batch are driven by another process, or began with another spec and are not over.
    """
    kept, meter, batch = job.origin.kept, job.session.meter, job.results.batch
    async with open_durable_runs(
        job.flow, kept, journal, settings=job.settings, batch=batch, around=meter.around
    ) as runs:
        if stale := [row.id for row in begun.open if row.spec != kept.digest]:
            raise UsageError(
                f"{len(stale)} runs of this batch, such as {stale[0]}, began with another spec: `flowrun resume --all` "
                "ends them with theirs, `flowrun cancel` gives them up"
            )
        if held := await runs.journal.take([row.id for row in begun.open]):
            who = held[0].holder
            raise UsageError(f"process {who.pid} on {who.host} drives run {held[0].run} of this batch: end it first")

        async def drive(row: Row) -> Result:
            name = run_name(batch, row)
            for run in itertools.chain([name], (f"{name}-{attempt}" for attempt in itertools.count(2))):
                if run not in begun.rows:
                    return await runs.start(row.inputs, run)
                status = begun.rows[run].status
                if row.number in job.results.failed and status in _TRIED_ANEW:
                    continue
                if not begun.is_of(run, with_defaults(job.flow.loaded.spec, row.inputs)):
                    continue
                result = await runs.resume(run)
                if status not in _TRIED_ANEW or not _was_unavailable(result):
                    return result
            raise AssertionError("names do not end")

        await job.drive(run_by(drive, messages=job.options.messages), meter)


def _was_unavailable(result: Result) -> bool:
    """Tell whether a run ended because of the backend; its row has no result then, and is to be run again."""
    error = result.run.outcome.error if result.run.outcome is not None else None
    return error is not None and error.name == "backend.unavailable"


_TRIED_ANEW: Final = frozenset({"failed", "cancelled"})
"""A run that ended so is not taken up when its row is tried anew: another one is begun."""
