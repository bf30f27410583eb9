"""Drives one durable run for a verb, from the opening of its journal to the exit code."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from flowrun.cli.console import RunView
from flowrun.cli.human_input import terminal_input
from flowrun.cli.next_steps import interruptions_explained, next_commands
from flowrun.runtime.durable import DurableRuns, open_durable_runs
from flowrun.runtime.prepare import Flow
from flowrun.runtime.result import Resolve, Result
from flowrun.runtime.stored_flow import StoredFlow


def drive_durable_run(
    run: str,
    action: Callable[[DurableRuns], Awaitable[Result]],
    flow: Flow,
    stored: StoredFlow,
    journal: Path,
    *,
    view: RunView,
    resolve: Resolve | None = None,
) -> int:
    """Start or resume a run by ``action``, show how it ended and what the user can do next, and return the exit code.

    Args:
        resolve: resolves the calls that were in doubt after a crash.
    """

    async def drive() -> Result:
        human_input, observers = terminal_input(), [view.console]
        async with open_durable_runs(
            flow, stored, journal, settings=view.settings, human_input=human_input, observers=observers, resolve=resolve
        ) as runs:
            return await action(runs)

    with interruptions_explained(run, journal):
        result = asyncio.run(drive())
    return view.conclude(result, next_commands(run, result, journal))
