"""``flowrun replay``: compares a recorded run with the current spec, without calls of functions or models."""

import os
from pathlib import Path

import click

from flowrun.cli.options import journal_option, open_journal, project_option, run_argument
from flowrun.cli.streams import answer_stream
from flowrun.cli.terminal import indented_json, write_json, write_report
from flowrun.runtime.stored_flow import load_stored_flow
from flowrun.spec import mask


@click.command()
@run_argument
@click.option("--json", is_flag=True, help="Print the difference as JSON; null if there is none.")
@journal_option
@project_option
def command(run: str, json: bool, journal: Path, project_dir: Path | None) -> int:
    """Feed a run's recorded events to the spec as it is today, and show where it would differ.

    RUN is its id or the beginning of it. Exits with 1 if it would differ.
    """
    from flowrun.transcript import render_divergence, replay

    history = open_journal(journal)
    row = history.top_run(run)
    stored = load_stored_flow(history, row, project_dir)
    flow = stored.prepare_to_show(os.environ)
    current = stored.prepare_current(stored.snapshot.environment(os.environ)).graph
    histories = {name: history.events(name) for name in history.descendants(row.id)}
    divergence = replay(flow.graph, current, history.events(row.id), histories)
    divergence = mask(divergence, flow.secrets)
    with answer_stream() as answers:
        if json:
            write_json(answers, indented_json(divergence))
        else:
            write_report(answers, render_divergence(divergence))
    return 0 if divergence is None else 1
