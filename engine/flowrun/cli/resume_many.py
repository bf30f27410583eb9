"""``flowrun resume --all``: resumes the runs of a journal that have something to do, once or as they become due."""

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from flowrun.cli import EXIT_WAITING
from flowrun.cli.event_loop import run_in_loop
from flowrun.cli.next_steps import warn_of_changes
from flowrun.cli.terminal import echo, hide
from flowrun.collector import calm_collector
from flowrun.durations import spell_moment
from flowrun.errors import FlowrunError
from flowrun.journal import History, RunRow
from flowrun.runtime.draining import drain_on_sigterm
from flowrun.runtime.engines import BackendSettings
from flowrun.runtime.flow_runs import find_pending_work
from flowrun.runtime.project import CompiledFlow
from flowrun.runtime.run_result import Resolve
from flowrun.runtime.session import Session
from flowrun.runtime.stored_flow import load_stored_flow
from flowrun.runtime.watch import MAX_LIVE, Resumed, Watch, due_of, open_rows, resume_row

NAMED: Final = 5
"""The runs of one flow that an error of the flow names."""


class ResumeOptions(NamedTuple):
    """How runs are resumed; each field has the name of an option, or of what some of them mean."""

    journal: Path
    resolve: Resolve | None
    verbose: bool
    project_dir: Path | None
    drain: float

    def session(self) -> Session:
        """Return a new session for a group of runs, which leaves those that sleep."""
        settings = BackendSettings(verbose=self.verbose)
        return Session(
            journal=self.journal,
            resolve=self.resolve,
            project_dir=self.project_dir,
            drain=self.drain,
            park=True,
            settings=settings,
        )


# --- once ---------------------------------------------------------------------------------------------------------


def resume_all(history: History, options: ResumeOptions) -> int:
    """Resume all runs that have something to do; those with a call in doubt only if ``resolve`` is there."""
    resolved = options.resolve is not None
    code = _resume_rows(history, open_rows(history, in_doubt=resolved), options)
    in_doubt = [] if resolved else list(history.runs(status="needs_attention"))
    if in_doubt:
        _warn_of_doubts(in_doubt)
    return code or (EXIT_WAITING if in_doubt else 0)


def _warn_of_doubts(in_doubt: Sequence[RunRow]) -> None:
    summary = f"{len(in_doubt)} runs have a call in doubt, such as {in_doubt[0].id}"
    echo(f"{summary}: say --assume-done or --run-again, for one run or for --all", err=True)


def _resume_rows(history: History, rows: Sequence[RunRow], options: ResumeOptions) -> int:
    """Resume many runs, grouped by spec; print a line for each, and return the exit code."""
    groups: defaultdict[str, list[RunRow]] = defaultdict(list)
    for row in rows:
        groups[row.spec].append(row)
    if not groups:
        echo("no run was interrupted, waits or sleeps", err=True)
    code = 0
    for group in groups.values():
        try:
            stored = load_stored_flow(history, group[0], options.project_dir)
            warn_of_changes(stored)
            flow = stored.prepare(os.environ)
            hide(flow.secrets)
            results = _resume_group(history, group, flow, options)
        except FlowrunError as exc:
            echo(f"{_names_of(group)}  {group[0].flow}  {exc}", err=True)
            code = 1
            continue
        for row in group:
            result = results[row.id]
            _report(row, result)
            failed = isinstance(result, FlowrunError) or result.status in ("failed", "cancelled")
            code = 1 if failed else code or (EXIT_WAITING if _is_open(result) else 0)
    return code


def _names_of(group: Sequence[RunRow]) -> str:
    names = ", ".join(row.id for row in group[:NAMED])
    return names if len(group) <= NAMED else f"{names} and {len(group) - NAMED} more"


def _is_open(result: Resumed) -> bool:
    return not isinstance(result, FlowrunError) and result.run.outcome is None


def _report(row: RunRow, result: Resumed) -> None:
    echo(f"{row.id}  {row.flow}  {_describe(result)}", err=True)


def _describe(result: Resumed) -> str:
    if isinstance(result, FlowrunError):
        return str(result)
    status = "needs attention" if result.in_doubt else result.status
    return status if result.wakes is None else f"{status} until {spell_moment(result.wakes, None)}"


def _resume_group(
    history: History, group: Sequence[RunRow], flow: CompiledFlow, options: ResumeOptions
) -> dict[str, Resumed]:
    """Resume the runs of one spec that have something to do, and return the results of all, by id."""
    now = time.time()
    due = [row for row in group if due_of(history, row, flow) <= now]
    results: dict[str, Resumed] = {
        row.id: find_pending_work(flow.graph, row.id, history.events) for row in group if row not in due
    }
    return results | (run_in_loop(_resume_due(due, flow, options.session())) if due else {})


async def _resume_due(rows: Iterable[RunRow], flow: CompiledFlow, session: Session) -> dict[str, Resumed]:
    slots = asyncio.Semaphore(MAX_LIVE)
    calm_collector()
    async with session:
        await session.runs_of(flow)  # an engine that cannot start is an error of the group, not of each run

        async def resume(row: RunRow) -> tuple[str, Resumed]:
            async with slots:
                return row.id, await resume_row(session, row)

        async def resume_rows() -> dict[str, Resumed]:
            return dict(await asyncio.gather(*map(resume, rows)))

        return await drain_on_sigterm(session, resume_rows())


# --- until it is stopped ------------------------------------------------------------------------------------------


def watch_runs(history: History, options: ResumeOptions) -> int:
    """Resume each run as soon as it has something to do, until SIGINT or SIGTERM; return the exit code."""
    if options.resolve is None and (in_doubt := list(history.runs(status="needs_attention"))):
        _warn_of_doubts(in_doubt)
    echo(f"watching {options.journal}: Ctrl-C ends it", err=True)

    def load_flow(row: RunRow) -> CompiledFlow:
        stored = load_stored_flow(history, row, options.project_dir)
        warn_of_changes(stored)
        flow = stored.prepare_to_show(os.environ)
        hide(flow.secrets)
        return flow

    async def watch() -> None:
        calm_collector()
        async with options.session() as session:

            async def resume(row: RunRow) -> None:
                _report(row, await resume_row(session, row))

            watch = Watch(history, resume, load_flow=load_flow, report=_report, in_doubt=options.resolve is not None)
            await drain_on_sigterm(session, watch.run())

    try:
        run_in_loop(watch())
    except KeyboardInterrupt:
        echo("flowrun: what was done is stored, and no call is left under way", err=True)
    return 0
