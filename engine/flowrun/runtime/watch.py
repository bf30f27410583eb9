"""Watches a journal, and resumes its runs as they become due: answered, at the end of a pause, or interrupted."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from typing import Final

from flowrun.errors import Bug, FlowrunError
from flowrun.journal import History, RunRow
from flowrun.runtime.project import CompiledFlow
from flowrun.runtime.run_result import RunResult
from flowrun.runtime.session import Session
from flowrun.runtime.timers import due_at

MAX_LIVE: Final = 256
"""The maximum number of runs that are live at once."""

_OPEN: Final = ("interrupted", "waiting", "sleeping")
"""The statuses of runs that may have something to do without a person's decision."""

_LOOK_SECONDS: Final = 1.0
"""How often a journal is looked at for answers and for runs of other processes."""

_ANEW_SECONDS: Final = 60.0
"""How long a run that could not be resumed, or in which nothing is due, is left alone."""

Resumed = RunResult | FlowrunError
"""What came of resuming a run."""


def open_rows(history: History, *, in_doubt: bool = False) -> list[RunRow]:
    """Return the runs that may have something to do.

    Args:
        in_doubt: those with a call in doubt too.
    """
    statuses = (*_OPEN, "needs_attention") if in_doubt else _OPEN
    return [row for status in statuses for row in history.runs(status=status)]


def due_of(history: History, row: RunRow, flow: CompiledFlow) -> float:
    """Return when a run has something to do. One that is damaged is resumed, which says so."""
    try:
        return due_at(flow.graph, row.id, history.events, history.inbox)
    except FlowrunError:
        return 0.0


async def resume_row(session: Session, row: RunRow) -> Resumed:
    """Resume a run, and return its result or its error. A bug of flowrun stops only this run."""
    try:
        return await session.resume(row.id)
    except FlowrunError as exc:  # another process runs it, or it cannot be read
        return exc
    except Exception as exc:
        return Bug(f"a bug in flowrun, please report it: {type(exc).__name__}: {exc}")


class Watch:
    """Resumes the runs of a journal as they become due. ``_next`` is when each is looked at again, by its last events.

    A run is folded only if it is new here, was changed, got a signal, or is due.
    """

    def __init__(
        self,
        history: History,
        resume: Callable[[RunRow], Awaitable[object]],
        *,
        load_flow: Callable[[RunRow], CompiledFlow],
        report: Callable[[RunRow, FlowrunError], None],
        in_doubt: bool = False,
        is_wanted: Callable[[RunRow], bool] = lambda row: True,
    ) -> None:
        """Bind the watch to a journal, and to what resumes its runs.

        Args:
            resume: resumes a run, and returns when it has ended or waits again.
            load_flow: returns the flow of a run, to look what is due in it.
            report: receives why it cannot be looked at what is due in a run.
            in_doubt: resume runs with a call in doubt too: they will be resolved.
            is_wanted: whether a run is to be resumed here.
        """
        self._history = history
        self._resume_run = resume
        self._load_flow = load_flow
        self._report = report
        self._in_doubt = in_doubt
        self._is_wanted = is_wanted
        self._slots = asyncio.Semaphore(MAX_LIVE)
        self._flows: dict[str, CompiledFlow] = {}
        self._next: dict[tuple[str, float, int], float] = {}
        self._live: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Watch for ever. A journal that cannot be read ends it."""
        while True:
            now = time.time()
            found = open_rows(self._history, in_doubt=self._in_doubt)
            rows = [row for row in found if row.holder is None and row.id not in self._live and self._is_wanted(row)]
            signals = self._history.inbox_counts()
            known = {(row.id, row.updated, signals.get(row.id, 0)): row for row in rows}
            self._next = {key: at for key, at in self._next.items() if key in known}
            for key, row in known.items():
                if self._next.get(key, now) <= now:
                    self._look(key, row, now)
                    await asyncio.sleep(0)  # there may be thousands
            await asyncio.sleep(max(0.0, min([now + _LOOK_SECONDS, *self._next.values()]) - time.time()))

    def _look(self, key: tuple[str, float, int], row: RunRow, now: float) -> None:
        """Resume a run if it has something to do; else say when to look again."""
        self._next[key] = now + _ANEW_SECONDS
        try:
            due = due_of(self._history, row, self._flow_of(row))
        except FlowrunError as exc:
            self._report(row, exc)
            return
        if due > now:
            self._next[key] = due if math.isfinite(due) else self._next[key]
            return
        task = self._live[row.id] = asyncio.create_task(self._resume(row))
        task.add_done_callback(lambda _: self._live.pop(row.id))

    def _flow_of(self, row: RunRow) -> CompiledFlow:
        if row.spec not in self._flows:
            self._flows[row.spec] = self._load_flow(row)
        return self._flows[row.spec]

    async def _resume(self, row: RunRow) -> None:
        async with self._slots:
            await self._resume_run(row)
