"""``flowrun resume --all``: resumes the runs of a journal that have something to do, once or as they become due."""

import asyncio
import math
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from flowrun.cli import EXIT_WAITING
from flowrun.cli.event_loop import run_in_loop
from flowrun.cli.next_steps import warn_of_changes
from flowrun.cli.terminal import echo, hide
from flowrun.durations import spell_moment
from flowrun.errors import Bug, FlowrunError
from flowrun.journal import History, RunRow
from flowrun.runtime.draining import drain_on_sigterm
from flowrun.runtime.engines import BackendSettings, calm_collector
from flowrun.runtime.flow_runs import find_pending_work
from flowrun.runtime.project import CompiledFlow
from flowrun.runtime.run_result import Resolve, RunResult
from flowrun.runtime.session import Session
from flowrun.runtime.stored_flow import load_stored_flow
from flowrun.runtime.timers import due_at

MAX_LIVE: Final = 256
"""The maximum number of runs that are live at once."""

NAMED: Final = 5
"""The runs of one flow that an error of the flow names."""

_OPEN: Final = ("interrupted", "waiting", "sleeping")
"""The statuses of runs that may have something to do without a person's decision."""

_LOOK_SECONDS: Final = 1.0
"""How often a journal is looked at for answers and for runs of other processes."""

_ANEW_SECONDS: Final = 60.0
"""How long a run that could not be resumed, or in which nothing is due, is left alone."""

Outcome = RunResult | FlowrunError


class ResumeOptions(NamedTuple):
    """How runs are resumed; each field has the name of an option, or of what some of them mean."""

    journal: Path
    resolve: Resolve | None
    verbose: bool
    project_dir: Path | None
    drain: float

    def session(self) -> Session:
        """Return a new session for a group of runs, which leaves those that sleep."""
        settings = BackendSettings(verbose=self.verbose)
        return Session(
            journal=self.journal,
            resolve=self.resolve,
            project_dir=self.project_dir,
            drain=self.drain,
            park=True,
            settings=settings,
        )


# --- once ---------------------------------------------------------------------------------------------------------


def resume_all(history: History, options: ResumeOptions) -> int:
    """Resume all runs that have something to do; those with a call in doubt only if ``resolve`` is there."""
    resolved = options.resolve is not None
    code = _resume_rows(history, _open_rows(history, in_doubt=resolved), options)
    in_doubt = [] if resolved else list(history.runs(status="needs_attention"))
    if in_doubt:
        _warn_of_doubts(in_doubt)
    return code or (EXIT_WAITING if in_doubt else 0)


def _open_rows(history: History, *, in_doubt: bool = False) -> list[RunRow]:
    statuses = (*_OPEN, "needs_attention") if in_doubt else _OPEN
    return [row for status in statuses for row in history.runs(status=status)]


def _warn_of_doubts(in_doubt: Sequence[RunRow]) -> None:
    summary = f"{len(in_doubt)} runs have a call in doubt, such as {in_doubt[0].id}"
    echo(f"{summary}: say --assume-done or --run-again, for one run or for --all", err=True)


def _resume_rows(history: History, rows: Sequence[RunRow], options: ResumeOptions) -> int:
    """Resume many runs, grouped by spec; print a line for each, and return the exit code."""
    groups: defaultdict[str, list[RunRow]] = defaultdict(list)
    for row in rows:
        groups[row.spec].append(row)
    if not groups:
        echo("no run was interrupted, waits or sleeps", err=True)
    code = 0
    for group in groups.values():
        try:
            stored = load_stored_flow(history, group[0], options.project_dir)
            warn_of_changes(stored)
            flow = stored.prepare(os.environ)
            hide(flow.secrets)
            results = _resume_group(history, group, flow, options)
        except FlowrunError as exc:
            echo(f"{_names_of(group)}  {group[0].flow}  {exc}", err=True)
            code = 1
            continue
        for row in group:
            result = results[row.id]
            _report(row, result)
            failed = isinstance(result, FlowrunError) or result.status in ("failed", "cancelled")
            code = 1 if failed else code or (EXIT_WAITING if _is_open(result) else 0)
    return code


def _names_of(group: Sequence[RunRow]) -> str:
    names = ", ".join(row.id for row in group[:NAMED])
    return names if len(group) <= NAMED else f"{names} and {len(group) - NAMED} more"


def _is_open(result: Outcome) -> bool:
    return not isinstance(result, FlowrunError) and result.run.outcome is None


def _report(row: RunRow, result: Outcome) -> None:
    echo(f"{row.id}  {row.flow}  {_describe(result)}", err=True)


def _describe(result: Outcome) -> str:
    if isinstance(result, FlowrunError):
        return str(result)
    status = "needs attention" if result.in_doubt else result.status
    return status if result.wakes is None else f"{status} until {spell_moment(result.wakes, None)}"


def _resume_group(
    history: History, group: Sequence[RunRow], flow: CompiledFlow, options: ResumeOptions
) -> dict[str, Outcome]:
    """Resume the runs of one spec that have something to do, and return the results of all, by id."""
    now = time.time()
    due = [row for row in group if _due(history, row, flow) <= now]
    results: dict[str, Outcome] = {
        row.id: find_pending_work(flow.graph, row.id, history.events) for row in group if row not in due
    }
    return results | (run_in_loop(_resume_due(due, flow, options.session())) if due else {})


def _due(history: History, row: RunRow, flow: CompiledFlow) -> float:
    """Return when a run has something to do. One that is damaged is resumed, which says so."""
    try:
        return due_at(flow.graph, row.id, history.events, history.inbox)
    except FlowrunError:
        return 0.0


async def _resume_due(rows: Iterable[RunRow], flow: CompiledFlow, session: Session) -> dict[str, Outcome]:
    slots = asyncio.Semaphore(MAX_LIVE)
    calm_collector()
    async with session:
        await session.runs_of(flow)  # an engine that cannot start is an error of the group, not of each run

        async def resume(row: RunRow) -> tuple[str, Outcome]:
            async with slots:
                try:
                    return row.id, await session.resume(row.id)
                except FlowrunError as exc:  # another process runs it, or it cannot be read
                    return row.id, exc
                except Exception as exc:  # it stops only itself
                    return row.id, _bug(exc)

        async def resume_rows() -> dict[str, Outcome]:
            return dict(await asyncio.gather(*map(resume, rows)))

        return await drain_on_sigterm(session, resume_rows())


def _bug(exc: Exception) -> Bug:
    return Bug(f"a bug in flowrun, please report it: {type(exc).__name__}: {exc}")


# --- until it is stopped ------------------------------------------------------------------------------------------


def watch_runs(history: History, options: ResumeOptions) -> int:
    """Resume each run as soon as it has something to do, until SIGINT or SIGTERM; return the exit code."""
    if options.resolve is None and (in_doubt := list(history.runs(status="needs_attention"))):
        _warn_of_doubts(in_doubt)
    echo(f"watching {options.journal}: Ctrl-C ends it", err=True)

    async def watch() -> None:
        calm_collector()
        async with options.session() as session:
            await drain_on_sigterm(session, _Watch(history, session, options).run())

    try:
        run_in_loop(watch())
    except KeyboardInterrupt:
        echo("flowrun: what was done is stored, and no call is left under way", err=True)
    return 0


class _Watch:
    """Resumes the runs of a journal as they become due. ``_next`` is when each is looked at again, by its last events.

    A run is folded only if it is new here, was changed, got a signal, or is due.
    """

    def __init__(self, history: History, session: Session, options: ResumeOptions) -> None:
        self._history = history
        self._session = session
        self._options = options
        self._slots = asyncio.Semaphore(MAX_LIVE)
        self._flows: dict[str, CompiledFlow] = {}
        self._next: dict[tuple[str, float, int], float] = {}
        self._live: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Watch for ever. A journal that cannot be read ends it."""
        while True:
            now = time.time()
            found = _open_rows(self._history, in_doubt=self._options.resolve is not None)
            rows = [row for row in found if row.holder is None and row.id not in self._live]
            signals = self._history.inbox_counts()
            known = {(row.id, row.updated, signals.get(row.id, 0)): row for row in rows}
            self._next = {key: at for key, at in self._next.items() if key in known}
            for key, row in known.items():
                if self._next.get(key, now) <= now:
                    self._look(key, row, now)
            await asyncio.sleep(max(0.0, min([now + _LOOK_SECONDS, *self._next.values()]) - time.time()))

    def _look(self, key: tuple[str, float, int], row: RunRow, now: float) -> None:
        """Resume a run if it has something to do; else say when to look again."""
        self._next[key] = now + _ANEW_SECONDS
        try:
            due = _due(self._history, row, self._flow_of(row))
        except FlowrunError as exc:
            _report(row, exc)
            return
        if due > now:
            self._next[key] = due if math.isfinite(due) else self._next[key]
            return
        task = self._live[row.id] = asyncio.create_task(self._resume(row))
        task.add_done_callback(lambda _: self._live.pop(row.id))

    def _flow_of(self, row: RunRow) -> CompiledFlow:
        if row.spec not in self._flows:
            stored = load_stored_flow(self._history, row, self._options.project_dir)
            warn_of_changes(stored)
            flow = self._flows[row.spec] = stored.prepare_to_show(os.environ)
            hide(flow.secrets)
        return self._flows[row.spec]

    async def _resume(self, row: RunRow) -> None:
        async with self._slots:
            try:
                result: Outcome = await self._session.resume(row.id)
            except FlowrunError as exc:
                result = exc
            except Exception as exc:
                result = _bug(exc)
        _report(row, result)
