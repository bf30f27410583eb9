"""One batch of the command line, from its rows to its closing figures, wherever its runs are run."""

import asyncio
import itertools
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from flowrun.adapters.journal import ENDED
from flowrun.adapters.journal import RunRow as KeptRun
from flowrun.batch import Batch, Meter, Options, Results, Row, RowFile, run_by, run_here, run_name
from flowrun.batch.batch import RunRow
from flowrun.batch.loop import Room
from flowrun.cli.assembly import Settings, backends_of, started
from flowrun.cli.driving import driving, history_of
from flowrun.cli.progress import BatchView, spell_seconds
from flowrun.durable import KeptFlow
from flowrun.errors import UsageError
from flowrun.events import Started
from flowrun.machine.recovery import recover
from flowrun.prepare import Flow
from flowrun.runner import Result, Runner, with_defaults
from flowrun.spec import JSON, Wait


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """Where a flow comes from: all that is needed to prepare it elsewhere as it was prepared here."""

    kept: KeptFlow
    max_tools: int


class Session(msgspec.Struct, kw_only=True):
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
        if isinstance(state, Wait)
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


async def run_in_process(job: Job) -> None:
    """Run a batch in this process."""
    meter = job.session.meter
    backends = meter.around(backends_of(job.flow, job.settings))
    async with started(backends):
        runner = Runner(backends=backends, functions=job.flow.functions)
        run_row = run_here(runner, job.flow.graph, messages=job.options.messages, batch=job.results.batch)
        await job.drive(run_row, meter)


class Begun:
    """The runs that earlier sessions of a durable batch began, by their ids."""

    def __init__(self, journal: Path, batch: str) -> None:
        self._history = history_of(journal) if journal.exists() else None
        found = self._history.runs(batch=batch) if self._history is not None else ()
        self.rows: dict[str, KeptRun] = {row.id: row for row in found}

    @property
    def open(self) -> list[KeptRun]:
        """Give those that are not over."""
        return [row for row in self.rows.values() if row.status not in ENDED]

    def result_of(self, run: str, spec: str) -> Result:
        """Give what a run came to that began with another spec, or other values of its variables, and is over."""
        assert self._history is not None
        kept = msgspec.json.decode(self._history.spec(spec), type=KeptFlow)
        graph = kept.prepare(os.environ, require_environment=False, imports=False).graph
        return Result(recover(graph, (one.event for one in self._history.events(run))).run)

    def is_of(self, run: str, inputs: Mapping[str, JSON]) -> bool:
        """Tell whether a run was begun with these inputs: the rows may have changed since."""
        assert self._history is not None
        match self._history.events(run):
            case [first, *_] if isinstance(first.event, Started):
                return dict(first.event.inputs) == dict(inputs)
            case _:
                return False


async def run_durably(job: Job, journal: Path, begun: Begun) -> None:
    """Run a batch in this process, each run written down as it goes; those begun before are taken up.

    Raises:
        UsageError: runs of the batch are driven by another process, or began with another spec and are not over.
    """
    kept, meter, batch = job.origin.kept, job.session.meter, job.results.batch
    async with driving(job.flow, kept, journal, settings=job.settings, batch=batch, around=meter.around) as (
        runs,
        kept_in,
        _,
    ):
        if stale := [row.id for row in begun.open if row.spec != kept.digest]:
            raise UsageError(
                f"{len(stale)} runs of this batch, such as {stale[0]}, began with another spec: `flowrun resume --all` "
                "ends them with theirs, `flowrun cancel` gives them up"
            )
        if held := await kept_in.take([row.id for row in begun.open]):
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
                if (
                    stored := begun.rows[run].spec
                ) != kept.digest:  # it is over: what it came to is told by its own flow
                    return begun.result_of(run, stored)
                result = await runs.go_on(run)
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
