"""A batch: each row is a run and each run's result is a line. A failure in one row does not affect the others."""

import asyncio
import hashlib
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Final

import msgspec

from flowrun.batch.results import SUCCEEDED, Results
from flowrun.batch.rows import Row
from flowrun.core.messages import Usage
from flowrun.errors import Failure, FlowrunError
from flowrun.runtime.flow_runs import FlowRuns
from flowrun.runtime.loop import Capacity, Loop
from flowrun.runtime.meter import Meter
from flowrun.runtime.origin import Origin
from flowrun.runtime.run_result import RunResult, failed_result, guard

UNAVAILABLE_ROWS: Final = 16
"""The number of consecutive rows with ``backend.unavailable`` that ends the batch: the next rows would fail too."""

SYNC_SECONDS: Final = 1.0
"""The interval between two syncs of the results to disk. A power cut loses at most the results of this interval; their
rows are run again."""

OPEN: Final = frozenset({"waiting", "needs_attention"})
"""The statuses of runs that have not ended."""

_PLACE: Final = ("id", "row", "sample", "seed")
"""The members of a result line that say which run of the batch it is of."""

_log = logging.getLogger(__name__)

RunRow = Callable[[Row], Awaitable[dict[str, Any]]]
"""Runs a row and returns its result as JSON data, without the members ``id`` and ``row``. Does not raise when the run
fails."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How to run a batch.

    Attributes:
        max_live: the maximum number of live rows; None: computed from the backends' limits once they are started.
        fail_after: the number of failed rows that ends the batch.
        max_tokens: the tokens of prompts and replies after which no further row begins.
        messages: include the messages of each run in its result.
        durable: the runs are in a journal; those that wait get no result line yet, because they can be resumed.
    """

    max_live: int | None = None
    fail_after: int | None = None
    max_tokens: int | None = None
    messages: bool = False
    durable: bool = False


class BatchStopped(FlowrunError):
    """The batch ended before its last row. Finished results are kept; the message has the reason and the next step."""


class Batch:
    """A batch that runs.

    Attributes:
        done: the number of rows of this process that have a result.
        failed: the number of those rows that did not succeed.
        open: the number of durable runs that have not ended, by status (``OPEN``).
    """

    def __init__(
        self,
        run_row: RunRow,
        results: Results,
        capacity: Capacity,
        options: Options,
        origin: Origin | None = None,
        *,
        meter: Meter | None = None,
    ) -> None:
        """Bind the batch to what runs its rows; ``meter`` counts their tokens for ``max_tokens``."""
        self.done = 0
        self.failed = 0
        self.open: Counter[str] = Counter()
        self._run_row = run_row
        self._results = results
        self._options = options
        self._origin = {} if origin is None else origin.data
        self._unavailable: list[dict[str, Any]] = []
        self._stop_reason: str | None = None
        self._meter = meter
        enough = None if meter is None or options.max_tokens is None else self._has_used_up
        self._loop = Loop(self._run, capacity, max_live=options.max_live or capacity.max_live, enough=enough)

    @property
    def live(self) -> int:
        """Return how many rows are live."""
        return self._loop.live

    async def run(self, rows: Iterable[Row]) -> None:
        """Run rows and write their results.

        Raises:
            BatchStopped: it ended early, because of ``fail_after`` or ``max_tokens`` or because a backend is
                unavailable.
            FlowrunError: the results cannot be written, or a backend failed in a way that affects all rows.
        """
        syncing = asyncio.create_task(self._sync())
        try:
            await self._loop.run(rows)
            self._write_unavailable()
        finally:
            syncing.cancel()
            with suppress(asyncio.CancelledError):
                await syncing  # raises the error if a sync failed before
        if self._stop_reason is None and self._loop.closed:
            self._stop_reason = (
                f"{self._tokens:,} tokens are used, and --max-tokens gives {self._options.max_tokens:,}: no further "
                "row began; run the same command again to continue with as many more"
            )
        if self._stop_reason is not None:
            raise BatchStopped(self._stop_reason)

    @property
    def _tokens(self) -> int:
        usage = Usage() if self._meter is None else self._meter.usage
        return usage.prompt_tokens + usage.completion_tokens

    def _has_used_up(self) -> bool:
        limit = self._options.max_tokens
        return limit is not None and self._tokens >= limit

    async def _run(self, row: Row) -> None:
        if row.wrong is not None:
            result = row_result(failed_result("", Failure(name="input.invalid", message=row.wrong)))
        else:
            result = await self._run_row(row)
        columns = {"columns": row.columns} if row.columns else {}
        sample = {"sample": row.sample, "seed": row.seed} if row.samples > 1 else {}
        place = {"id": row.id, "row": row.number, **sample}
        self._accept({**place, "inputs": row.inputs, **columns, **self._origin, **result})

    def _accept(self, result: dict[str, Any]) -> None:
        """Write a result. Hold those with ``backend.unavailable`` back until it is clear that this was temporary."""
        if self._stop_reason is not None:
            return
        error = result["error"]
        if error is None or error["name"] != "backend.unavailable":
            self._write_unavailable()
            self._write(result)
            return
        self._unavailable.append(result)
        if len(self._unavailable) == UNAVAILABLE_ROWS:
            self._stop(
                f"{UNAVAILABLE_ROWS} rows in a row ended in backend.unavailable: {error['message']}; they are not "
                "kept: once the backend is there again, run the same command again"
            )

    def _write_unavailable(self) -> None:
        if self._stop_reason is None:
            for result in self._unavailable:
                self._write(result)
        self._unavailable.clear()

    def _write(self, result: dict[str, Any]) -> None:
        if self._options.durable and result["status"] in OPEN:
            self.open[result["status"]] += 1  # the run is in the journal, and has no result yet
            return
        try:
            self._results.write(result)
        except (TypeError, ValueError) as exc:  # a value in it is not JSON: only this row fails
            _log.error("row %s: a bug in flowrun; please report it", result["row"], exc_info=exc)
            bug = failed_result("", Failure(name="flowrun.bug", message=f"{type(exc).__name__}: {exc}"))
            place: dict[str, Any] = {name: result[name] for name in _PLACE if name in result}
            result = {**place, "inputs": {}, **self._origin, **row_result(bug)}
            self._results.write(result)
        self.done += 1
        self.failed += result["status"] != SUCCEEDED
        limit = self._options.fail_after
        if limit is not None and self.failed >= limit and self._stop_reason is None:
            self._stop(f"{self.failed} rows failed, which is --fail-after; run the same command again to continue")

    def _stop(self, reason: str) -> None:
        self._stop_reason = reason
        self._loop.stop()

    async def _sync(self) -> None:
        while True:
            await asyncio.sleep(SYNC_SECONDS)
            await asyncio.to_thread(self._results.sync)


def run_in_this_process(runs: FlowRuns, *, messages: bool, batch: str = "") -> RunRow:
    """Return a function that runs a row in this process; run ids start with the batch's id, which makes them unique."""
    return run_with(lambda row: runs.start(row.inputs, run_id_of(batch, row), seed=row.seed), messages=messages)


def run_with(run: Callable[[Row], Awaitable[RunResult]], *, messages: bool) -> RunRow:
    """Return a function that runs a row by ``run`` and turns an unexpected exception into the failure of this row.

    Args:
        run: starts or resumes the run of a row.
    """

    async def run_row(row: Row) -> dict[str, Any]:
        return row_result(await guard(f"row {row.number}", run(row)), messages=messages)

    return run_row


def run_id_of(batch: str, row: Row) -> str:
    """Return the id of a row's run: it ends in the row's id where that can stand in one, so it is found by it."""
    text = str(row.id)
    if not _PLAIN_ID.fullmatch(text):
        text = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    if row.samples > 1:
        text = f"s{row.sample}-{text}"
    return f"{batch}-{text}" if batch else text


_PLAIN_ID: Final = re.compile(r"(?!.*-\d+$)[A-Za-z0-9_-]{1,64}")
"""Ids of rows that may stand in those of runs. Those of further attempts end in a hyphen and a number."""


def row_result(result: RunResult, *, messages: bool = False) -> dict[str, Any]:
    """Return a run's result as JSON data for the row's result line, which names the row in place of the run."""
    data = result.to_dict(messages=messages)
    del data["run"]
    if not result.run.inputs:
        del data["inputs"]  # if it did not begin, those of the row are what is known
    return data
