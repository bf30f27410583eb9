"""``flowrun show``: shows the transcript of a durable run."""

import os
import shlex
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowrun.cli.next_steps import answer_command, journal_arguments
from flowrun.cli.options import journal_option, open_journal, run_argument
from flowrun.cli.report import colours_wanted
from flowrun.cli.show_prompt import show_prompt
from flowrun.cli.streams import answer_stream
from flowrun.cli.terminal import echo, indented_json, write_json, write_report
from flowrun.core.events import CallFunction
from flowrun.errors import UsageError
from flowrun.files import file_errors
from flowrun.journal import History
from flowrun.journal.questions import closing_event
from flowrun.runtime.flow_runs import find_pending_work
from flowrun.runtime.stored_flow import load_stored_flow
from flowrun.spec import mask

if TYPE_CHECKING:
    from flowrun.transcript import Transcript
    from flowrun.transcript.model import Attention, Question


@click.command()
@run_argument
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write one self-contained page with the drawn graph.",
)
@click.option("--json", is_flag=True, help="Print all of it as JSON.")
@click.option("--full", is_flag=True, help="Cut no text short.")
@click.option(
    "--prompt",
    metavar="STEP",
    help="Print what the model read in this step instead; of a sub-flow 1.0/3, its place and its step.",
)
@journal_option
def command(run: str, html: Path | None, json: bool, full: bool, prompt: str | None, journal: Path) -> int:
    """Show a run: its path on the graph, messages, calls, timings, usage, and what it waits for.

    RUN is its id or the beginning of it.
    """
    from flowrun.transcript import build_transcript, render_html, render_text

    history = open_journal(journal)
    if prompt is not None:
        if html is not None or full:
            raise UsageError("--prompt shows one prompt, whole: it goes with --json only")
        return show_prompt(history, run, prompt, json=json)
    row = history.top_run(run)
    flow = load_stored_flow(history, row).prepare_to_show(os.environ)
    histories = {name: history.events(name) for name in history.descendants(row.id)}
    transcript = build_transcript(flow.graph, history.events(row.id), histories, live=row.holder is not None)
    transcript = mask(transcript, flow.secrets)
    in_doubt = find_pending_work(flow.graph, row.id, history.events).in_doubt if transcript.attention else ()
    commands = attention_commands(transcript, in_doubt, history, journal)
    zone = datetime.now().astimezone().tzinfo or UTC
    with answer_stream() as answers:
        if html is not None:
            with file_errors(f"--html {html}"):
                page = render_html(flow.graph, transcript, zone=zone, commands=commands)
                html.write_text(page, encoding="utf-8")
            echo(f"{html} shows run {row.id}", err=True)
        if json:
            write_json(answers, indented_json(transcript))
        elif html is None:
            coloured = colours_wanted(answers, environ=os.environ)
            width = shutil.get_terminal_size((100, 24)).columns
            text = render_text(transcript, coloured=coloured, width=width, full=full, zone=zone, commands=commands)
            write_report(answers, text, coloured=coloured)
    return 0


def attention_commands(
    transcript: "Transcript", in_doubt: Sequence[CallFunction], history: History, journal: Path
) -> list[str]:
    """Return for each thing of a run that needs attention the command that resolves it, or the words that say how.

    Args:
        in_doubt: the calls of the run and its children that are in doubt.
    """
    from flowrun.transcript.model import Question

    option = journal_arguments(journal)
    return [
        _answer_or_resume(one.run, one.step, one.about, transcript, history, option)
        if isinstance(one.about, Question)
        else _resolution(one, transcript.run, in_doubt, option)
        for one in transcript.attention
    ]


def _resolution(one: "Attention", run: str, in_doubt: Sequence[CallFunction], option: list[str]) -> str:
    """Return the commands that resolve an in-doubt call. With several, one is assumed done by its key."""
    resume = ["flowrun", "resume", run]
    if len(in_doubt) == 1:
        return f"{shlex.join([*resume, '--assume-done', *option])}, or --run-again"
    place = (one.run, one.step, one.about.index)
    call = next(call for call in in_doubt if (call.run, call.step, call.index) == place)
    done = shlex.join([*resume, "--call", call.key, "--assume-done", *option])
    return (
        f"{done}, or, once the calls that were made are assumed done, {shlex.join([*resume, '--run-again', *option])}"
    )


def _answer_or_resume(
    run: str, step: int, question: "Question", transcript: "Transcript", history: History, option: list[str]
) -> str:
    """Return the commands that answer a question, or the one that resumes a run which has not read its answer yet."""
    if closing_event(history.inbox(run), step, question.index) is not None:
        resume = shlex.join(["flowrun", "resume", transcript.run, *option])
        return f"{resume} (an answer was accepted, and is not read yet)"
    alone = sum(other.run == run for other in transcript.attention) == 1
    name = run if alone else f"{run}/{step}/{question.index}"
    asked = shlex.join(["flowrun", "answer", name, *option])
    return f"{asked} (asks for each field), or {answer_command(name, question.schema, option)}"
