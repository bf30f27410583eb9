"""``flowrun runs``: lists the durable runs, the newest first."""

import time
from collections.abc import Iterable
from json import dumps
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from rich.table import Table
from rich.text import Text

from flowrun.cli.options import journal_option, open_journal
from flowrun.cli.streams import answer_stream
from flowrun.cli.terminal import echo, rich_console, write_json
from flowrun.durations import spell_duration

SHOWN: Final = 50
_STYLES: Final = {
    "succeeded": "green",
    "failed": "red",
    "cancelled": "dim",
    "running": "cyan",
    "waiting": "yellow",
    "sleeping": "blue",
    "needs_attention": "yellow",
    "interrupted": "yellow",
    "damaged": "red",
}


@click.command()
@click.option("--status", type=click.Choice(list(_STYLES)), help="Only runs of this status.")
@click.option("--flow", help="Only runs of the flow of this name.")
@click.option("--batch", help="Only the runs of this batch.")
@click.option("--children", is_flag=True, help="The runs of sub-flows too.")
@click.option("--limit", type=click.IntRange(1), default=SHOWN, show_default=True, help="At most so many.")
@click.option("--all", "all_", is_flag=True, help="However many there are.")
@click.option("--json", is_flag=True, help="Print a JSON object a line.")
@journal_option
def command(
    status: str | None,
    flow: str | None,
    batch: str | None,
    children: bool,
    limit: int,
    all_: bool,
    json: bool,
    journal: Path,
) -> int:
    """List the runs of a journal: id, flow, state, status and age.

    A run is interrupted if its process ended before the run did; `flowrun resume` continues it.
    """
    with answer_stream() as answers:
        if not journal.exists():
            echo(f"no durable run is stored in {journal} yet: flowrun SPEC --durable stores one", err=True)
            return 0
        history = open_journal(journal)
        found = history.runs(
            status=status, flow=flow, batch=batch, children=children, limit=None if all_ else limit + 1
        )
        if status == "running":
            found = (row for row in found if not row.interrupted)
        if json:
            for row in found if all_ else list(found)[:limit]:
                write_json(answers, dumps(described(row), ensure_ascii=False))
            return 0
        rows = list(found)
        shown = rows if all_ else rows[:limit]
        rich_console(file=answers).print(_table_of(shown))
        if len(rows) > len(shown):
            echo(f"the newest {len(shown)} are shown; --all shows the others too", err=True)
    return 0


def _table_of(rows: Iterable[Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("run", "flow", "state", "status", "age"):
        table.add_column(name, no_wrap=name in ("run", "status", "age"), justify="right" if name == "age" else "left")
    for row in rows:
        status = run_status(row)
        age = spell_duration(time.time() - row.created, whole=True)
        table.add_row(Text(row.id), Text(row.flow), Text(row.state), Text(status, style=_STYLES[status]), age)
    return table


def run_status(row: Any) -> str:
    """Return a run's status for lists and filters: ``interrupted`` and ``damaged`` are not stored."""
    return "damaged" if row.damaged else "interrupted" if row.interrupted else str(row.status)


def described(row: Any) -> dict[str, Any]:
    """Return a run's row as JSON data."""
    return {**msgspec.to_builtins(row), "status": run_status(row)}
