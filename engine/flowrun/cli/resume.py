"""``flowrun resume``: resumes durable runs from their journal."""

import asyncio
import os
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import click

from flowrun.cli import EXIT_WAITING
from flowrun.cli.completion import complete_runs
from flowrun.cli.console import Console, RunView
from flowrun.cli.durable_run import drive_durable_run
from flowrun.cli.event_loop import run_in_loop
from flowrun.cli.next_steps import warn_of_changes
from flowrun.cli.options import (
    drain_option,
    journal_option,
    project_option,
    quiet_option,
    result_option,
    verbose_option,
)
from flowrun.cli.streams import answer_stream
from flowrun.cli.terminal import echo, hide
from flowrun.core.events import CallFunction
from flowrun.errors import Bug, FlowrunError, UsageError
from flowrun.journal import History, RunRow, open_history
from flowrun.runtime.draining import drain_on_sigterm
from flowrun.runtime.engines import BackendSettings, calm_collector
from flowrun.runtime.project import CompiledFlow
from flowrun.runtime.run_result import AssumeDone, CallAgain, Resolve, RunResult
from flowrun.runtime.session import Session
from flowrun.runtime.stored_flow import load_stored_flow
from flowrun.spec.strict_json import parse_json

MAX_LIVE: Final = 256
"""The maximum number of runs that are live at once."""


@click.command()
@click.argument("run", required=False, shell_complete=complete_runs)
@click.option("--all", "all_", is_flag=True, help="Every run that was interrupted, or waits.")
@click.option("--assume-done", is_flag=True, help="Assume that the calls in doubt were made; --value is their result.")
@click.option("--value", metavar="JSON", help="With --assume-done: the result of the call; null if left out.")
@click.option("--run-again", is_flag=True, help="Make the calls in doubt again.")
@click.option("--call", "key", metavar="KEY", help="With one of these: only the call with this key.")
@result_option
@quiet_option
@verbose_option
@journal_option
@project_option
@drain_option
def command(
    run: str | None,
    all_: bool,
    assume_done: bool,
    value: str | None,
    run_again: bool,
    key: str | None,
    json: bool,
    quiet: bool,
    verbose: bool,
    journal: Path,
    project_dir: Path | None,
    drain: float,
) -> int:
    """Resume a durable run, or all of them with --all, with the specs that they began with.

    Recorded calls and replies are not repeated. Exits with 0 if the run succeeded, 1 if it failed, 4 if it waits, or
    if a call in doubt needs a resolution: --assume-done or --run-again.
    """
    if (run is None) != all_:
        raise UsageError("name a run, or say --all")
    resolve = read_resolution(assume_done=assume_done, value=value, run_again=run_again, key=key)
    history = open_history(journal)
    with answer_stream() as answers:
        if run is None:
            return _resume_all(history, ResumeOptions(journal, resolve, verbose, project_dir, drain))
        row = history.top_run(run)
        stored = load_stored_flow(history, row, project_dir)
        if row.ended is not None:
            raise UsageError(f"run {row.id} has ended: {row.status}; `flowrun show {row.id}` shows it")
        warn_of_changes(stored)
        flow = stored.prepare(os.environ)
        with Console(flow.graph, flow.secrets, quiet=quiet) as console:
            view = RunView(answers, console, full=json, verbose=verbose)
            resume = partial(Session.resume, run_id=row.id)
            return drive_durable_run(
                row.id, resume, flow, journal, view=view, drain=drain, resolve=resolve, moved_to=project_dir
            )


def read_resolution(*, assume_done: bool, value: str | None, run_again: bool, key: str | None) -> Resolve | None:
    """Return the resolution of in-doubt calls that the options name; None if they name none.

    Args:
        value: the JSON result of a call that is assumed done.
        key: the only call to resolve; None: all of them.

    Raises:
        UsageError: the options exclude each other, or the value is no JSON.
    """
    if assume_done and run_again:
        raise UsageError("a call was either made (--assume-done) or is to be made again (--run-again)")
    if not assume_done and (value is not None or (key is not None and not run_again)):
        raise UsageError("--value and --call go with --assume-done, --call with --run-again too")
    if not assume_done and not run_again:
        return None
    try:
        result = None if value is None else parse_json(value)
    except ValueError as exc:
        raise UsageError(f"--value {value}: no JSON: {exc}") from exc

    def resolve(call: CallFunction) -> AssumeDone | CallAgain | None:
        if key is not None and call.key != key:
            return None
        return AssumeDone(result) if assume_done else CallAgain()

    return resolve


class ResumeOptions(NamedTuple):
    """How runs are resumed; each field has the name of an option, or of what some of them mean."""

    journal: Path
    resolve: Resolve | None
    verbose: bool
    project_dir: Path | None
    drain: float

    def session(self) -> Session:
        """Return a new session for a group of runs."""
        settings = BackendSettings(verbose=self.verbose)
        return Session(
            journal=self.journal,
            resolve=self.resolve,
            project_dir=self.project_dir,
            drain=self.drain,
            settings=settings,
        )


def _resume_all(history: History, options: ResumeOptions) -> int:
    """Resume all runs that were interrupted or wait; those with a call in doubt only if ``resolve`` is there."""
    rows = [*history.runs(status="interrupted"), *history.runs(status="waiting")]
    in_doubt = list(history.runs(status="needs_attention"))
    if options.resolve is not None or not in_doubt:
        return _resume_rows(history, [*rows, *in_doubt], options)
    code = _resume_rows(history, rows, options)
    summary = f"{len(in_doubt)} runs have a call in doubt, such as {in_doubt[0].id}"
    echo(f"{summary}: say --assume-done or --run-again, for one run or for --all", err=True)
    return code or EXIT_WAITING


def _resume_rows(history: History, rows: Sequence[RunRow], options: ResumeOptions) -> int:
    """Resume many runs, grouped by spec; print a line for each, and return the exit code."""
    groups: defaultdict[str, list[RunRow]] = defaultdict(list)
    for row in rows:
        groups[row.spec].append(row)
    if not groups:
        echo("no run was interrupted or waits", err=True)
    code = 0
    for group in groups.values():
        try:
            stored = load_stored_flow(history, group[0], options.project_dir)
            warn_of_changes(stored)
            flow = stored.prepare(os.environ)
            hide(flow.secrets)
            results = run_in_loop(_resume_group(group, flow, options.session()))
        except FlowrunError as exc:
            echo(f"flowrun: {len(group)} runs of {group[0].flow}: {exc}", err=True)
            code = 1
            continue
        for row, result in zip(group, results, strict=True):
            echo(f"{row.id}  {row.flow}  {_describe(result)}", err=True)
            failed = isinstance(result, FlowrunError) or result.run.status not in ("succeeded", "waiting", "running")
            code = 1 if failed else code or (EXIT_WAITING if _is_open(result) else 0)
    return code


def _is_open(result: RunResult | FlowrunError) -> bool:
    return not isinstance(result, FlowrunError) and result.run.outcome is None


def _describe(result: RunResult | FlowrunError) -> str:
    if isinstance(result, FlowrunError):
        return str(result)
    return "needs attention" if result.in_doubt else "waiting" if result.waiting else result.run.status


async def _resume_group(
    group: Sequence[RunRow], flow: CompiledFlow, session: Session
) -> list[RunResult | FlowrunError]:
    slots = asyncio.Semaphore(MAX_LIVE)
    calm_collector()
    async with session:
        runs = await session.runs_of(flow)

        async def resume(row: RunRow) -> RunResult | FlowrunError:
            async with slots:
                try:
                    return await runs.resume(row.id)
                except FlowrunError as exc:  # another process runs it, or it cannot be read
                    return exc
                except Exception as exc:  # it stops only itself
                    return Bug(f"a bug in flowrun, please report it: {type(exc).__name__}: {exc}")

        async def resume_all() -> list[RunResult | FlowrunError]:
            return await asyncio.gather(*map(resume, group))

        return await drain_on_sigterm(session, resume_all())
