"""``flowrun fork``: begins a durable run from the events of another one up to a step."""

import os
from functools import partial
from pathlib import Path

import click

from flowrun.cli.console import Console, RunView
from flowrun.cli.durable_run import drive_durable_run
from flowrun.cli.options import (
    drain_option,
    journal_option,
    open_journal,
    project_option,
    quiet_option,
    result_option,
    run_argument,
    verbose_option,
)
from flowrun.cli.run import parse_inputs
from flowrun.cli.streams import answer_stream
from flowrun.runtime.session import Session, new_run_id
from flowrun.runtime.stored_flow import load_stored_flow


@click.command()
@run_argument
@click.option("--at", required=True, type=click.IntRange(min=1), metavar="STEP", help="The step to go on from.")
@click.option("-i", "--input", multiple=True, metavar="NAME=VALUE", help="Another value of an input; may be repeated.")
@click.option("--spec", is_flag=True, help="Go on with the spec as it is today, not with the one that RUN began with.")
@result_option
@quiet_option
@verbose_option
@journal_option
@project_option
@drain_option
def command(
    run: str,
    at: int,
    input: tuple[str, ...],
    spec: bool,
    json: bool,
    quiet: bool,
    verbose: bool,
    journal: Path,
    project_dir: Path | None,
    drain: float,
) -> int:
    """Begin a durable run of its own from the events of RUN up to a step, and go on from there.

    `flowrun show RUN` numbers the steps. What RUN did before the step is not done again; RUN itself does not change.
    Exits as `flowrun run` does.
    """
    history = open_journal(journal)
    row = history.top_run(run)
    stored = load_stored_flow(history, row, project_dir)
    with answer_stream() as answers:
        flow = stored.prepare_current(os.environ, to_run=True) if spec else stored.prepare(os.environ)
        inputs = parse_inputs(flow.spec, input) or None
        new_id = new_run_id()
        with Console(flow.graph, flow.secrets, quiet=quiet) as console:
            view = RunView(answers, console, full=json, verbose=verbose)
            console.note("fork", f"{new_id}, of run {row.id} at step {at}")
            fork = partial(Session.fork, run_id=row.id, at=at, inputs=inputs, flow=flow, new_id=new_id)
            return drive_durable_run(new_id, fork, flow, journal, view=view, drain=drain, moved_to=project_dir)
