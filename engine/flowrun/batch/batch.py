"""A batch: each row is a run, each run's result a line, and nothing that goes wrong in one of them touches another."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Final

import msgspec

from flowrun.batch.loop import Capacity, Loop
from flowrun.batch.results import SUCCEEDED, Results
from flowrun.batch.rows import Row
from flowrun.core.graph import Graph
from flowrun.core.messages import Usage
from flowrun.errors import Bug, Failure, FlowrunError
from flowrun.runtime.result_json import messages_of, outcome_of, waiting_of
from flowrun.runtime.runner import Result, Runner

UNAVAILABLE_ROWS: Final = 16
"""So many rows in a row that end because the backend is unavailable end the batch: the next would end so too."""

SYNC_SECONDS: Final = 1.0
"""How often results are brought to the disk; a power cut takes no more than that, and those rows are run again."""

OPEN: Final = frozenset({"waiting", "needs_attention"})
"""Statuses of runs that are not over."""

_log = logging.getLogger(__name__)

RunRow = Callable[[Row], Awaitable[dict[str, Any]]]
"""Runs a row and gives its result as JSON data, without the row's own members. Does not raise for what a run can do."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to run a batch.

    ``max_live`` None is derived from the backends' limits, once they are started. ``fail_after`` ends the batch once so
    many rows failed; ``messages`` puts them into the results. The runs of a ``durable`` batch that wait get no results
    yet, since they can go on.
    """

    max_live: int | None = None
    fail_after: int | None = None
    messages: bool = False
    durable: bool = False


class BatchStopped(FlowrunError):
    """The batch ended before its last row. What was finished is kept; the message says why and how to go on."""


class Batch:
    """A batch under way. ``done`` and ``failed`` count this session's rows, ``open`` those that wait for people."""

    def __init__(self, run_row: RunRow, results: Results, room: Capacity, options: Options) -> None:
        self.done = 0
        self.failed = 0
        self.open: Counter[str] = Counter()
        self._run_row = run_row
        self._results = results
        self._options = options
        self._unavailable: list[dict[str, Any]] = []
        self._stopped: str | None = None
        self._loop = Loop(self._run, room, max_live=options.max_live or room.max_live)

    @property
    def live(self) -> int:
        """Give how many runs are live."""
        return self._loop.live

    async def run(self, rows: Iterable[Row]) -> None:
        """Run rows and write their results.

        Raises:
            BatchStopped: it ended early, by ``fail_after`` or because a backend is gone.
            FlowrunError: the results cannot be written, or a backend cannot go on.
        """
        syncing = asyncio.create_task(self._sync())
        try:
            await self._loop.run(rows)
            self._settle_unavailable()
        finally:
            syncing.cancel()
            with suppress(asyncio.CancelledError):
                await syncing  # raises what made it end before
        if self._stopped is not None:
            raise BatchStopped(self._stopped)

    async def _run(self, row: Row) -> None:
        if row.wrong is not None:
            result = failed_result(Failure(name="input.invalid", message=row.wrong))
        else:
            result = await self._run_row(row)
        self._take({"id": row.id, "row": row.number, **result})

    def _take(self, result: dict[str, Any]) -> None:
        """Keep a result; but while a backend is unavailable, wait and see whether it stays so."""
        if self._stopped is not None:
            return
        error = result["error"]
        if error is None or error["name"] != "backend.unavailable":
            self._settle_unavailable()
            self._write(result)
            return
        self._unavailable.append(result)
        if len(self._unavailable) == UNAVAILABLE_ROWS:
            self._stop(
                f"{UNAVAILABLE_ROWS} rows in a row ended in backend.unavailable: {error['message']}; they are not "
                "kept: once the backend is there again, run the same command again"
            )

    def _settle_unavailable(self) -> None:
        if self._stopped is None:
            for result in self._unavailable:
                self._write(result)
        self._unavailable.clear()

    def _write(self, result: dict[str, Any]) -> None:
        if self._options.durable and result["status"] in OPEN:
            self.open[result["status"]] += 1  # it is in the journal, and has no result yet
            return
        try:
            self._results.write(result)
        except (TypeError, ValueError) as exc:  # there is something in it that no JSON has: that costs this row only
            result = {"id": result["id"], "row": result["row"], **_bug(result["row"], exc)}
            self._results.write(result)
        self.done += 1
        self.failed += result["status"] != SUCCEEDED
        limit = self._options.fail_after
        if limit is not None and self.failed >= limit and self._stopped is None:
            self._stop(f"{self.failed} rows failed, which is --fail-after; run the same command again to go on")

    def _stop(self, why: str) -> None:
        self._stopped = why
        self._loop.stop()

    async def _sync(self) -> None:
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            await asyncio.to_thread(self._results.sync)


def run_here(runner: Runner, graph: Graph, *, messages: bool, batch: str = "") -> RunRow:
    """Give what runs a row in this process; the runs are named after their batch, so that no other has their names."""
    return run_by(lambda row: runner.run(graph, row.inputs, run_id=run_name(batch, row)), messages=messages)


def run_by(drive: Callable[[Row], Awaitable[Result]], *, messages: bool) -> RunRow:
    """Give what runs a row by ``drive``, and takes a bug for the row's failure."""

    async def run_row(row: Row) -> dict[str, Any]:
        try:
            result = await drive(row)
        except FlowrunError as exc:
            if not isinstance(exc, Bug):
                raise
            return _bug(row.number, exc)
        except Exception as exc:
            return _bug(row.number, exc)
        return result_data(result, messages=messages)

    return run_row


def run_name(batch: str, row: Row) -> str:
    """Name a row's run."""
    return f"{batch}-{row.number}" if batch else str(row.number)


def result_data(result: Result, *, messages: bool) -> dict[str, Any]:
    """Give a run's result as the line of its row has it."""
    return {**outcome_of(result), **waiting_of(result), **(messages_of(result) if messages else {})}


def _bug(row: int, exc: Exception) -> dict[str, Any]:
    _log.error("row %s: a bug in flowrun; please report it", row, exc_info=exc)
    return failed_result(Failure(name="flowrun.bug", message=f"{type(exc).__name__}: {exc}"))


def failed_result(failure: Failure) -> dict[str, Any]:
    """Give the result of a row that no run ended for."""
    return {
        "status": "failed",
        "output": None,
        "error": msgspec.to_builtins(failure),
        "path": [],
        "rounds": 0,
        "usage": msgspec.to_builtins(Usage()),
    }
