"""``flowrun resume``: resumes durable runs from their journal."""

import os
from collections.abc import Collection
from functools import partial
from pathlib import Path

import click

from flowrun.cli.completion import complete_runs
from flowrun.cli.console import Console, RunView
from flowrun.cli.durable_run import drive_durable_run
from flowrun.cli.next_steps import warn_of_changes
from flowrun.cli.options import (
    drain_option,
    journal_option,
    open_journal,
    project_option,
    quiet_option,
    require_json,
    result_option,
    tokens_option,
    verbose_option,
)
from flowrun.cli.resume_many import ResumeOptions, resume_all, watch_runs
from flowrun.cli.streams import answer_stream
from flowrun.core.events import CallFunction
from flowrun.durations import spell_moment
from flowrun.errors import UsageError
from flowrun.journal import History, RunRow
from flowrun.runtime.flow_runs import find_pending_work
from flowrun.runtime.project import CompiledFlow
from flowrun.runtime.run_result import AssumeDone, CallAgain, Resolve, RunResult
from flowrun.runtime.session import Session
from flowrun.runtime.stored_flow import load_stored_flow
from flowrun.spec.strict_json import parse_json


@click.command()
@click.argument("run", required=False, shell_complete=complete_runs)
@click.option("--all", "all_", is_flag=True, help="Every run that has something to do: interrupted, answered or due.")
@click.option("--watch", is_flag=True, help="With --all: stay, and resume each run as soon as it has something to do.")
@click.option("--assume-done", is_flag=True, help="Assume that the calls in doubt were made; --value is their result.")
@click.option("--value", metavar="JSON", help="With --assume-done: the result of the call; null if left out.")
@click.option("--run-again", is_flag=True, help="Make the calls in doubt again.")
@click.option(
    "--call",
    "keys",
    multiple=True,
    metavar="KEY",
    help="With one of these: only the call with this key; may be repeated. A call is made again once no other call "
    "of its state is in doubt.",
)
@result_option
@tokens_option
@quiet_option
@verbose_option
@journal_option
@project_option
@drain_option
def command(
    run: str | None,
    all_: bool,
    watch: bool,
    assume_done: bool,
    value: str | None,
    run_again: bool,
    keys: tuple[str, ...],
    json: bool,
    tokens: bool,
    quiet: bool,
    verbose: bool,
    journal: Path,
    project_dir: Path | None,
    drain: float,
) -> int:
    """Resume a durable run, or all of them with --all, with the specs that they began with.

    Recorded calls and replies are not repeated. Exits with 0 if the run succeeded, 1 if it failed, 4 if it waits, or
    if a call in doubt needs a resolution: --assume-done or --run-again. A run that sleeps goes on when its time has
    come: alone here, with --all later; with --watch this process stays until Ctrl-C or SIGTERM, as the one daemon of a
    journal, and fires the timers and time limits of all its runs.
    """
    _require_one_or_all(run, all_=all_, watch=watch, tokens=tokens, json=json)
    resolve = read_resolution(assume_done=assume_done, value=value, run_again=run_again, keys=keys)
    history = open_journal(journal)
    with answer_stream() as answers:
        if run is None:
            many = watch_runs if watch else resume_all
            return many(history, ResumeOptions(journal, resolve, verbose, project_dir, drain))
        row = _open_row(history, run)
        flow = _stored_flow(history, row, project_dir)
        with Console(flow.graph, flow.secrets, quiet=quiet) as console:
            _note_pause(console, find_pending_work(flow.graph, row.id, history.events))
            view = RunView(answers, console, full=json, verbose=verbose, tokens=tokens)
            resume = partial(Session.resume, run_id=row.id)
            return drive_durable_run(
                row.id, resume, flow, journal, view=view, drain=drain, resolve=resolve, moved_to=project_dir
            )


def _require_one_or_all(run: str | None, *, all_: bool, watch: bool, tokens: bool, json: bool) -> None:
    """Check that a run is named or all are asked for, with options that go with it.

    Raises:
        UsageError: neither, both, or other options.
    """
    if (run is None) != all_ or (watch and not all_):
        raise UsageError("name a run, or say --all; --watch goes with --all")
    if all_ and tokens:
        raise UsageError("--tokens goes with one run: of --all, those that began with it keep their tokens")
    require_json(tokens=tokens, json=json)


def _open_row(history: History, run: str) -> RunRow:
    row = history.top_run(run)
    if row.ended is not None:
        raise UsageError(f"run {row.id} has ended: {row.status}; `flowrun show {row.id}` shows it")
    return row


def _stored_flow(history: History, row: RunRow, project_dir: Path | None) -> CompiledFlow:
    stored = load_stored_flow(history, row, project_dir)
    warn_of_changes(stored)
    return stored.prepare(os.environ)


def _note_pause(console: Console, pending: RunResult) -> None:
    if pending.wakes is not None:
        console.note("pause", f"sleeping until {spell_moment(pending.wakes, None)}")


def read_resolution(*, assume_done: bool, value: str | None, run_again: bool, keys: Collection[str]) -> Resolve | None:
    """Return the resolution of in-doubt calls that the options name; None if they name none.

    Args:
        value: the JSON result of a call that is assumed done.
        keys: the only calls to resolve; empty: all of them.

    Raises:
        UsageError: the options exclude each other, or the value is no JSON.
    """
    if assume_done and run_again:
        raise UsageError("a call was either made (--assume-done) or is to be made again (--run-again)")
    if not assume_done and (value is not None or (keys and not run_again)):
        raise UsageError("--value and --call go with --assume-done, --call with --run-again too")
    if not assume_done and not run_again:
        return None
    try:
        result = None if value is None else parse_json(value)
    except ValueError as exc:
        raise UsageError(f"--value {value}: no JSON: {exc}") from exc

    def resolve(call: CallFunction) -> AssumeDone | CallAgain | None:
        if keys and call.key not in keys:
            return None
        return AssumeDone(result) if assume_done else CallAgain()

    return resolve
