"""Durable runs: they resume after their last event, and other processes can answer and cancel them."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from flowrun.core.events import Answered, CallFunction, Cancelled, Recorded, RequestInput, StartChild
from flowrun.core.graph import Graph
from flowrun.core.machine import Run
from flowrun.core.ports import HumanInput, ModelBackend, Observer
from flowrun.core.recovery import recover
from flowrun.errors import UsageError
from flowrun.journal import SqliteJournal
from flowrun.runtime.backends import BackendSettings, make_backends, started
from flowrun.runtime.inbox import Inbox
from flowrun.runtime.prepare import Flow
from flowrun.runtime.runner import Resolve, Result, Runner, child_id
from flowrun.runtime.stored_flow import StoredFlow
from flowrun.spec.model import JSON


class PendingWork(msgspec.Struct, frozen=True, kw_only=True):
    """A run with the open questions and the in-doubt calls of it and its children."""

    run: Run
    waits: tuple[RequestInput, ...] = ()
    in_doubt: tuple[CallFunction, ...] = ()


def find_pending_work(graph: Graph, run_id: str, events_of: Callable[[str], Sequence[Recorded]]) -> PendingWork:
    """Recover a run and its children from their events in the journal, and return their pending work.

    Args:
        events_of: returns the recorded events of a run by its id.
    """
    run, effects, calls = recover(graph, (one.event for one in events_of(run_id)))
    waits = [effect for effect in effects if isinstance(effect, RequestInput)]
    in_doubt = list(calls)
    for effect in effects:
        if isinstance(effect, StartChild):
            child = find_pending_work(graph.flows[effect.flow], child_id(run_id, effect), events_of)
            waits += child.waits
            in_doubt += child.in_doubt
    return PendingWork(run=run, waits=tuple(waits), in_doubt=tuple(in_doubt))


class DurableRuns:
    """Drives the durable runs of one flow in this process."""

    def __init__(self, runner: Runner, graph: Graph, journal: SqliteJournal, inbox: Inbox) -> None:
        """Bind the runs of a flow to their runner, journal and inbox.

        Args:
            runner: writes to ``journal``, and requests answers from ``inbox``.
            inbox: receives the signals that the journal finds for runs of this process.
        """
        self.journal = journal
        self.inbox = inbox
        self._runner = runner
        self._graph = graph
        inbox.runner = runner

    async def start(self, inputs: Mapping[str, JSON], run_id: str) -> Result:
        """Start a run, and drive it until it ends, waits or needs attention."""
        return await self._settle(run_id, await self._runner.run(self._graph, inputs, run_id=run_id))

    async def answer(self, run: str, event: Answered) -> None:
        """Write an answer to the inbox, and deliver it to the run if this process drives it."""
        await self.journal.signal(run, event)
        self.inbox.receive(run, event)

    async def resume(self, run_id: str, *, then: Cancelled | None = None) -> Result:
        """Resume a run after its last event, and drive it until it ends, waits or needs attention.

        Args:
            then: applied to the run before anything else.

        Raises:
            UsageError: there is no such run, or another process drives it.
        """
        if held := await self.journal.take([run_id]):
            holder = held[0].holder
            raise UsageError(f"run {run_id} is being driven by process {holder.pid} on {holder.host}")
        then = then or self.inbox.cancellation_of(run_id)
        return await self._settle(run_id, await self._runner.resume(self._graph, run_id, then=then))

    async def _settle(self, run_id: str, result: Result) -> Result:
        """Release a run that has not ended; if a signal came in meanwhile, resume it and try again."""
        while result.run.outcome is None and not await self.journal.release(run_id):
            then = await self.inbox.next_for(run_id)
            seen = self.inbox.signals(run_id)
            result = await self._runner.resume(self._graph, run_id, then=then)
            await self.journal.discard(seen)  # those that the run did not use came too late, or twice
            self.inbox.forget(seen)
        self.inbox.forget(self.inbox.signals(run_id))
        return result


@asynccontextmanager
async def open_durable_runs(
    flow: Flow,
    stored: StoredFlow,
    journal: Path,
    *,
    settings: BackendSettings,
    human_input: HumanInput | None = None,
    observers: Sequence[Observer] = (),
    resolve: Resolve | None = None,
    batch: str | None = None,
    around: Callable[[Mapping[str, ModelBackend]], dict[str, ModelBackend]] = dict,
) -> AsyncIterator[DurableRuns]:
    """Start a flow's backends and open its journal; close both at the end.

    Args:
        stored: the flow in the form that the journal stores with each run.
        human_input: answers questions for which no signal has come in; if None, the runs wait.
        resolve: resolves calls that were in doubt after a crash; if None, they stay in doubt.
        batch: the batch that new runs belong to.
        around: wraps the backends before they are started.
    """
    backends = around(make_backends(flow, settings))
    inbox = Inbox(human_input)
    async with SqliteJournal(journal, on_signal=inbox.receive, batch=batch) as opened:
        opened.store_spec(stored.digest, msgspec.json.encode(stored).decode())
        async with started(backends):
            runner = Runner(
                backends=backends,
                functions=flow.functions,
                human_input=inbox,
                journal=opened,
                observers=observers,
                resolve=resolve,
            )
            yield DurableRuns(runner, flow.graph, opened, inbox)
