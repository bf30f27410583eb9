"""``flowrun replay``: a recorded run beside today's spec. Nothing is called, and no model is asked."""

import os
from pathlib import Path

import click
import msgspec

from flowrun.cli.driving import descendants_of, history_of, kept_flow_of, top_of
from flowrun.cli.journals import journal_option
from flowrun.cli.streams import answer_stream
from flowrun.cli.terminal import write_json, write_report


@click.command()
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print the difference as JSON; null if there is none.")
@journal_option
def command(run: str, as_json: bool, journal: Path) -> int:
    """Feed a run's recorded events to the spec as it is today, and show where it would go another way.

    RUN is its id or the beginning of it. Exits with 1 if it would go another way.
    """
    from flowrun.story import render_divergence, replay

    history = history_of(journal)
    row = top_of(history, run)
    kept = kept_flow_of(history, row)
    then = kept.prepare(os.environ, require_environment=False, imports=False).graph
    now = kept.prepare_as_it_is_now(kept.snapshot.environment(os.environ)).graph
    histories = {name: history.events(name) for name in descendants_of(history, row.id)}
    divergence = replay(then, now, history.events(row.id), histories)
    with answer_stream() as answers:
        if as_json:
            write_json(answers, msgspec.json.format(msgspec.json.encode(divergence)).decode())
        else:
            write_report(answers, render_divergence(divergence))
    return 0 if divergence is None else 1
