"""A replica: one set of backends and the rows that run on them, in a process of its own that Ray looks after.

Nothing here knows Ray: the methods are called from outside, and their arguments and values travel between processes.
A row is run by ``run_here``, like that of a batch on one machine.
"""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from flowrun import __version__
from flowrun.backends.wrapper import WrappedBackend
from flowrun.batch.batch import RunRow, run_here
from flowrun.batch.distributed.pool import ReplicaReport
from flowrun.batch.meter import Meter
from flowrun.batch.rows import Row
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply, Usage
from flowrun.core.ports import ModelBackend
from flowrun.errors import FlowrunError, ModelError, SpecError
from flowrun.runtime.prepare import Flow
from flowrun.runtime.runner import Runner
from flowrun.spec import mask

PULSE: Final = 5.0
"""So many seconds without news are news too."""

_GATHER: Final = 0.01  # seconds in which further news come along with the first

Load = Callable[[], tuple[Flow, dict[str, ModelBackend]]]
"""Prepares the flow and makes its backends, on the replica's host."""


class ReplicaConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How a batch wants its rows run: by which flowrun, under which name, and its options."""

    version: str = __version__
    batch: str = ""
    messages: bool = False
    max_live: int | None = None


class ReplicaStart(msgspec.Struct, frozen=True):
    """How a start went: where the replica is, or why it cannot be."""

    where: str = ""
    error: str | None = None


class HostedReplica:
    """What runs in a replica's process."""

    def __init__(self, load: Load, terms: ReplicaConfig) -> None:
        self._load = load
        self._terms = terms
        self._session: _Session | None = None
        self._one_start = asyncio.Lock()  # the pool may ask again while it cannot hear that a start goes on

    async def start(self, number: int) -> ReplicaStart:
        """End the session that is, if any, and begin one; ``number`` names it from now on."""
        async with self._one_start:
            return await self._start(number)

    async def _start(self, number: int) -> ReplicaStart:
        await self.stop()
        terms, host = self._terms, socket.gethostname()
        if terms.version != __version__:
            return ReplicaStart(error=f"flowrun is {__version__} on {host}, and {terms.version} in the batch")
        secrets: Mapping[str, str] = {}
        try:
            flow, backends = self._load()
            secrets = flow.secrets
            session = _Session(number, backends, in_process=_in_process(flow), max_live=terms.max_live)
            await session.start(flow, terms)
        except FlowrunError as exc:
            return ReplicaStart(error=mask(f"{host}: {_spell(exc)}", secrets))
        self._session = session
        return ReplicaStart(where=f"process {os.getpid()} on {host}")

    async def feed(self, number: int, rows: Sequence[Row]) -> bool:
        """Begin rows; False if the session is not on any more."""
        session = self._session
        if session is None or session.number != number:
            return False
        for row in rows:
            session.begin(row)
        return True

    async def collect(self, number: int) -> ReplicaReport:
        """Wait for news of a session."""
        session = self._session
        if session is None or session.number != number:
            return ReplicaReport(lost="its process was started again")
        return await session.news()

    async def stop(self) -> None:
        """End the session: give up its rows, end its backends."""
        session, self._session = self._session, None
        if session is not None:
            await session.stop()


class _Session:
    """The rows of a replica from one start to the next."""

    def __init__(
        self, number: int, backends: Mapping[str, ModelBackend], *, in_process: frozenset[str], max_live: int | None
    ) -> None:
        self.number = number
        self._meter = Meter()
        self._backends = self._meter.around(
            {name: _Watched(one, self._lose) if name in in_process else one for name, one in backends.items()}
        )
        self._max_live = max_live
        self._run_row: RunRow
        self._tasks: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._results: list[tuple[int, dict[str, Any]]] = []
        self._received = 0
        self._told = (0, Usage())
        self._lost: str | None = None
        self._error: str | None = None

    async def start(self, flow: Flow, terms: ReplicaConfig) -> None:
        """Start the backends; those that were started are ended if one cannot be."""
        try:
            for backend in self._backends.values():
                await backend.start()
        except BaseException:
            await self.stop()
            raise
        self._meter.on_room = self._news.set
        runner = Runner(backends=self._backends, functions=flow.functions)
        self._run_row = run_here(runner, flow.graph, messages=terms.messages, batch=terms.batch)
        self._news.set()  # that there is room

    def begin(self, row: Row) -> None:
        """Run a row."""
        self._received += 1
        task = asyncio.create_task(self._run(row))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, row: Row) -> None:
        try:
            result = await self._run_row(row)
        except FlowrunError as exc:
            self._error = str(exc)
        else:
            if self._lost is None:  # what ends after the model is gone may have ended because of that
                self._results.append((row.number, result))
        self._news.set()

    async def news(self) -> ReplicaReport:
        """Give what happened since the answer before, once something did."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PULSE):
                await self._news.wait()
                await asyncio.sleep(_GATHER)
        self._news.clear()
        results, self._results = self._results, []
        rounds, usage = self._told
        self._told = (self._meter.rounds, self._meter.usage)
        return ReplicaReport(
            results=results,
            room=self._room(),
            received=self._received,
            rounds=self._meter.rounds - rounds,
            usage=_minus(self._meter.usage, usage),
            lost=self._lost,
            error=self._error,
        )

    def _room(self) -> int:
        live = len(self._tasks)
        room = (self._max_live or self._meter.max_live) - live
        places = self._meter.places
        return max(0, room if places is None else min(room, places))

    def _lose(self, why: str) -> None:
        self._lost = why
        self._news.set()

    async def stop(self) -> None:
        """Give up the rows, and end the backends."""
        left = list(self._tasks)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for backend in self._backends.values():
            await backend.stop()


class _Watched(WrappedBackend):
    """A backend in this process. When it is gone, so is the replica: no row's spec can do anything about it."""

    def __init__(self, backend: ModelBackend, lose: Callable[[str], None]) -> None:
        super().__init__(backend)
        self._lose = lose

    async def reply(self, request: AskModel) -> Reply:
        """Ask the backend, and note it if it is gone."""
        try:
            return await self.backend.reply(request)
        except ModelError as exc:
            if exc.name == "backend.unavailable":
                self._lose(exc.message)
            raise


def _in_process(flow: Flow) -> frozenset[str]:
    return frozenset(name for name, bound in flow.models.items() if bound.model.backend == "vllm")


def _spell(exc: FlowrunError) -> str:
    if isinstance(exc, SpecError):
        return "; ".join(f"{issue.place}: {issue.message}" for issue in exc.issues)
    return str(exc)


def _minus(now: Usage, before: Usage) -> Usage:
    fields = Usage.__struct_fields__
    return Usage(**{name: getattr(now, name) - getattr(before, name) for name in fields})
