"""``flowrun cancel``: cancels a durable run, also one that another process runs."""

import asyncio
from pathlib import Path

import click

from flowrun.cli.options import journal_option, open_journal, run_argument
from flowrun.cli.terminal import echo
from flowrun.runtime.session import Session


@click.command()
@run_argument
@click.option("--reason", default="", help="Why; stored with the run.")
@journal_option
def command(run: str, reason: str, journal: Path) -> int:
    """Cancel a run: its status is then `cancelled`, and it cannot be resumed."""
    row = open_journal(journal).top_run(run)

    async def cancel() -> str:
        async with Session(journal=journal) as session:
            result = await session.cancel(row.id, reason=reason)
        if result is not None:
            return f"run {row.id} is {result.status}"
        where = f"process {row.holder.pid} on {row.holder.host}" if row.holder is not None else "its process"
        return f"{where} is asked to end run {row.id}"

    echo(asyncio.run(cancel()), err=True)
    return 0
