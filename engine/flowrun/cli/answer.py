"""``flowrun answer``: answers a durable run that waits, and resumes it."""

import asyncio
import os
from pathlib import Path

import click

from flowrun.cli.console import Console, RunView
from flowrun.cli.durable_run import drive_durable_run
from flowrun.cli.human_input import TerminalInput, is_interactive
from flowrun.cli.next_steps import warn_of_changes
from flowrun.cli.options import (
    drain_option,
    journal_option,
    project_option,
    quiet_option,
    result_option,
    run_argument,
    verbose_option,
)
from flowrun.cli.streams import answer_stream
from flowrun.cli.terminal import echo
from flowrun.core.events import RequestInput
from flowrun.core.json_schema import compile_schema
from flowrun.core.strict_json import parse_json
from flowrun.errors import NoResponderError, UsageError
from flowrun.journal import open_history
from flowrun.runtime.flow_runs import find_pending_work
from flowrun.runtime.run_result import RunResult
from flowrun.runtime.session import Session
from flowrun.runtime.stored_flow import load_stored_flow
from flowrun.spec.model import JSON


@click.command()
@run_argument
@click.option("--value", metavar="JSON", help="The answer; left out, it is asked for on the terminal.")
@click.option("--state", help="Which state is answered, if several wait.")
@click.option("--later", is_flag=True, help="Only store the answer, for a later `flowrun resume`.")
@result_option
@quiet_option
@verbose_option
@journal_option
@project_option
@drain_option
def command(
    run: str,
    value: str | None,
    state: str | None,
    later: bool,
    json: bool,
    quiet: bool,
    verbose: bool,
    journal: Path,
    project_dir: Path | None,
    drain: float,
) -> int:
    """Answer a run that waits, and resume it here, unless another process runs it.

    RUN is its id, the beginning of its id, or the id of the child run that waits. Exits as `flowrun run` does.
    """
    history = open_history(journal)
    named, row = history.run(run), history.top_run(run)
    stored = load_stored_flow(history, row, project_dir)
    flow = stored.prepare_to_show(os.environ)
    ask = find_wait(find_pending_work(flow.graph, row.id, history.events), named.id, state)
    answer = asyncio.run(_ask(ask)) if value is None else read_value(value, ask)
    if later or row.holder is not None:
        asyncio.run(_send(journal, ask, answer))
        receiver = "the process that drives the run" if row.holder is not None else f"`flowrun resume {row.id}`"
        echo(f"the answer is stored for {receiver}", err=True)
        return 0

    async def answer_and_resume(session: Session) -> RunResult:
        await session.answer(ask.id, answer)
        return await session.resume(row.id)

    with answer_stream() as answers, Console(quiet=quiet, secrets=flow.secrets) as console:
        warn_of_changes(stored)
        view = RunView(answers, console, full=json, verbose=verbose)
        current = stored.prepare(os.environ)
        return drive_durable_run(
            row.id, answer_and_resume, current, journal, view=view, moved_to=project_dir, drain=drain
        )


async def _send(journal: Path, ask: RequestInput, answer: JSON) -> None:
    async with Session(journal=journal) as session:
        await session.answer(ask.id, answer)


def find_wait(pending: RunResult, run: str, state: str | None) -> RequestInput:
    """Return the only wait of a run that an answer can belong to.

    Args:
        run: the id of the run, or of the child run that waits.
        state: the state that is answered; None: any.

    Raises:
        UsageError: no state waits for this answer, or several do.
    """
    family = [ask for ask in pending.waiting if ask.run == run or ask.run.startswith(f"{run}.")]
    waits = [ask for ask in family if state in (None, ask.state)]
    if len(waits) == 1:
        return waits[0]
    if not waits:
        what = f"waits in {', '.join(ask.state for ask in family)}" if family else f"is {pending.run.status}"
        raise UsageError(f"run {run} does not wait for this answer: it {what}")
    several = "; ".join(f"{ask.run} in state {ask.state}: {ask.prompt}" for ask in waits)
    raise UsageError(f"several answers are waited for, name one by its run or by --state: {several}")


def read_value(text: str, ask: RequestInput) -> JSON:
    """Parse the answer of ``--value`` and check it against the state's schema.

    Raises:
        UsageError: the text is no JSON, or the value does not match the schema.
    """
    try:
        value = parse_json(text)
    except ValueError as exc:
        raise UsageError(f"--value {text}: no JSON: {exc}; a text needs its quotes: '\"yes\"'") from exc
    if wrong := compile_schema(ask.schema)(value):
        raise UsageError(f"--value {text}: not what state {ask.state} asks for: {wrong}")
    return value


async def _ask(ask: RequestInput) -> JSON:
    if not is_interactive():
        raise UsageError("give the answer by --value, or run this on a terminal")
    try:
        return await TerminalInput().answer(ask)
    except NoResponderError:
        raise UsageError("no answer was given") from None
