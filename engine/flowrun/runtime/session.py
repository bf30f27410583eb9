"""A session runs flows: it holds their engines, their functions and their journal, for many runs at once.

It belongs to one event loop, and to no flow. Engines start when a flow needs them, and stop when the session closes.
"""

import asyncio
import os
import re
import secrets
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Protocol, Self, TypeVar
from weakref import WeakKeyDictionary

import msgspec

from flowrun.core.events import Answered, Cancelled, Event, Recorded, RequestInput, Started
from flowrun.core.forking import ForkError, fork_events
from flowrun.core.graph import Graph
from flowrun.core.json_schema import compile_schema
from flowrun.core.ports import ModelBackend, Observer
from flowrun.errors import Failure, UsageError
from flowrun.functions.json_values import NotJSON, to_json
from flowrun.functions.mcp_servers import McpServers
from flowrun.functions.python import CallPool, PythonFunctions
from flowrun.journal import MemoryJournal, RunRow, SqliteJournal, Synchronous
from flowrun.journal.questions import closing_event, describe_closed, parse_question_id
from flowrun.runtime.engines import BackendSettings, Engines
from flowrun.runtime.flow_runs import FlowRuns, SpecJournal, find_pending_work
from flowrun.runtime.inbox import Inbox
from flowrun.runtime.loop import Loop
from flowrun.runtime.meter import Meter
from flowrun.runtime.project import CompiledFlow
from flowrun.runtime.run_result import (
    InputRequest,
    Resolve,
    RunResult,
    as_request,
    cancelled_result,
    failed_result,
    guard,
)
from flowrun.runtime.run_stream import RunStream, cancel_and_wait
from flowrun.runtime.runner import Runner
from flowrun.runtime.stored_flow import StoredFlow, load_stored_flow, store_flow
from flowrun.spec import mask
from flowrun.spec.model import JSON
from flowrun.telemetry import FindTracer, find_telemetry

T = TypeVar("T")

DRAIN_SECONDS: Final = 5.0

_RECORD_SECONDS: Final = 0.01
"""The time in which runs record what their functions returned, before they are cancelled."""

Wrap = Callable[[str, ModelBackend], ModelBackend]
"""Wraps a started backend, given with its name, for some runs: such as to count or to record its replies."""


class Responder(Protocol):
    """Answers the questions of runs in progress."""

    async def answer(self, request: InputRequest, /) -> JSON:
        """Return an answer that matches the schema of the question.

        Raises:
            NoResponderError: nobody can answer; the run waits.
        """


class _Responses:
    """The port ``HumanInput`` over a caller's ``Responder``, whose answers are checked."""

    def __init__(self, responder: Responder) -> None:
        self._responder = responder

    async def answer(self, effect: RequestInput, /) -> JSON:
        return check_answer(as_request(effect), await self._responder.answer(as_request(effect)))


class _Opened(NamedTuple):
    """The parts of a session that exist while it is open, in the loop in which it was opened.

    Attributes:
        memory: the journal of runs that may wait, in a session without a journal of its own.
        runs: by flow, and by whether their tokens are kept, the runs of it.
        stores: the journal as the runs of each flow write to it.
        flows: by the digests of their stored forms, the flows that were run or resumed here.
        owners: by the id of a run that has not ended, the runs of its flow.
        driven: the ids of the runs that are in progress, or about to be: their engines start.
        tasks: the work in progress.
        trace: returns what traces the runs of a flow; None if nobody receives traces.
    """

    loop: asyncio.AbstractEventLoop
    engines: Engines
    pool: CallPool
    servers: McpServers
    inbox: Inbox
    runner: Runner
    journal: SqliteJournal | None
    memory: MemoryJournal
    runs: WeakKeyDictionary[CompiledFlow, dict[bool, FlowRuns]]
    stores: list[SpecJournal]
    flows: dict[str, CompiledFlow]
    owners: dict[str, FlowRuns]
    driven: set[str]
    tasks: set[asyncio.Task[Any]]
    trace: FindTracer | None


class Session:
    """Runs flows, any number at once: ``async with Session() as session: result = await session.run(flow, inputs)``.

    All methods must be called in the event loop in which the session was opened; elsewhere they raise ``RuntimeError``.
    """

    def __init__(
        self,
        *,
        journal: str | Path | None = None,
        synchronous: Synchronous = "full",
        observers: Sequence[Observer] = (),
        human_input: Responder | None = None,
        resolve: Resolve | None = None,
        max_tools: int | None = None,
        drain: float = DRAIN_SECONDS,
        environ: Mapping[str, str] | None = None,
        project_dir: Path | None = None,
        batch: str | None = None,
        keep_waiting: bool = True,
        park: bool = False,
        locked: bool = False,
        settings: BackendSettings | None = None,
    ) -> None:
        """Bind a session to its ports. Nothing is opened or started yet.

        Args:
            journal: the SQLite file that the runs are written to, so that they survive the process. Without one, a run
                that waits lives until the session closes.
            synchronous: whether what is written to it survives a power cut, too.
            observers: observe all runs.
            human_input: answers questions as they are asked, or raises ``NoResponderError``; if None, the runs wait.
            resolve: resolves calls that were in doubt after a crash; if None, they stay in doubt.
            max_tools: the number of functions that run at once; None: no limit but that of threads.
            drain: the seconds that functions get to return when the session closes, before their runs are cancelled.
            environ: the variables for ``${VAR}`` of flows that are loaded from the journal.
            project_dir: the folder that the project of these flows was moved to; None: where it was.
            batch: a label of new runs in the journal.
            keep_waiting: without a journal, keep the runs that wait until the session closes.
            park: leave a run that sleeps, as one that waits: its status is ``sleeping``, and ``resume`` continues it.
                By default it sleeps in this process, until it goes on.
            locked: refuse models that are not those of the lock beside their spec, which ``flowrun lock`` writes.
            settings: the settings of the engines.
        """
        if max_tools is not None and max_tools < 1:
            raise UsageError(f"max_tools is {max_tools}: at least one function must be able to run")
        self._journal_path = None if journal is None else Path(journal)
        self._synchronous: Synchronous = synchronous
        self._observers = tuple(observers)
        self._human_input = human_input
        self._resolve = resolve
        self._max_tools = max_tools
        self._drain = drain
        self._environ = os.environ if environ is None else environ
        self._project_dir = project_dir
        self._batch = batch
        self._keep_waiting = keep_waiting
        self._park = park
        given = BackendSettings() if settings is None else settings
        self._settings = msgspec.structs.replace(given, locked=locked or given.locked)
        self._open: _Opened | None = None

    async def __aenter__(self) -> Self:
        """Open the journal, and bind the session to the running loop.

        Raises:
            StoreError: the journal cannot be opened.
            RuntimeError: the session is open already.
        """
        if self._open is not None:
            raise RuntimeError("the session is open already")
        inbox = Inbox(None if self._human_input is None else _Responses(self._human_input))
        path = self._journal_path
        runner = Runner(
            backends={},
            functions=PythonFunctions({}),
            human_input=inbox,
            observers=self._observers,
            resolve=self._resolve,
            park=self._park,
        )
        inbox.runner = runner
        self._open = _Opened(
            loop=asyncio.get_running_loop(),
            engines=Engines(self._settings),
            pool=CallPool(self._max_tools),
            servers=McpServers(),
            inbox=inbox,
            runner=runner,
            journal=None
            if path is None
            else SqliteJournal(path, on_signal=inbox.receive, batch=self._batch, synchronous=self._synchronous),
            memory=MemoryJournal(),
            runs=WeakKeyDictionary(),
            stores=[],
            flows={},
            owners={},
            driven=set(),
            tasks=set(),
            trace=find_telemetry(os.environ),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the session: functions get ``drain`` seconds to return, then runs are cancelled and engines stopped.

        Durable runs that have not ended can be resumed. May be called twice.
        """
        if self._open is None:
            return
        opened, self._open = self._opened("close"), None
        try:
            if opened.tasks:
                await self._drain_calls(opened)
        finally:
            try:
                tasks = list(opened.tasks)
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                opened.pool.close()
                await opened.servers.close()
                await opened.engines.stop()
            finally:
                if opened.journal is not None:
                    await opened.journal.close()

    async def drain(self) -> None:
        """Begin no further call, and give those under way ``drain`` seconds to return. The session is then closed."""
        await self._drain_calls(self._opened("drain"))

    async def _drain_calls(self, opened: _Opened) -> None:
        for store in opened.stores:
            store.drain()
        await opened.pool.drain(self._drain)
        await asyncio.sleep(_RECORD_SECONDS)

    # --- runs ---------------------------------------------------------------------------------------------------------

    async def run(
        self, flow: CompiledFlow, inputs: Mapping[str, Any] | None = None, *, run_id: str | None = None
    ) -> RunResult:
        """Run a flow until it ends, or waits for an answer. Cancelling the awaiting task cancels the run.

        Args:
            inputs: the inputs by their names; the defaults of the spec are added.
            run_id: the id of the run; by default a new one.

        Raises:
            UsageError: the inputs do not match what the spec declares.
            BackendError: an engine cannot start.
        """
        self._opened("run")
        return await self._run(flow, read_inputs(flow, inputs), as_run_id(run_id), None)

    def stream(
        self, flow: CompiledFlow, inputs: Mapping[str, Any] | None = None, *, run_id: str | None = None
    ) -> RunStream:
        """Return a run to use as ``async with session.stream(...) as run``, and to iterate for its events.

        Leaving the block cancels the run. For the arguments and errors see ``run``.
        """
        self._opened("stream")
        checked, new_id = read_inputs(flow, inputs), as_run_id(run_id)
        return RunStream(new_id, lambda observer: self._run(flow, checked, new_id, observer))

    async def batch(
        self, flow: CompiledFlow, rows: Iterable[Mapping[str, Any]], *, max_live: int | None = None
    ) -> AsyncGenerator[RunResult, None]:
        """Run a flow for each row of inputs, and yield the results as the runs end; ``row`` of a result is its number.

        A failure in one row, such as inputs that do not match, is the result of that row. For files of results that can
        be interrupted and continued, use ``flowrun batch``.

        Args:
            max_live: the number of runs at once; by default as many as keep the models busy.

        Raises:
            BackendError: an engine cannot start.
        """
        self._opened("batch")
        if max_live is not None and max_live < 1:
            raise UsageError(f"max_live is {max_live}: at least one run must be able to be live")
        meter = Meter()
        runs = await self._outcome_of(self._begin(self.runs_of(flow, wrap=meter.wrap)))
        live = max_live or meter.max_live
        results: asyncio.Queue[RunResult | None] = asyncio.Queue()
        unread = asyncio.Semaphore(live)  # a caller who reads slowly holds up the batch, not the memory

        async def run_row(item: tuple[int, Mapping[str, Any]]) -> None:
            number, row = item
            result = await self._run_row(runs, row)
            await unread.acquire()
            results.put_nowait(msgspec.structs.replace(result, row=number))

        running = self._begin(Loop(run_row, meter, max_live=live).run(enumerate(rows)))
        running.add_done_callback(lambda _: results.put_nowait(None))
        try:
            while (result := await results.get()) is not None:
                unread.release()
                yield result
            await self._outcome_of(running)
        finally:
            await cancel_and_wait(running)

    async def answer(self, request_id: str, value: Any) -> None:
        """Answer a question of a run. A run that waits continues with ``resume``.

        A run in progress, here or in another process, reads the answer once its other branches have ended or wait too.

        Args:
            request_id: the ``id`` of an ``InputRequest``, such as those of ``RunResult.pending``.

        Raises:
            UsageError: the question is not open, was answered already, or the value does not match its schema.
        """
        opened = self._opened("answer")
        run, *_ = parse_question_id(request_id)
        top, graph = self._find_run(run)
        journal = opened.journal
        records = opened.memory.records
        events_of = journal.history.events if journal is not None else lambda name: records.get(name, [])
        sent = False
        while not sent:  # until no event came between looking and sending
            known = events_of(run)
            pending = find_pending_work(graph, top, events_of)
            request = next((ask for ask in pending.waiting if ask.id == request_id), None)
            if request is None:
                raise UsageError(_not_open(request_id, known, f"run {top} is {pending.run.status}"))
            event = Answered(step=request.step, index=request.index, value=check_answer(as_request(request), value))
            sent = await (journal or opened.memory).signal(run, event, seen=len(known))
        opened.inbox.receive(run, event)

    async def resume(self, run_id: str, *, resolve: Resolve | None = None) -> RunResult:
        """Resume a run after its last event, with the spec that it started with, until it ends or waits.

        The tokens of its replies are kept if the session keeps those of all runs, or if it began so.

        Args:
            resolve: resolves the run's calls that are in doubt; if None, that of the session does.

        Raises:
            UsageError: there is no such run, it has ended, or it is in progress.
            SpecError: the spec of the run cannot run any more.
        """
        opened = self._opened("resume")
        row = None if opened.journal is None else _open_row(opened.journal, run_id)
        top = run_id if row is None else row.id
        with self._driving(top):
            runs = await self._runs_to_resume(top, row)
            return await self._drive(runs, top, runs.resume(top, resolve=resolve))

    async def fork(
        self,
        run_id: str,
        *,
        at: int,
        inputs: Mapping[str, Any] | None = None,
        flow: CompiledFlow | None = None,
        new_id: str | None = None,
    ) -> RunResult:
        """Begin a run from the events of another run of the journal up to a step, and go on from there.

        What the other run did before that step is not done again; what it did from there on is not known to the fork.

        Args:
            at: the step, as ``flowrun show`` numbers them, from 1.
            inputs: inputs that replace those of the other run.
            flow: the flow to go on with; None: the one that the other run started with.
            new_id: the id of the new run; by default a new one.

        Raises:
            UsageError: the run has no such step, or with these inputs or this flow it takes another path before it.
            SpecError: the spec of the run cannot run any more.
        """
        history = self.journal.history
        row = history.run(run_id)
        if row.parent is not None:
            raise UsageError(f"run {run_id} is a child of run {row.parent}: fork that one")
        new_id = as_run_id(new_id)
        if flow is None:
            flow = self._stored_flow(row)
            old = flow.graph
        else:
            old = self._stored_graph(row)
        recorded = [one.event for one in history.events(row.id)]
        begun = _start_of(recorded)
        given = None if inputs is None else read_inputs(flow, {**begun.inputs, **inputs})
        try:
            forked = fork_events(old, flow.graph, recorded, run=new_id, step=at, inputs=given)
        except ForkError as exc:
            raise UsageError(f"run {row.id} cannot be forked at step {at}: {exc}") from exc
        with self._driving(new_id):
            work = self.runs_of(flow, keeps_tokens=begun.keeps_tokens)
            runs = await self._outcome_of(self._begin(work))
            return await self._drive(runs, new_id, runs.begin_fork(new_id, forked))

    async def cancel(self, run_id: str, *, reason: str = "") -> RunResult | None:
        """Cancel a run: its status is then ``cancelled``, and it cannot be resumed.

        Return its result; None if the run is in progress, here or in another process, where it ends soon.

        Raises:
            UsageError: there is no such run, or it has ended.
        """
        opened = self._opened("cancel")
        event = Cancelled(reason=reason)
        if opened.runner.deliver(run_id, event):
            return None
        if run_id in opened.driven:  # its engines start, or it is being read
            opened.inbox.receive(run_id, event)
            return None
        if opened.journal is None:
            runs = self._owner_of(run_id)
            return await self._drive(runs, run_id, runs.resume(run_id, then=event))
        row = _open_row(opened.journal, run_id)
        if row.holder is not None:
            await opened.journal.signal(row.id, event)
            return None
        journal = SpecJournal(opened.journal, row.spec)
        runs = FlowRuns(opened.runner.using(journal=journal), self._find_run(row.id)[1], journal, opened.inbox)
        return await self._drive(runs, row.id, runs.resume(row.id, then=event))

    async def runs_of(self, flow: CompiledFlow, *, wrap: Wrap | None = None, keeps_tokens: bool = False) -> FlowRuns:
        """Return the runs of a flow, with its engines started.

        Args:
            wrap: wraps the backends for the runs that start by the returned object.
            keeps_tokens: keep the tokens of their replies, also if the session keeps none.

        Raises:
            BackendError: an engine cannot start, or gives no tokens that are to be kept.
        """
        opened = self._opened("runs_of")
        keeps_tokens = keeps_tokens or self._settings.keeps_tokens
        known = opened.runs.setdefault(flow, {})
        if keeps_tokens in known and known[keeps_tokens].has_failed:
            del known[keeps_tokens]
        if wrap is None and keeps_tokens in known:
            return known[keeps_tokens]
        backends = await opened.engines.start_for(flow, keeps_tokens=keeps_tokens)
        hidden = flow.secrets  # the functions must not keep the flow: its engines stop when nobody refers to it
        masked = partial(mask, secrets=hidden)
        await opened.servers.start_for(flow.servers, masked)
        of_servers = opened.servers.functions_of(flow.servers, masked)
        functions = PythonFunctions({**flow.functions, **of_servers}, opened.pool, mask=masked)
        journal: SpecJournal | MemoryJournal | None = None
        may_stop = flow.states_that_wait or self._park
        if opened.journal is None and may_stop and self._keep_waiting:
            journal = opened.memory
        elif opened.journal is not None:
            stored = store_flow(flow)
            opened.journal.store_spec(stored.digest, msgspec.json.encode(stored).decode())
            opened.flows[stored.digest] = flow
            journal = SpecJournal(opened.journal, stored.digest)
            opened.stores.append(journal)
        wrapped = backends if wrap is None else {name: wrap(name, backend) for name, backend in backends.items()}
        ports: dict[str, Any] = {"backends": wrapped, "functions": functions, "journal": journal}
        if opened.trace is not None:
            models = {name: None if name in flow.backends else bound.model for name, bound in flow.models.items()}
            ports["tracer"] = opened.trace(models, hidden)
        runner = opened.runner.using(**ports, origin=flow.origin, keeps_tokens=keeps_tokens, secrets=hidden)
        ends_servers = any(bound.server.per_run for bound in flow.servers.values())
        runs = FlowRuns(
            runner, flow.graph, journal, opened.inbox, after=opened.servers.end_run if ends_servers else None
        )
        return runs if wrap is not None else known.setdefault(keeps_tokens, runs)

    @property
    def journal(self) -> SqliteJournal:
        """Return the open journal.

        Raises:
            RuntimeError: the session is not open, or has no journal.
        """
        journal = self._opened("journal").journal
        if journal is None:
            raise RuntimeError("the session has no journal")
        return journal

    # --- parts --------------------------------------------------------------------------------------------------------

    async def _run(
        self, flow: CompiledFlow, inputs: dict[str, JSON], run_id: str, observer: Observer | None
    ) -> RunResult:
        opened = self._opened("run")
        if run_id in opened.owners:
            raise UsageError(f"there is a run {run_id} in this session already")
        with self._driving(run_id):
            runs = await self._outcome_of(self._begin(self.runs_of(flow)))
            if (cancelled := opened.inbox.cancellation_of(run_id)) is not None:
                return cancelled_result(run_id, cancelled.reason, runs.origin)
            return await self._drive(runs, run_id, runs.start(inputs, run_id, observer=observer))

    async def _run_row(self, runs: FlowRuns, row: Mapping[str, Any]) -> RunResult:
        """Run a row of a batch; inputs that have no JSON form, and bugs, are failures of this row."""
        run_id = new_run_id()
        try:
            inputs = as_json(dict(row), "a row")
        except (UsageError, TypeError, ValueError) as exc:
            return failed_result(run_id, Failure(name="input.invalid", message=str(exc)), runs.origin)
        driving = self._drive(runs, run_id, runs.start(inputs, run_id))
        return await guard(f"run {run_id}", driving, run_id=run_id, origin=runs.origin)

    async def _drive(self, runs: FlowRuns, run_id: str, work: Coroutine[Any, Any, RunResult]) -> RunResult:
        """Drive a run in a task of the session. Until it has ended, its owner is known."""
        opened = self._opened("run")
        opened.owners[run_id] = runs
        result: RunResult | None = None
        try:
            result = await self._outcome_of(self._begin(work))
        finally:
            if result is None or result.run.outcome is not None or not runs.can_resume:
                opened.owners.pop(run_id, None)
                opened.memory.forget(run_id)
        return result

    @contextmanager
    def _driving(self, run_id: str) -> Iterator[None]:
        """Reserve a run's id, from before its engines start until it has ended or waits.

        Raises:
            UsageError: the run is in progress in this session.
        """
        opened = self._opened("run")
        if run_id in opened.driven:
            raise UsageError(f"run {run_id} is in progress in this session")
        opened.driven.add(run_id)
        try:
            yield
        finally:
            opened.driven.discard(run_id)
            if run_id not in opened.owners:
                opened.inbox.forget(opened.inbox.signals(run_id))

    def _begin(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Begin work in a task that the closing of the session cancels."""
        tasks = self._opened("run").tasks
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return task

    async def _outcome_of(self, task: "asyncio.Task[T]") -> T:
        """Await a task of the session; cancelling the caller cancels it too."""
        try:
            return await task
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if self._open is None and caller is not None and not caller.cancelling():
                raise RuntimeError("the session was closed while the run was in progress") from None
            raise

    async def _runs_to_resume(self, run_id: str, row: RunRow | None) -> FlowRuns:
        """Return the runs by which a run goes on: those that it started with, unless an engine of theirs has ended.

        Args:
            row: that of the run; None: the session has no journal.

        Raises:
            UsageError: no such run waits.
        """
        opened = self._opened("resume")
        owner = self._owner_of(run_id) if row is None else opened.owners.get(run_id)
        if owner is not None and not owner.has_failed:
            return owner
        if row is not None:
            flow, events = self._stored_flow(row), self.journal.history.events(run_id)
        else:
            assert owner is not None
            known = [flow for flow in opened.runs if flow.graph is owner.graph]
            if not known:  # nobody refers to the flow any more
                return owner
            flow, events = known[0], opened.memory.records[run_id]
        begun = _start_of(one.event for one in events)
        return await self._outcome_of(self._begin(self.runs_of(flow, keeps_tokens=begun.keeps_tokens)))

    def _owner_of(self, run_id: str) -> FlowRuns:
        owner = self._opened("resume").owners.get(run_id)
        if owner is None:
            raise UsageError(f"no run {run_id} waits in this session, which has no journal")
        return owner

    def _find_run(self, run_id: str) -> tuple[str, Graph]:
        """Return the id of the top run of a run, and its graph."""
        opened = self._opened("answer")
        if opened.journal is None:
            top = run_id
            while (parent := opened.memory.parents.get(top)) is not None:
                top = parent
            return top, self._owner_of(top).graph
        row = opened.journal.history.top_run(run_id)
        return row.id, self._stored_graph(row)

    def _stored_flow(self, row: RunRow) -> CompiledFlow:
        """Return the flow that a run started with, to run."""
        flows = self._opened("resume").flows
        if row.spec not in flows:
            flows[row.spec] = self._load_stored(row).prepare(self._environ)
        return flows[row.spec]

    def _stored_graph(self, row: RunRow) -> Graph:
        """Return the graph of the flow that a run started with; its functions need not be there."""
        known = self._opened("answer").flows.get(row.spec)
        return (known or self._load_stored(row).prepare_to_show(self._environ)).graph

    def _load_stored(self, row: RunRow) -> StoredFlow:
        return load_stored_flow(self.journal.history, row, self._project_dir)

    def _opened(self, method: str) -> _Opened:
        if self._open is None:
            raise RuntimeError(f"Session.{method}: the session is not open: use it in `async with`")
        try:
            loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is not self._open.loop:
            raise RuntimeError(
                f"Session.{method} was called from another event loop or thread than the one that opened the session"
            )
        return self._open


def _open_row(journal: SqliteJournal, run_id: str) -> RunRow:
    """Return the row of a run that has not ended, the top one of its family.

    Raises:
        UsageError: there is no such run, or it has ended.
    """
    row = journal.history.top_run(run_id)
    if row.ended is not None:
        raise UsageError(f"run {row.id} has ended: {row.status}")
    return row


def _start_of(recorded: Iterable[Event]) -> Started:
    """Return the start of a run; one without inputs if nothing is recorded."""
    return next((event for event in recorded if isinstance(event, Started)), Started(run="", inputs={}))


def check_answer(request: InputRequest, value: Any) -> JSON:
    """Return an answer as JSON.

    Raises:
        UsageError: it has no JSON form, or does not match the schema of the question.
    """
    answer: JSON = as_json(value, f"the answer to {request.id}")
    if wrong := compile_schema(request.schema)(answer):
        raise UsageError(f"the answer to {request.id} is not what state {request.state} asks for: {wrong}")
    return answer


def as_run_id(run_id: str | None) -> str:
    """Return the id of a run, a new one if it is None. A dot would make it the child of another run.

    Raises:
        UsageError: it holds characters that ids may not have.
    """
    if run_id is not None and not re.fullmatch(r"[A-Za-z0-9_-]{1,100}", run_id):
        raise UsageError(f"run_id {run_id!r}: an id has up to 100 letters, digits, - and _")
    return new_run_id() if run_id is None else run_id


def _not_open(request_id: str, events: Sequence[Recorded], status: str) -> str:
    """Say why a question accepts no answer."""
    _, step, index = parse_question_id(request_id)
    closing = closing_event((one.event for one in events), step, index)
    return describe_closed(request_id, closing) if closing else f"the question {request_id} is not open: {status}"


def new_run_id() -> str:
    """Return a new id of a run, 12 hexadecimal digits."""
    return secrets.token_hex(6)


def read_inputs(flow: CompiledFlow, inputs: Mapping[str, Any] | None) -> dict[str, JSON]:
    """Return inputs as JSON, checked.

    Raises:
        UsageError: they do not match what the spec declares.
    """
    if inputs is not None and not isinstance(inputs, Mapping):
        raise UsageError(f"the inputs must be a mapping of names to values, and are {inputs!r}")
    values: dict[str, JSON] = as_json({} if inputs is None else dict(inputs), "the inputs")
    if (wrong := flow.graph.inputs(flow.spec.add_defaults(values))) is not None:
        raise UsageError(f"the inputs do not match what {flow.path} declares: {wrong}")
    return values


def as_json(value: Any, what: str) -> Any:
    """Return a copy of a value as JSON.

    Args:
        what: names the value in the error.

    Raises:
        UsageError: the value has no JSON form.
    """
    try:
        return to_json(value)
    except NotJSON as exc:
        raise UsageError(f"{what}: {exc}") from exc
