"""``flowrun resume``: durable runs go on where they stood."""

import asyncio
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from flowrun.cli import EXIT_WAITING
from flowrun.cli.console import Console, conclude
from flowrun.cli.human_input import terminal_input
from flowrun.cli.journal_option import journal_option
from flowrun.cli.next_steps import interruptions_explained, next_commands, warn_of_changes
from flowrun.cli.streams import answer_stream
from flowrun.cli.terminal import echo
from flowrun.core.events import CallFunction
from flowrun.core.strict_json import parse_json
from flowrun.errors import FlowrunError, UsageError
from flowrun.journal import History, RunRow, open_history
from flowrun.runtime.backends import BackendSettings
from flowrun.runtime.durable import open_durable_runs
from flowrun.runtime.runner import AssumeDone, CallAgain, Resolve, Result
from flowrun.runtime.stored_flow import StoredFlow, load_stored_flow

MAX_LIVE: Final = 256
"""So many runs are taken up at once."""


@click.command()
@click.argument("run", required=False)
@click.option("--all", "every", is_flag=True, help="Every run that was interrupted, or waits.")
@click.option("--assume-done", is_flag=True, help="Take the calls in doubt for made; --value is what they gave.")
@click.option("--value", metavar="JSON", help="With --assume-done: what the call gave; else null.")
@click.option("--run-again", is_flag=True, help="Make the calls in doubt again.")
@click.option("--call", "key", metavar="KEY", help="With one of these: only the call with this key.")
@click.option("--json", "whole", is_flag=True, help="Print the whole result as JSON rather than the answer.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.option("-v", "--verbose", is_flag=True, help="Show the log of vLLM too.")
@journal_option
def command(
    run: str | None,
    every: bool,
    assume_done: bool,
    value: str | None,
    run_again: bool,
    key: str | None,
    whole: bool,
    quiet: bool,
    verbose: bool,
    journal: Path,
) -> int:
    """Go on with a durable run, or with --all of them, with the specs that they began with.

    What was written down is not done again. Exits with 0 if the run succeeded, 1 if it failed, 4 if it waits, or needs
    somebody to say what became of a call: --assume-done or --run-again.
    """
    if (run is None) != every:
        raise UsageError("name a run, or say --all")
    decide = read_decision(assume_done=assume_done, value=value, run_again=run_again, key=key)
    history = open_history(journal)
    with answer_stream() as answers:
        if run is None:
            rows = [*history.runs(status="interrupted"), *history.runs(status="waiting")]
            doubtful = list(history.runs(status="needs_attention"))
            code = _resume_all(history, [*rows, *doubtful] if decide else rows, journal, decide, verbose)
            if doubtful and decide is None:
                told = f"{len(doubtful)} runs have a call in doubt, such as {doubtful[0].id}"
                echo(f"{told}: say --assume-done or --run-again, for one run or for --all", err=True)
            return code or (EXIT_WAITING if doubtful and decide is None else 0)
        row = history.top_run(run)
        kept = load_stored_flow(history, row)
        if row.ended is not None:
            raise UsageError(f"run {row.id} has ended: {row.status}; `flowrun show {row.id}` shows it")
        warn_of_changes(kept)
        flow = kept.prepare(os.environ)
        with Console(quiet=quiet, secrets=flow.secrets) as console:

            async def go_on() -> Result:
                settings = BackendSettings(verbose=verbose, progress=console.progress)
                async with open_durable_runs(
                    flow, kept, journal, settings=settings, people=terminal_input(), observers=[console], decide=decide
                ) as runs:
                    return await runs.resume(row.id)

            with interruptions_explained(row.id, journal):
                result = asyncio.run(go_on())
            ways = next_commands(row.id, result, journal)
            return conclude(result, answers=answers, console=console, whole=whole, ways=ways)


def read_decision(*, assume_done: bool, value: str | None, run_again: bool, key: str | None) -> Resolve | None:
    """Read what somebody says of the calls in doubt.

    Raises:
        UsageError: it contradicts itself.
    """
    if assume_done and run_again:
        raise UsageError("a call was either made (--assume-done) or is to be made again (--run-again)")
    if not assume_done and (value is not None or (key is not None and not run_again)):
        raise UsageError("--value and --call go with --assume-done, --call with --run-again too")
    if not assume_done and not run_again:
        return None
    try:
        given = None if value is None else parse_json(value)
    except ValueError as exc:
        raise UsageError(f"--value {value}: no JSON: {exc}") from exc

    def decide(call: CallFunction) -> AssumeDone | CallAgain | None:
        if key is not None and call.key != key:
            return None
        return AssumeDone(given) if assume_done else CallAgain()

    return decide


def _resume_all(history: History, rows: Sequence[RunRow], journal: Path, decide: Resolve | None, verbose: bool) -> int:
    """Go on with many runs, spec by spec; tell of each in a line."""
    groups: defaultdict[str, list[RunRow]] = defaultdict(list)
    for row in rows:
        groups[row.spec].append(row)
    if not groups:
        echo("no run was interrupted or waits", err=True)
    code = 0
    for group in groups.values():
        try:
            kept = load_stored_flow(history, group[0])
            warn_of_changes(kept)
            results = asyncio.run(_resume_group(group, kept, journal, decide, verbose))
        except FlowrunError as exc:
            echo(f"flowrun: {len(group)} runs of {group[0].flow}: {exc}", err=True)
            code = 1
            continue
        for row, result in zip(group, results, strict=True):
            echo(f"{row.id}  {row.flow}  {_told(result)}", err=True)
            failed = isinstance(result, FlowrunError) or result.run.status not in ("succeeded", "waiting", "running")
            code = 1 if failed else code or (EXIT_WAITING if _is_open(result) else 0)
    return code


def _is_open(result: Result | FlowrunError) -> bool:
    return not isinstance(result, FlowrunError) and result.run.outcome is None


def _told(result: Result | FlowrunError) -> str:
    if isinstance(result, FlowrunError):
        return str(result)
    return "needs attention" if result.doubtful else "waiting" if result.waiting else result.run.status


async def _resume_group(
    group: Sequence[RunRow], kept: StoredFlow, journal: Path, decide: Resolve | None, verbose: bool
) -> list[Result | FlowrunError]:
    places = asyncio.Semaphore(MAX_LIVE)
    flow = kept.prepare(os.environ)
    settings = BackendSettings(verbose=verbose)
    async with open_durable_runs(flow, kept, journal, settings=settings, decide=decide) as runs:

        async def go_on(row: RunRow) -> Result | FlowrunError:
            async with places:
                try:
                    return await runs.resume(row.id)
                except FlowrunError as exc:  # another process drives it, or it cannot be read
                    return exc

        return await asyncio.gather(*map(go_on, group))
