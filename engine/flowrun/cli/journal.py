"""``flowrun journal``: checks durable runs, deletes old ones, and shrinks the journal file."""

import time
from contextlib import closing
from functools import partial
from pathlib import Path

import click

from flowrun.cli.options import journal_option, open_journal
from flowrun.cli.terminal import echo
from flowrun.errors import UsageError
from flowrun.spec.parse import parse_duration


@click.group()
def command() -> None:
    """Look after the journal, the file that durable runs are stored in."""


@command.command()
@click.option("--older-than", required=True, metavar="AGE", help="Runs that ended so long ago: 30d, 12h, 90m.")
@journal_option
def prune(older_than: str, journal: Path) -> int:
    """Delete old runs that have ended, and the data that only they used. Runs that wait or were interrupted stay."""
    from flowrun.journal import Database
    from flowrun.journal import prune as prune_runs

    try:
        age = float(parse_duration(older_than))
    except ValueError as exc:
        raise UsageError(f"--older-than {older_than}: {exc}") from exc
    with closing(Database(journal, create=False)) as database:
        count = prune_runs(database, older_than=age, now=time.time())
    echo(f"{count} runs deleted; `flowrun journal vacuum` makes the file smaller", err=True)
    return 0


@command.command()
@journal_option
def check(journal: Path) -> int:
    """Find the runs that cannot be read any more. Exits with 1 if there are any; all others are not concerned."""
    from flowrun.runtime.stored_flow import load_stored_flow

    history = open_journal(journal)
    count = sum(1 for _ in history.runs(children=True))
    damaged = list(history.damages(partial(load_stored_flow, history)))
    for row, reason in damaged:
        echo(f"{row.id}  {row.flow}  {reason}")
    echo(f"{count} runs checked: {len(damaged) or 'none'} damaged", err=True)
    return 1 if damaged else 0


@command.command()
@journal_option
def vacuum(journal: Path) -> int:
    """Return the space of deleted runs to the file system."""
    from flowrun.journal import Database
    from flowrun.journal import vacuum as vacuum_file

    with closing(Database(journal, create=False)) as database:
        sizes = vacuum_file(database, now=time.time)
    echo(f"{sizes.before:,} bytes before, {sizes.after:,} after", err=True)
    return 0
