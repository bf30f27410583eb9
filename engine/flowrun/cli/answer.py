"""``flowrun answer``: answers a durable run that waits, and resumes it."""

import asyncio
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from flowrun.cli.console import Console, RunView
from flowrun.cli.durable_run import drive_durable_run
from flowrun.cli.human_input import TerminalInput, is_interactive
from flowrun.cli.next_steps import warn_of_changes
from flowrun.cli.options import (
    drain_option,
    journal_option,
    open_journal,
    project_option,
    quiet_option,
    require_json,
    result_option,
    run_argument,
    tokens_option,
    verbose_option,
)
from flowrun.cli.streams import answer_stream
from flowrun.cli.terminal import echo, hide
from flowrun.core.events import Answered, Event
from flowrun.core.json_schema import compile_schema
from flowrun.errors import NoResponderError, UsageError
from flowrun.journal import RunRow
from flowrun.journal.questions import parse_question_id, refuse_second_answer
from flowrun.runtime.flow_runs import find_pending_work
from flowrun.runtime.run_result import InputRequest, RunResult
from flowrun.runtime.session import Session
from flowrun.runtime.stored_flow import load_stored_flow
from flowrun.runtime.typed_answers import needs_json, read_answer
from flowrun.spec.model import JSON
from flowrun.spec.strict_json import parse_json


@click.command()
@run_argument
@click.option(
    "--value", metavar="VALUE", help="The answer, as JSON or as it is typed; left out, it is asked for, field by field."
)
@click.option("--state", help="Which state is answered, if several wait.")
@click.option("--later", is_flag=True, help="Only store the answer, for a later `flowrun resume`.")
@result_option
@tokens_option
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
    tokens: bool,
    quiet: bool,
    verbose: bool,
    journal: Path,
    project_dir: Path | None,
    drain: float,
) -> int:
    """Answer a run that waits, and resume it here, unless another process runs it.

    RUN is its id, the beginning of its id, the id of the child run that waits, or that of a question, such as RUN/3/0.
    A question has one answer: the first that is accepted. Exits as `flowrun run` does.
    """
    require_json(tokens=tokens, json=json)
    history = open_journal(journal)
    run, _, place = run.partition("/")
    named, row = history.run(run), history.top_run(run)
    stored = load_stored_flow(history, row, project_dir)
    flow = stored.prepare_to_show(os.environ)
    hide(flow.secrets)
    ask = find_wait(find_pending_work(flow.graph, row.id, history.events), named.id, state, place=place)
    refuse_answered(ask, history.inbox(ask.run), row)
    answer = asyncio.run(_ask(ask)) if value is None else read_value(value, ask)
    if later or row.holder is not None:
        return _store(journal, ask, answer, row)
    with answer_stream() as answers, Console(flow.graph, flow.secrets, quiet=quiet) as console:
        warn_of_changes(stored)
        view = RunView(answers, console, full=json, verbose=verbose, tokens=tokens)
        current = stored.prepare(os.environ)
        settings: dict[str, Any] = {"journal": journal, "view": view, "moved_to": project_dir, "drain": drain}
        drive: Callable[..., int] = partial(drive_durable_run, flow=current, **settings)
        return _answer_and_resume(ask, answer, row.id, drive)


def _store(journal: Path, ask: InputRequest, answer: JSON, row: RunRow) -> int:
    """Store an answer for another process; return the exit code."""
    asyncio.run(_send(journal, ask, answer))
    receiver = "the process that drives the run" if row.holder is not None else f"`flowrun resume {row.id}`"
    echo(f"the answer is stored for {receiver}", err=True)
    return 0


def _answer_and_resume(ask: InputRequest, answer: JSON, run: str, drive: Callable[..., int]) -> int:
    """Answer a question and resume its run; return the exit code.

    Args:
        run: the id of the top run.
        drive: drives a run by an action, see ``drive_durable_run``.
    """
    accepted = False

    async def answer_and_resume(session: Session) -> RunResult:
        nonlocal accepted
        await session.answer(ask.id, answer)
        accepted = True
        return await session.resume(run)

    try:
        return drive(run, answer_and_resume)
    except UsageError as exc:
        if not accepted:
            raise
        echo(f"the answer is accepted; {exc}", err=True)  # another process resumed the run meanwhile
        return 0


async def _send(journal: Path, ask: InputRequest, answer: JSON) -> None:
    async with Session(journal=journal) as session:
        await session.answer(ask.id, answer)


def refuse_answered(ask: InputRequest, accepted: Sequence[Event], row: RunRow) -> None:
    """Check that a question has no answer yet that its run has not read, before a person types another one.

    Raises:
        UsageError: it has one.
    """
    try:
        _, step, index = parse_question_id(ask.id)
        refuse_second_answer(ask.run, Answered(step=step, index=index), accepted)
    except UsageError as exc:
        how = "" if row.holder is not None else f"; `flowrun resume {row.id}` continues with it"
        raise UsageError(f"{exc}{how}") from None


def find_wait(pending: RunResult, run: str, state: str | None, *, place: str = "") -> InputRequest:
    """Return the only wait of a run that an answer can belong to.

    Args:
        run: the id of the run, or of the child run that waits.
        state: the state that is answered; None: any.
        place: the step and the index of the question, as in its id; empty: any.

    Raises:
        UsageError: no state waits for this answer, or several do.
    """
    family = [ask for ask in pending.pending if ask.run == run or ask.run.startswith(f"{run}.")]
    waits = [ask for ask in family if state in (None, ask.state) and (not place or ask.id == f"{run}/{place}")]
    if len(waits) == 1:
        return waits[0]
    if not waits:
        what = f"waits in {', '.join(ask.state for ask in family)}" if family else f"is {pending.run.status}"
        raise UsageError(f"run {run} does not wait for this answer: it {what}")
    several = "; ".join(f"{ask.id} in state {ask.state}: {ask.prompt}" for ask in waits)
    raise UsageError(f"several answers are waited for, name one by its id, its run or by --state: {several}")


def read_value(text: str, ask: InputRequest) -> JSON:
    """Read the answer of ``--value`` and check it against the state's schema: as JSON, or as it is typed on a terminal.

    Raises:
        UsageError: the text is no JSON where only JSON fits, or the value does not match the schema.
    """
    validate = compile_schema(ask.schema)
    typed = read_answer(text, ask.schema)
    try:
        value = parse_json(text)
    except ValueError as exc:
        meant_as_json = text.lstrip().startswith(("{", "[", '"'))
        if needs_json(ask.schema) and (meant_as_json or validate(typed)):
            raise UsageError(f"--value {text}: no JSON: {exc}") from exc
        value = typed
    if (wrong := validate(value)) and validate(typed):
        raise UsageError(f"--value {text}: not what state {ask.state} asks for: {wrong}")
    return typed if wrong else value


async def _ask(ask: InputRequest) -> JSON:
    if not is_interactive():
        raise UsageError("give the answer by --value, or run this on a terminal")
    try:
        return await TerminalInput().answer(ask)
    except NoResponderError:
        raise UsageError("no answer was given") from None
