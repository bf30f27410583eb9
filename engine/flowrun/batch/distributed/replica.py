"""A replica: one set of backends and the rows that run on them, in a process of its own that Ray starts and restarts.

Nothing here depends on Ray: another process calls the methods, so their arguments and results must be picklable. A row
is run by ``run_in_this_process``, as in a batch on one machine.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Any, Final

import msgspec

from flowrun.backends.pressure import STALL_SECONDS
from flowrun.backends.wrapper import WrappedBackend
from flowrun.batch.batch import RunRow, run_in_this_process
from flowrun.batch.distributed.ports import ReplicaReport
from flowrun.batch.rows import Row
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply, Usage
from flowrun.core.ports import ModelBackend, OnText
from flowrun.errors import FlowrunError, ModelError, SpecError
from flowrun.functions.watchdog import watched_process
from flowrun.runtime.engines import BackendSettings
from flowrun.runtime.meter import Meter
from flowrun.runtime.project import CompiledFlow
from flowrun.runtime.run_result import mask_result
from flowrun.runtime.session import Session
from flowrun.spec import mask_excerpt
from flowrun.version import __version__

PULSE: Final = 5.0
"""The longest time in seconds between two reports: a report is due even if nothing happened."""

_GATHER: Final = 0.01  # seconds to wait for further results that go into the same report

Load = Callable[[], CompiledFlow]
"""Compiles the flow on the replica's host."""


class ReplicaConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a replica runs the rows of a batch.

    Attributes:
        version: the flowrun version of the batch, which the replica's must equal.
        batch: the id of the batch, which its run ids start with.
        messages: include the messages of each run in its result.
        max_live: the maximum number of live rows; None: computed from the backends' limits.
        max_tools: the number of functions that run at once.
        verbose: show the log of vLLM.
        watched: the replica has a process of its own, which is ended if a function keeps it from running.
        stall, locked, keeps_tokens: see ``BackendSettings``; each replica counts for itself.
    """

    version: str = __version__
    batch: str = ""
    messages: bool = False
    max_live: int | None = None
    max_tools: int | None = None
    verbose: bool = False
    watched: bool = False
    stall: float = STALL_SECONDS
    locked: bool = False
    keeps_tokens: bool = False


class ReplicaStart(msgspec.Struct, frozen=True):
    """The result of a start: the replica's process and host, or the error."""

    where: str = ""
    error: str | None = None


class HostedReplica:
    """The side of a replica that runs in its own process."""

    def __init__(self, load: Load, config: ReplicaConfig) -> None:
        self._load = load
        self._config = config
        self._session: _ReplicaSession | None = None
        self._start_lock = asyncio.Lock()  # after a lost connection the pool may start it again during a start

    async def start(self, number: int) -> ReplicaStart:
        """End the current session, if any, and begin a new one with the id ``number``."""
        async with self._start_lock:
            return await self._start(number)

    async def _start(self, number: int) -> ReplicaStart:
        await self.stop()
        config, host = self._config, socket.gethostname()
        if config.version != __version__:
            return ReplicaStart(error=f"flowrun is {__version__} on {host}, and {config.version} in the batch")
        secrets: Mapping[str, str] = {}
        try:
            flow = self._load()
            secrets = flow.secrets
            session = _ReplicaSession(number, config)
            await session.start(flow)
        except FlowrunError as exc:
            return ReplicaStart(error=mask_excerpt(f"{host}: {_error_text(exc)}", secrets))
        self._session = session
        return ReplicaStart(where=f"process {os.getpid()} on {host}")

    async def feed(self, number: int, rows: Sequence[Row]) -> bool:
        """Start rows; return False if the session has ended."""
        session = self._session
        if session is None or session.number != number:
            return False
        for row in rows:
            session.start_row(row)
        return True

    async def collect(self, number: int) -> ReplicaReport:
        """Wait for the next report of a session."""
        session = self._session
        if session is None or session.number != number:
            return ReplicaReport(lost="its process was started again")
        return await session.next_report()

    async def stop(self) -> None:
        """End the session: cancel its rows and stop its backends."""
        session, self._session = self._session, None
        if session is not None:
            await session.stop()


class _ReplicaSession:
    """The rows of a replica from one start to the next."""

    def __init__(self, number: int, config: ReplicaConfig) -> None:
        self.number = number
        self._config = config
        settings = BackendSettings(
            verbose=config.verbose, stall=config.stall, locked=config.locked, keeps_tokens=config.keeps_tokens
        )
        self._session = Session(max_tools=config.max_tools, keep_waiting=False, settings=settings)
        self._watch = watched_process() if config.watched else nullcontext()
        self._meter = Meter()
        self._run_row: RunRow
        self._secrets: Mapping[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._results: list[tuple[int, dict[str, Any]]] = []
        self._received = 0
        self._reported = (0, Usage())
        self._lost: str | None = None
        self._error: str | None = None

    async def start(self, flow: CompiledFlow) -> None:
        """Start the backends; if one cannot start, stop all of them. One in this process is watched."""

        def wrap(name: str, backend: ModelBackend) -> ModelBackend:
            in_process = flow.models[name].model.capabilities.in_process
            return self._meter.wrap(name, _Watched(backend, self._lose) if in_process else backend)

        self._watch.__enter__()
        try:
            await self._session.__aenter__()
            runs = await self._session.runs_of(flow, wrap=wrap)
        except BaseException:
            await self.stop()
            raise
        self._meter.on_capacity = self._news.set
        self._secrets = flow.secrets
        self._run_row = run_in_this_process(runs, messages=self._config.messages, batch=self._config.batch)
        self._news.set()  # the first report states the capacity

    def start_row(self, row: Row) -> None:
        """Start a row."""
        self._received += 1
        task = asyncio.create_task(self._run(row))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, row: Row) -> None:
        try:
            result = await self._run_row(row)
        except FlowrunError as exc:
            self._error = mask_excerpt(str(exc), self._secrets)
        else:
            if self._lost is None:  # a run that ends after the loss may have ended because of it
                self._results.append((row.place, mask_result(result, self._secrets)))
        self._news.set()

    async def next_report(self) -> ReplicaReport:
        """Wait for an event, at most ``PULSE`` seconds; return a report of everything since the previous one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PULSE):
                await self._news.wait()
                await asyncio.sleep(_GATHER)
        self._news.clear()
        results, self._results = self._results, []
        rounds, usage = self._reported
        self._reported = (self._meter.rounds, self._meter.usage)
        return ReplicaReport(
            results=results,
            capacity=self._capacity(),
            received=self._received,
            rounds=self._meter.rounds - rounds,
            usage=_minus(self._meter.usage, usage),
            lost=self._lost,
            error=self._error,
        )

    def _capacity(self) -> int:
        live = len(self._tasks)
        capacity = (self._config.max_live or self._meter.max_live) - live
        free_slots = self._meter.free_slots
        return max(0, capacity if free_slots is None else min(capacity, free_slots))

    def _lose(self, reason: str) -> None:
        self._lost = mask_excerpt(reason, self._secrets)
        self._news.set()

    async def stop(self) -> None:
        """Cancel the rows, and stop the backends."""
        live = list(self._tasks)
        for task in live:
            task.cancel()
        await asyncio.gather(*live, return_exceptions=True)
        try:
            await self._session.close()
        finally:
            self._watch.__exit__(None, None, None)


class _Watched(WrappedBackend):
    """A backend in this process. If it is unavailable, the replica is lost: no row's spec can handle that."""

    def __init__(self, backend: ModelBackend, lose: Callable[[str], None]) -> None:
        super().__init__(backend)
        self._lose = lose

    async def reply(self, request: AskModel, *, on_text: OnText | None = None) -> Reply:
        """Ask the backend, and report the replica as lost if the backend is unavailable."""
        try:
            return await self.backend.reply(request, on_text=on_text)
        except ModelError as exc:
            if exc.name == "backend.unavailable":
                self._lose(exc.message)
            raise


def _error_text(exc: FlowrunError) -> str:
    if isinstance(exc, SpecError):
        return "; ".join(f"{issue.place}: {issue.message}" for issue in exc.issues)
    return str(exc)


def _minus(now: Usage, before: Usage) -> Usage:
    fields = Usage.__struct_fields__
    return Usage(**{name: getattr(now, name) - getattr(before, name) for name in fields})
