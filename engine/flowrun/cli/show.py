"""``flowrun show``: shows the transcript of a durable run."""

import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

import click

from flowrun.cli.options import journal_option, run_argument
from flowrun.cli.report import colours_wanted
from flowrun.cli.streams import answer_stream
from flowrun.cli.terminal import echo, indented_json, write_json, write_report
from flowrun.files import file_errors
from flowrun.journal import open_history
from flowrun.runtime.stored_flow import load_stored_flow
from flowrun.spec import mask


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
    zone = datetime.now().astimezone().tzinfo or UTC
    with answer_stream() as answers:
        if html is not None:
            with file_errors(f"--html {html}"):
                html.write_text(render_html(flow.graph, transcript, zone=zone), encoding="utf-8")
            echo(f"{html} shows run {row.id}", err=True)
        if json:
            write_json(answers, indented_json(transcript))
        elif html is None:
            coloured = colours_wanted(answers, environ=os.environ)
            width = shutil.get_terminal_size((100, 24)).columns
            text = render_text(transcript, coloured=coloured, width=width, full=full, zone=zone)
            write_report(answers, text, coloured=coloured)
    return 0
