"""Drives one durable run for a verb, from the opening of its journal to the exit code."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from flowrun.cli.console import RunView
from flowrun.cli.event_loop import run_in_loop
from flowrun.cli.human_input import terminal_input
from flowrun.cli.next_steps import interruptions_explained, next_commands, resume_command, show_command
from flowrun.collector import calm_collector
from flowrun.errors import OutputError
from flowrun.runtime.draining import drain_on_sigterm
from flowrun.runtime.project import CompiledFlow
from flowrun.runtime.run_result import Resolve, RunResult
from flowrun.runtime.session import Session


def drive_durable_run(
    run: str,
    action: Callable[[Session], Coroutine[Any, Any, RunResult]],
    flow: CompiledFlow,
    journal: Path,
    *,
    view: RunView,
    resolve: Resolve | None = None,
    moved_to: Path | None = None,
    drain: float,
) -> int:
    """Start or resume a run by ``action``, show how it ended and what the user can do next, and return the exit code.

    Args:
        resolve: resolves the calls that were in doubt after a crash.
        drain: the seconds in which calls may return after SIGTERM.
        moved_to: the folder that the project of a resumed run was moved to.
    """

    view.console.resumed_by = f"`{resume_command(run, journal, moved_to)}`"

    async def drive() -> RunResult:
        calm_collector()
        ports: dict[str, Any] = {"human_input": terminal_input(), "observers": view.observers, "resolve": resolve}
        async with Session(
            journal=journal, project_dir=moved_to, drain=drain, settings=view.settings, **ports
        ) as session:
            await session.runs_of(flow)
            return await drain_on_sigterm(session, action(session))

    with interruptions_explained(run, journal, moved_to):
        result = run_in_loop(drive())
    try:
        return view.conclude(result, next_commands(run, result, journal, moved_to))
    except OutputError as exc:
        raise OutputError(f"{exc}; run {run} is stored: {show_command(run, journal)}") from exc
