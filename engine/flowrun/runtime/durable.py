"""Durable runs: begun, taken up where they stood, answered and cancelled from outside.

What a run began with is kept with it, so that it goes on with the same spec whatever became of the file since.
"""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from flowrun.core.events import Answered, CallFunction, Cancelled, Event, Recorded, RequestInput, StartChild
from flowrun.core.graph import Graph
from flowrun.core.machine import Run
from flowrun.core.machine.recovery import recover
from flowrun.core.ports import HumanInput
from flowrun.errors import FlowrunError, NoResponderError, UsageError
from flowrun.journal import SqliteJournal
from flowrun.runtime.prepare import Flow, prepare_flow
from flowrun.runtime.runner import Result, Runner, child_id
from flowrun.runtime.snapshot import Snapshot, take_snapshot
from flowrun.spec.model import JSON


class StoredFlow(msgspec.Struct, frozen=True, kw_only=True):
    """A flow as a run began with it, and where it lay: there its functions and its model's files still are."""

    path: str
    project_dir: str | None
    snapshot: Snapshot

    @property
    def digest(self) -> str:
        """Give what the journal knows it by."""
        place: list[object] = [self.path, self.project_dir, self.snapshot.digest]
        if self.snapshot.variables:
            place.append(sorted(self.snapshot.variables.items()))
        return hashlib.sha256(msgspec.json.encode(place)).hexdigest()

    def prepare(
        self,
        environ: Mapping[str, str],
        *,
        require_environment: bool = True,
        imports: bool = True,
        max_calls: int | None = None,
    ) -> Flow:
        """Prepare the flow as it was; without ``imports`` to be looked at, not to be run.

        Raises:
            SpecError: it cannot run any more, such as with the functions that there are today.
        """
        return self._prepare(
            self.snapshot.environment(environ),
            require_environment=require_environment,
            imports=imports,
            max_calls=max_calls,
            snapshot=self.snapshot,
        )

    def prepare_as_it_is_now(self, environ: Mapping[str, str]) -> Flow:
        """Prepare the flow from its files as they are now. Raises as ``prepare_flow`` does."""
        return self._prepare(environ, require_environment=False)

    def _prepare(self, environ: Mapping[str, str], **how: Any) -> Flow:
        project_dir = None if self.project_dir is None else Path(self.project_dir)
        profile = self.snapshot.profile
        return prepare_flow(Path(self.path), profile=profile, project_dir=project_dir, environ=environ, **how)

    def what_changed(self, environ: Mapping[str, str]) -> str | None:
        """Say what became of the flow's files since, or None if nothing that matters did."""
        try:
            flow = self.prepare_as_it_is_now(environ)
        except FlowrunError as exc:
            return f"{self.path} cannot be used any more ({exc})"
        now = take_snapshot(flow.tree, flow.graph, profile=self.snapshot.profile)
        return None if now.digest == self.snapshot.digest else f"{self.path} has changed since"


def store_flow(flow: Flow, path: Path, *, profile: str | None, project_dir: Path | None) -> StoredFlow:
    """Give a flow that was prepared from ``path`` in the form that is kept with its runs."""
    return StoredFlow(
        path=str(path.resolve()),
        project_dir=None if project_dir is None else str(project_dir.resolve()),
        snapshot=take_snapshot(flow.tree, flow.graph, profile=profile),
    )


class PendingWork(msgspec.Struct, frozen=True, kw_only=True):
    """Where a run stands, with its children: what it waits for, and the calls of it that are in doubt."""

    run: Run
    waits: tuple[RequestInput, ...] = ()
    doubts: tuple[CallFunction, ...] = ()


def find_pending_work(graph: Graph, run_id: str, events_of: Callable[[str], Sequence[Recorded]]) -> PendingWork:
    """Find where a run stands from what the journal holds of it and its children."""
    run, effects, doubts = recover(graph, (one.event for one in events_of(run_id)))
    waits = [effect for effect in effects if isinstance(effect, RequestInput)]
    doubtful = list(doubts)
    for effect in effects:
        if isinstance(effect, StartChild):
            child = find_pending_work(graph.flows[effect.flow], child_id(run_id, effect), events_of)
            waits += child.waits
            doubtful += child.doubts
    return PendingWork(run=run, waits=tuple(waits), doubts=tuple(doubtful))


class Inbox:
    """What other processes have for the runs of this one: it interrupts a run, or is there when the run asks.

    As ``People`` it gives the answers that came; whoever sits at the terminal is asked for the others.
    """

    def __init__(self, people: HumanInput | None = None) -> None:
        self.runner: Runner | None = None
        self._people = people
        self._events: defaultdict[str, list[Event]] = defaultdict(list)
        self._news = asyncio.Event()

    def receive(self, run: str, event: Event) -> None:
        """Take in what another process has for a run."""
        self._events[run].append(event)
        if self.runner is not None:
            self.runner.deliver(run, event)
        self._news.set()

    async def answer(self, effect: RequestInput) -> JSON:
        """Give an answer that has come in, or ask. See ``ports.People.answer``."""
        for event in self._events.get(effect.run, ()):
            if isinstance(event, Answered) and event.step == effect.step:
                return event.value
        if self._people is None:
            raise NoResponderError
        return await self._people.answer(effect)

    async def next_for(self, run: str) -> Cancelled | None:
        """Wait until something has come in for a run or a child of it; give its cancellation, if it is one."""
        while not any(self._events[name] for name in self._family(run)):
            self._news.clear()
            await self._news.wait()
        return self.cancellation_of(run)

    def cancellation_of(self, run: str) -> Cancelled | None:
        """Give the cancellation of a run, if one has come in."""
        return next((event for event in self._events.get(run, ()) if isinstance(event, Cancelled)), None)

    def forget(self, run: str) -> None:
        """Drop what had come in for a run and its children."""
        for name in self._family(run):
            del self._events[name]

    def _family(self, run: str) -> list[str]:
        return [name for name in self._events if name == run or name.startswith(f"{run}.")]


class DurableRuns:
    """Drives the durable runs of one flow in this process."""

    def __init__(self, runner: Runner, graph: Graph, journal: SqliteJournal, mailbox: Inbox) -> None:
        """Keep what is needed: ``runner`` writes to ``journal`` and asks ``mailbox``, which the journal tells."""
        self._runner = runner
        self._graph = graph
        self._journal = journal
        self._mailbox = mailbox
        mailbox.runner = runner

    async def start(self, inputs: Mapping[str, JSON], run_id: str) -> Result:
        """Begin a run, and drive it until it ends, waits or needs attention."""
        return await self._settle(run_id, await self._runner.run(self._graph, inputs, run_id=run_id))

    async def go_on(self, run_id: str, *, then: Cancelled | None = None) -> Result:
        """Take a run up where it stood, and drive it on.

        Raises:
            UsageError: there is no such run, or another process drives it.
        """
        if held := await self._journal.take([run_id]):
            holder = held[0].holder
            raise UsageError(f"run {run_id} is being driven by process {holder.pid} on {holder.host}")
        then = then or self._mailbox.cancellation_of(run_id)
        return await self._settle(run_id, await self._runner.resume(self._graph, run_id, then=then))

    async def _settle(self, run_id: str, result: Result) -> Result:
        """Let go of a run that is not over, unless something for it came in just then."""
        while result.run.outcome is None and not await self._journal.release(run_id):
            then = await self._mailbox.next_for(run_id)
            again = await self._runner.resume(self._graph, run_id, then=then)
            if again == result:  # it came too late, or twice
                await self._journal.discard(run_id)
                self._mailbox.forget(run_id)
            result = again
        self._mailbox.forget(run_id)
        return result


__all__ = ["DurableRuns", "Inbox", "PendingWork", "StoredFlow", "find_pending_work", "store_flow"]
