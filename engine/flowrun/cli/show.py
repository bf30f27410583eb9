"""``flowrun show``: shows the transcript of a durable run."""

import os
import shlex
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowrun.cli.next_steps import answer_command, journal_arguments
from flowrun.cli.options import journal_option, run_argument
from flowrun.cli.report import colours_wanted
from flowrun.cli.streams import answer_stream
from flowrun.cli.terminal import echo, indented_json, write_json, write_report
from flowrun.files import file_errors
from flowrun.journal import History, open_history
from flowrun.journal.questions import closing_event
from flowrun.runtime.stored_flow import load_stored_flow
from flowrun.spec import mask

if TYPE_CHECKING:
    from flowrun.transcript import Transcript
    from flowrun.transcript.model import Attention


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
@journal_option
def command(run: str, html: Path | None, json: bool, full: bool, journal: Path) -> int:
    """Show a run: its path on the graph, messages, calls, timings, usage, and what it waits for.

    RUN is its id or the beginning of it.
    """
    from flowrun.transcript import build_transcript, render_html, render_text

    history = open_history(journal)
    row = history.top_run(run)
    flow = load_stored_flow(history, row).prepare_to_show(os.environ)
    histories = {name: history.events(name) for name in history.descendants(row.id)}
    transcript = build_transcript(flow.graph, history.events(row.id), histories, live=row.holder is not None)
    transcript = mask(transcript, flow.secrets)
    commands = attention_commands(transcript, history, journal)
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


def attention_commands(transcript: "Transcript", history: History, journal: Path) -> list[str]:
    """Return for each thing of a run that needs attention the command that resolves it, or the words that say how."""
    return [_attention_command(one, transcript, history, journal_arguments(journal)) for one in transcript.attention]


def _attention_command(one: "Attention", transcript: "Transcript", history: History, option: list[str]) -> str:
    from flowrun.transcript.model import Question

    resume = ["flowrun", "resume", transcript.run]
    if not isinstance(one.about, Question):
        return f"{shlex.join([*resume, '--assume-done', *option])}, or --run-again"
    if closing_event(history.inbox(one.run), one.step, one.about.index) is not None:
        return f"{shlex.join([*resume, *option])} (an answer was accepted, and is not read yet)"
    alone = sum(other.run == one.run for other in transcript.attention) == 1
    name = one.run if alone else f"{one.run}/{one.step}/{one.about.index}"
    asked = shlex.join(["flowrun", "answer", name, *option])
    return f"{asked} (asks for each field), or {answer_command(name, one.about.schema, option)}"
