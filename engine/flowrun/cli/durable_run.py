"""Drives one durable run for a verb, from the opening of its journal to the exit code."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from flowrun.cli.console import RunView
from flowrun.cli.human_input import terminal_input
from flowrun.cli.next_steps import interruptions_explained, next_commands, show_command
from flowrun.errors import OutputError
from flowrun.runtime.engines import calm_collector
from flowrun.runtime.project import CompiledFlow
from flowrun.runtime.run_result import Resolve, RunResult
from flowrun.runtime.session import Session


def drive_durable_run(
    run: str,
    action: Callable[[Session], Awaitable[RunResult]],
    flow: CompiledFlow,
    journal: Path,
    *,
    view: RunView,
    resolve: Resolve | None = None,
) -> int:
    """Start or resume a run by ``action``, show how it ended and what the user can do next, and return the exit code.

    Args:
        resolve: resolves the calls that were in doubt after a crash.
    """

    async def drive() -> RunResult:
        calm_collector()
        human_input, observers = terminal_input(), [view.console]
        async with Session(
            journal=journal, human_input=human_input, observers=observers, resolve=resolve, settings=view.settings
        ) as session:
            await session.runs_of(flow)
            return await action(session)

    with interruptions_explained(run, journal):
        result = asyncio.run(drive())
    try:
        return view.conclude(result, next_commands(run, result, journal))
    except OutputError as exc:
        stored = f"run {run} is {result.status}, and all of it is stored: {show_command(run, journal)}"
        raise OutputError(f"{exc}; {stored}") from exc
