"""``flowrun cancel``: cancels a durable run, also one that another process runs."""

import asyncio
import os
from pathlib import Path

import click

from flowrun.cli.options import journal_option, run_argument
from flowrun.cli.terminal import echo
from flowrun.core.events import Cancelled
from flowrun.errors import UsageError
from flowrun.journal import SqliteJournal, open_history
from flowrun.runtime.durable import DurableRuns
from flowrun.runtime.inbox import Inbox
from flowrun.runtime.runner import Runner
from flowrun.runtime.stored_flow import load_stored_flow


@click.command()
@run_argument
@click.option("--reason", default="", help="Why; kept with the run.")
@journal_option
def command(run: str, reason: str, journal: Path) -> int:
    """Cancel a run: its status is then `cancelled`, and it cannot be resumed."""
    history = open_history(journal)
    row = history.top_run(run)
    if row.ended is not None:
        raise UsageError(f"run {row.id} has ended: {row.status}")
    stored = load_stored_flow(history, row)
    flow = stored.prepare(os.environ, require_environment=False, imports=False)
    event = Cancelled(reason=reason)

    async def cancel() -> str:
        inbox = Inbox()
        async with SqliteJournal(journal, on_signal=inbox.receive) as opened:
            if row.holder is not None:
                await opened.signal(row.id, event)
                return f"process {row.holder.pid} on {row.holder.host} is told to end run {row.id}"
            runner = Runner(backends={}, functions=flow.functions, human_input=inbox, journal=opened)
            result = await DurableRuns(runner, flow.graph, opened, inbox).resume(row.id, then=event)
            return f"run {row.id} is {result.run.status}"

    echo(asyncio.run(cancel()), err=True)
    return 0
