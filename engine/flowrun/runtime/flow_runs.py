"""The runs of one flow in a session. With a journal they resume, and can be answered and cancelled from outside."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from flowrun.backends.wrapper import failure_of
from flowrun.core.events import CallStarted, Cancelled, Event, Recorded, RequestInput, Sleep, StartChild
from flowrun.core.forking import ForkedEvent
from flowrun.core.graph import Graph
from flowrun.core.ports import Observer
from flowrun.core.recovery import recover
from flowrun.errors import UsageError
from flowrun.journal import MemoryJournal, SqliteJournal
from flowrun.journal.questions import closing_event
from flowrun.runtime.inbox import Inbox
from flowrun.runtime.origin import Origin
from flowrun.runtime.run_result import InputRequest, Resolve, RunResult
from flowrun.runtime.runner import Runner
from flowrun.runtime.timers import end_of_sleep
from flowrun.spec.model import JSON


def find_pending_work(graph: Graph, run_id: str, events_of: Callable[[str], Sequence[Recorded]]) -> RunResult:
    """Recover a run and its children from their events in the journal, and return their pending work.

    Args:
        events_of: returns the recorded events of a run by its id.
    """
    recorded = events_of(run_id)
    found = recover(graph, (one.event for one in recorded), (one.at for one in recorded))
    waiting = [effect for effect in found.effects if isinstance(effect, RequestInput)]
    in_doubt = list(found.in_doubt)
    wakes = [end_of_sleep(effect, found) for effect in found.effects if isinstance(effect, Sleep)]
    for effect in found.effects:
        if isinstance(effect, StartChild):
            child = find_pending_work(graph.flows[effect.flow], effect.child_id(run_id), events_of)
            waiting += child.waiting
            in_doubt += child.in_doubt
            wakes += [] if child.wakes is None else [child.wakes]
    return RunResult(run=found.run, waiting=tuple(waiting), in_doubt=tuple(in_doubt), wakes=min(wakes, default=None))


def unanswered(result: RunResult, inbox_of: Callable[[str], Iterable[Event]]) -> list[InputRequest]:
    """Return the questions that a run waits for, but those whose answer it has only not read yet.

    Args:
        inbox_of: returns the answers and cancellations that came in for a run by its id and that it has not read.
    """
    return [
        ask
        for ask, effect in zip(result.pending, result.waiting, strict=True)
        if closing_event(inbox_of(ask.run), effect.step, effect.index) is None
    ]


class SpecJournal:
    """The port ``Journal`` for the runs of one stored flow, in a journal that holds the runs of several."""

    def __init__(self, journal: SqliteJournal, digest: str) -> None:
        self.append: Callable[..., Awaitable[None]] = journal.append
        self.append_all = journal.append_all
        self.close_question = journal.close_question
        self.mark = journal.mark
        self.events = journal.events
        self.take = journal.take
        self.release = journal.release
        self.discard = journal.discard
        self._register = partial(journal.register, spec=digest)

    def register(self, run: str, *, flow: str, parent: str | None) -> None:
        """Register a run of the flow. See ``ports.Journal.register``."""
        self._register(run, flow=flow, parent=parent)

    def drain(self) -> None:
        """Hold the start of further calls, so that none is in doubt that was not begun: the session is closing."""
        append = self.append

        async def append_or_hold(run: str, event: Event, **place: Any) -> None:
            if isinstance(event, CallStarted):
                await asyncio.get_running_loop().create_future()  # its run is about to be cancelled
            await append(run, event, **place)

        self.append = append_or_hold


class FlowRuns:
    """Drives the runs of one flow in this process.

    Args:
        runner: writes to ``journal``, and requests answers from ``inbox``.
        journal: None if the runs cannot wait and need not survive the process.
        inbox: receives the signals for runs of this process.
        after: called when this process no longer drives a run, with its id.
    """

    def __init__(
        self,
        runner: Runner,
        graph: Graph,
        journal: SpecJournal | MemoryJournal | None = None,
        inbox: Inbox | None = None,
        after: Callable[[str], Awaitable[None]] | None = None,
    ) -> None:
        self.graph = graph
        self._runner = runner
        self._journal = journal
        self._inbox = Inbox() if inbox is None else inbox
        self._after = after

    @property
    def origin(self) -> Origin | None:
        """What made the results of the runs."""
        return self._runner.origin

    @property
    def has_failed(self) -> bool:
        """Return whether an engine that the runs ask has ended."""
        return any(failure_of(backend) is not None for backend in self._runner.backends.values())

    @property
    def can_resume(self) -> bool:
        """Return whether a run that waits can be resumed."""
        return self._journal is not None

    async def start(
        self, inputs: Mapping[str, JSON], run_id: str, *, observer: Observer | None = None, seed: int | None = None
    ) -> RunResult:
        """Start a run, and drive it until it ends, waits or needs attention.

        Args:
            inputs: the inputs of the caller; the defaults of the spec are added.
            observer: observes this run and its children only.
            seed: what the seeds of its requests are made of.
        """
        runner = self._runner
        if observer is not None:
            runner = runner.using(observers=(*runner.observers, observer))
        if self._after is not None:
            return await self._followed(run_id, self._start(inputs, run_id, runner, seed))
        return await self._start(inputs, run_id, runner, seed)

    async def _start(self, inputs: Mapping[str, JSON], run_id: str, runner: Runner, seed: int | None) -> RunResult:
        result = await runner.run(self.graph, inputs, run_id=run_id, seed=seed)
        return result if self._journal is None else await self._settle(run_id, result, runner)

    async def _followed(self, run_id: str, driving: Awaitable[RunResult]) -> RunResult:
        assert self._after is not None
        try:
            return await driving
        finally:
            await self._after(run_id)

    async def resume(self, run_id: str, *, then: Cancelled | None = None, resolve: Resolve | None = None) -> RunResult:
        """Resume a run after its last event, and drive it until it ends, waits or needs attention.

        Args:
            then: applied to the run before anything else.
            resolve: resolves calls that were in doubt after a crash; if None, that of the session does.

        Raises:
            UsageError: there is no such run, or another process drives it.
        """
        if self._journal is None:
            raise UsageError(f"run {run_id} is over: without a journal, only a run that waits can be resumed")
        if held := await self._journal.take([run_id]):
            holder = held[0].holder
            raise UsageError(f"run {run_id} is being driven by process {holder.pid} on {holder.host}")
        then = then or self._inbox.cancellation_of(run_id)
        runner = self._runner if resolve is None else self._runner.using(resolve=resolve)
        driving = self._resume(run_id, then, runner)
        return await (driving if self._after is None else self._followed(run_id, driving))

    async def _resume(self, run_id: str, then: Cancelled | None, runner: Runner) -> RunResult:
        return await self._settle(run_id, await runner.resume(self.graph, run_id, then=then), runner)

    async def begin_fork(self, run_id: str, forked: Sequence[ForkedEvent]) -> RunResult:
        """Write the events of a fork to the journal, all or none, and drive it on from there."""
        journal = self._journal
        assert isinstance(journal, SpecJournal)
        journal.register(run_id, flow=self.graph.spec.name, parent=None)
        await journal.append_all(run_id, [(event, run.state, run.status) for event, run in forked])
        last, now = forked[-1].run, self._runner.now()
        if last.outcome is None:
            return await self.resume(run_id)
        return RunResult(run=last, began=now, ended=now, origin=self._runner.origin)

    async def _settle(self, run_id: str, result: RunResult, runner: Runner) -> RunResult:
        """Release a run that has not ended; if a signal came in meanwhile, resume it and try again."""
        journal = self._journal
        assert journal is not None
        while result.run.outcome is None and not await journal.release(run_id):
            then = await self._inbox.next_for(run_id)
            seen = self._inbox.signals(run_id)
            result = await runner.resume(self.graph, run_id, then=then)
            await journal.discard(seen)  # those that the run did not use came too late, or twice
            self._inbox.forget(seen)
        self._inbox.forget(self._inbox.signals(run_id))
        if isinstance(journal, MemoryJournal) and result.run.outcome is not None:
            journal.forget(run_id)
        return result
