"""One run in progress: its state, its pending effects, and its deadlines. Decides nothing."""

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import Final, NamedTuple, assert_never

from flowrun.core.events import (
    Answered,
    AskModel,
    CallFunction,
    CallStarted,
    Cancelled,
    Closing,
    Effect,
    Event,
    Failed,
    Move,
    Notice,
    Outcome,
    Replied,
    RequestInput,
    Returned,
    Sleep,
    Slept,
    StartChild,
    Started,
    TimedOut,
)
from flowrun.core.graph import Graph
from flowrun.core.machine import Run, advance
from flowrun.core.ports import Functions, Journal, ModelBackend, Observer, RunTrace
from flowrun.core.recovery import recover
from flowrun.core.tool_context import DEADLINE
from flowrun.durations import spell_duration
from flowrun.errors import Bug, Failure, NoResponderError, RunError
from flowrun.journal.questions import describe_closed
from flowrun.runtime.child_runs import ChildDriver, ChildRuns, child_ended
from flowrun.runtime.loop import place_given_up
from flowrun.runtime.pending_effects import PendingEffects
from flowrun.runtime.run_result import AssumeDone, RunResult
from flowrun.runtime.services import Services
from flowrun.runtime.timers import IDLE
from flowrun.runtime.token_budget import TokenBudget
from flowrun.runtime.watched_text import WatchedText

_log = logging.getLogger(__name__)

EVENTS_PER_TURN: Final = 128
"""The events after which a run yields to the loop, for deadlines, signals and other runs: effects may never wait."""


class _Resumed(NamedTuple):
    """The step that a run was resumed in, and by the index of an open effect when it was requested.

    ``since`` also has when the state was entered, by None, if the run waits: time at work begins anew.
    """

    step: int
    since: Mapping[int | None, float]


class _Visit(NamedTuple):
    """A visit of a state by its number in the run's path, and when it began, in the loop's time."""

    number: int
    began: float


class RunDriver:
    """One run in progress: its state, its pending effects, and its deadlines."""

    __slots__ = (
        "_asks_plainly",
        "_began",
        "_budget",
        "_budget_above",
        "_children",
        "_effects",
        "_event_count",
        "_graph",
        "_interruption",
        "_observers",
        "_parent",
        "_pending",
        "_recorded_count",
        "_resumed",
        "_services",
        "_started_at",
        "_timeout",
        "_trace",
        "_visit",
        "idle",
        "in_doubt",
        "run",
        "sleeping",
        "waiting",
    )

    def __init__(
        self, services: Services, graph: Graph, parent: str | None, budget_above: TokenBudget | None = None
    ) -> None:
        self.run = Run()
        self.waiting: tuple[RequestInput, ...] = ()
        self.sleeping: tuple[tuple[str, float], ...] = ()  # the runs that sleep, with when they go on
        self.in_doubt: tuple[CallFunction, ...] = ()
        self._services = services
        self._graph = graph
        self._parent = parent
        self._budget_above = budget_above
        self._budget: TokenBudget | None = None  # if the run, or one above, has limits.tokens
        self._asks_plainly = not services.watchers  # nobody watches the text, and nothing limits the tokens
        self._effects: tuple[Effect, ...] = ()
        self._pending: PendingEffects | None = None
        self._event_count = 0
        self._began = 0.0  # seconds since the epoch
        self._started_at = 0.0  # the loop's time
        self._recorded_count = 0  # events in the journal
        self._resumed: _Resumed | None = None
        self._visit: _Visit | None = None  # of a state whose time limit is for a full visit
        self._timeout: asyncio.Timeout | None = None
        self._interruption: Event | None = None
        self._children: ChildRuns | None = None
        self._observers: Sequence[Observer] = services.observers
        self._trace: RunTrace | None = None
        self.idle = False

    async def recover(self, run_id: str, then: Event | None) -> RunResult:
        """Resume the run after the last event in its journal.

        Args:
            then: applied to the run before anything else.
        """
        assert self._services.journal is not None
        recorded = await self._services.journal.events(run_id)
        found = recover(self._graph, (one.event for one in recorded), (one.at for one in recorded))
        self.run, self._recorded_count = found.run, len(recorded)
        self._begin_budget()
        since: dict[int | None, float] = {None: found.entered} if found.run.status in IDLE else {}
        since.update(found.requested.items())
        self._resumed = _Resumed(found.run.step, since)
        at_work = found.run.status not in IDLE and found.run.awaiting != "sleep"
        used = (recorded[-1].at if at_work and recorded else self._services.now()) - found.visited
        self._visit = _Visit(len(found.run.path), asyncio.get_running_loop().time() - max(0.0, used))
        self._began = recorded[0].at if recorded else self._services.now()
        if self.run.outcome is not None:
            return self._result(recorded[-1].at)
        if then is None:
            # its children may go on, so what it waited for is no longer known if this process dies
            await self._services.journal.mark(run_id, self.run.status)
            await self._resolve_in_doubt(found.effects, found.in_doubt)
        elif isinstance(then, Cancelled):
            started = [effect for effect in found.effects if isinstance(effect, StartChild)]
            then = await self._child_runs().cancel_all(started, then) if started else then
        return await self.drive(then)

    async def _resolve_in_doubt(self, effects: tuple[Effect, ...], in_doubt: tuple[CallFunction, ...]) -> None:
        """Resolve the in-doubt calls. Record those that were done; make the others once all are resolved."""
        resolve = self._services.resolve or (lambda call: None)
        resolutions = [(call, resolve(call)) for call in in_doubt]
        step = self.run.step
        for call, resolution in resolutions:
            if isinstance(resolution, AssumeDone):
                await self._feed(Returned(step=call.step, index=call.index, value=resolution.value))
        open_calls = tuple(call for call, resolution in resolutions if not isinstance(resolution, AssumeDone))
        if any(resolution is None for _, resolution in resolutions):
            self._effects, self.in_doubt = (), open_calls
        elif self.run.step == step:
            self._effects = (*effects, *open_calls)

    def interrupt(self, event: Event) -> None:
        """Apply an event from outside now, before the pending effects are done. See ``services.Driver.interrupt``."""
        begun = self.run.status != "new"  # else it is about to be, and the event counts as soon as it is
        if isinstance(self._interruption, Cancelled) or (
            begun and advance(self._graph, self.run, event).run is self.run
        ):
            return
        if isinstance(event, Answered) and self._pending is not None and self._pending.count:
            self.waiting = tuple(ask for ask in self.waiting if (ask.step, ask.index) != (event.step, event.index))
            self._pending.complete(event)  # the other effects go on
            return
        self._interruption = event
        if self._timeout is not None:
            with suppress(RuntimeError):  # left or expired: the next step of ``drive`` checks for interruptions
                self._timeout.reschedule(asyncio.get_running_loop().time())

    async def drive(self, first: Event | None) -> RunResult:
        """Perform effects and feed their events until the run has ended or only waits for human input.

        Args:
            first: applied to the run before anything else.
        """
        self._started_at = asyncio.get_running_loop().time()
        self.idle = False
        self._register(first)
        outer = DEADLINE.get(None)
        self._begin_trace(first)
        try:
            if first is not None:
                await self._feed(first)
            stopped = bool(self.in_doubt) and self._interruption is None
            while not stopped:
                deadline, step = self._deadline()
                DEADLINE.set(outer if deadline is None else deadline if outer is None else min(deadline, outer))
                try:
                    async with asyncio.timeout_at(deadline) as self._timeout:
                        stopped = self._interruption is None and await self._drive_to_boundary(step)
                except TimeoutError:
                    if not self._expired():
                        raise
                    stopped = await self._interrupt_now(step)
                else:
                    if self._interruption is not None and self.run.outcome is None:
                        stopped = await self._interrupt_now(step)
            if self.run.outcome is None and self._services.journal is not None:
                await self._mark(self._services.journal)
        finally:
            DEADLINE.set(outer)
            self._cancel_effects()
            self._services.drivers.pop(self.run.id, None)
            self._end_trace()
            self.idle = True
        return self._result(self._services.now())

    def _result(self, now: float) -> RunResult:
        return RunResult(
            run=self.run,
            waiting=self.waiting,
            in_doubt=self.in_doubt,
            wakes=min((moment for _, moment in self.sleeping), default=None),
            began=self._began,
            ended=None if self.run.outcome is None else now,
            origin=self._services.origin,
        )

    def _expired(self) -> bool:
        return self._timeout is not None and self._timeout.expired()

    def _register(self, first: Event | None) -> None:
        """Register the run with its journal, and its driver with the runner that delivers events to it."""
        run_id = self.run.id
        if isinstance(first, Started):
            run_id, self._began = first.run, self._services.now()
            self._begin_budget()
            if self._services.journal is not None:
                self._services.journal.register(run_id, flow=self._graph.spec.name, parent=self._parent)
        self._services.drivers[run_id] = self

    def _begin_budget(self) -> None:
        """Count what the run uses from now on, and used before it was resumed."""
        limits = self._graph.limits.tokens
        if limits is not None or self._budget_above is not None:
            self._budget = TokenBudget(self._budget_above, limits, self.run.usage)
            self._asks_plainly = False

    def _begin_trace(self, first: Event | None) -> None:
        """Trace what is done from now on; the cancellation of a run that nobody drives does nothing."""
        tracer, run = self._services.tracer, self.run
        if tracer is None or isinstance(first, Cancelled):
            return
        started = isinstance(first, Started)
        name = first.run if isinstance(first, Started) else run.id
        trace = tracer.begin(self._graph.spec, name, state=run.state, step=run.step, resumed=not started)
        self._trace, self._observers = trace, (*self._services.observers, trace)

    def _end_trace(self) -> None:
        if self._trace is not None:
            outcome = self.run.outcome
            self._trace.end(outcome, self._idle_status() if outcome is None else outcome.status)
            self._trace, self._observers = None, self._services.observers

    def _idle_status(self) -> str:
        """Return why a run that has not ended is not driven any more."""
        if self.in_doubt:
            return "needs_attention"
        return "waiting" if self.waiting else "sleeping" if self.sleeping else "interrupted"

    async def _mark(self, journal: Journal) -> None:
        status = "needs_attention" if self.in_doubt else "waiting" if self.waiting else "sleeping"
        if status != self.run.status:
            await journal.mark(self.run.id, status)

    async def _interrupt_now(self, deadline_step: int) -> bool:
        """Cancel the pending effects, because of a timeout or an interruption; return whether the run has ended."""
        event, self._interruption = self._interruption, None
        if isinstance(event, Answered) and advance(self._graph, self.run, event).run is self.run:
            if event.step != self.run.step:  # the run took the same answer meanwhile: what follows is still to be done
                self._cancel_pending()
            return self.run.outcome is not None
        pending, children = self._pending, [] if self._children is None else self._children.take()
        self._cancel_pending()
        if self.run.outcome is not None:
            return True  # the timeout came while the last event was recorded
        if isinstance(event, Cancelled) and children:
            event = await self._cancel_with(event, children, pending)
        if event is not None:
            await self._feed(event)
        else:
            while deadline_step in (0, self.run.step) and self.run.outcome is None:  # else its state was left meanwhile
                closing = await self._close_question(TimedOut(step=deadline_step))
                await self._feed(closing)
                if isinstance(closing, TimedOut):
                    break
        return self.run.outcome is not None

    async def _cancel_with(
        self, event: Cancelled, children: list[tuple[StartChild, ChildDriver]], pending: PendingEffects | None
    ) -> Cancelled:
        """Cancel the children first, once nobody drives them; return the event with what they have used."""
        if pending is not None:
            await pending.ended()
        runs = self._child_runs()
        runs.keep(children)
        return await runs.cancel_all([effect for effect, _ in children], event)

    def _deadline(self) -> tuple[float | None, int]:
        """Return the next deadline in the loop's time, and its owner: the step of a state, or 0 for the run."""
        if self.run.outcome is not None:
            return None, 0
        run_timeout, node = self._graph.limits.timeout, self._graph.nodes[self.run.state]
        ends = None if run_timeout is None else self._started_at + run_timeout
        timeout = node.timeout_of(self.run)
        if timeout is not None and (node.of_visit or self.run.awaiting != "sleep"):
            now = asyncio.get_running_loop().time()
            began = self._visit_began(now) if node.of_visit else now - self._seconds_since(self.run.step)
            state_ends = began + timeout
            if ends is None or state_ends < ends:
                return state_ends, self.run.step
        return ends, 0

    def _visit_began(self, now: float) -> float:
        """Return when the visit of the run's state began, in the loop's time; the time of a crash does not count."""
        number = len(self.run.path)
        if self._visit is None or self._visit.number != number:
            self._visit = _Visit(number, now)
        return self._visit.began

    def _seconds_since(self, step: int, index: int | None = None) -> float:
        """Return how long ago an effect was requested before the run was resumed: its time limit counts from then.

        Args:
            index: the index of the effect in its step; None: the state itself, which counts only while the run waits.
        """
        resumed = self._resumed
        if resumed is None or resumed.step != step or index not in resumed.since:
            return 0.0
        return max(0.0, self._services.now() - resumed.since[index])

    async def _drive_to_boundary(self, deadline_step: int) -> bool:
        """Drive the run until it ends or waits (True), or a state with its own timeout is entered or left (False)."""
        nodes, services = self._graph.nodes, self._services
        while self.run.outcome is None:
            if self._event_count % EVENTS_PER_TURN == 0:
                await asyncio.sleep(0)
            event = await self._next_event()
            if event is None:
                return True
            step = self.run.step
            if services.journal is None and not self._observers:
                self._apply(event)
            else:
                await self._feed(event)
            if self.run.step != step or isinstance(event, Slept):
                if self._pending is not None or self.waiting or self.sleeping or self.in_doubt:
                    self._cancel_pending()
                if deadline_step or nodes[self.run.state].timeout is not None:
                    return False
        return True

    async def _feed(self, event: Event) -> None:
        """Apply an event to the run; record the event before any effect of it is performed."""
        moves = self._apply(event)
        journal = self._services.journal
        if journal is not None:
            try:
                await self._record(journal, event)
            except asyncio.CancelledError:  # the event is recorded nevertheless
                self._notify(event, moves)
                raise
        self._notify(event, moves)

    def _apply(self, event: Event) -> tuple[Move, ...]:
        self.run, self._effects, moves = advance(self._graph, self.run, event)
        self._event_count += 1
        return moves

    def _notify(self, event: Event, moves: tuple[Move, ...]) -> None:
        run = self.run
        for observer in self._observers:
            observer.notify(
                Notice(run=run.id, state=run.state, step=run.step, event=event, effects=self._effects, moves=moves)
            )

    def _record(self, journal: Journal, event: Event) -> Awaitable[None]:
        seq, run = self._recorded_count, self.run
        self._recorded_count += 1
        return journal.append(run.id, event, seq=seq, state=run.state, status=run.status)

    def _next_event(self) -> Awaitable[Event | None]:
        """Start the new effects, and return the first event; None if all pending effects wait for human input."""
        effects, self._effects = self._effects, ()
        pending = self._pending
        if self._children is not None and effects:
            effects = tuple(effect for effect in effects if not self._interrupts_child(effect))
        perform = self._perform if self._trace is None else self._perform_traced
        if len(effects) == 1 and not self.waiting and (pending is None or not pending.count):
            return perform(effects[0])
        if pending is None:
            pending = self._pending = PendingEffects(perform)
        for effect in effects:
            pending.start(effect)
        return pending.first_completed()

    def _cancel_pending(self) -> None:
        """Drop the pending effects and questions of the state that the run left."""
        self._cancel_effects()
        self.waiting = self.sleeping = ()
        self.in_doubt = ()
        self._children = None

    def _cancel_effects(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None

    def _perform(self, effect: Effect) -> Awaitable[Event | None]:
        """Perform one effect, and return its event; None if it waits for human input or sleeps, and is left there."""
        match effect:
            case AskModel():
                if self._asks_plainly:
                    return _ask_model(self._services.backends[effect.model], effect)
                return self._ask_model(effect)
            case CallFunction():
                journal = self._services.journal
                if journal is None or effect.idempotent:
                    return _call_function(self._services.functions, effect)
                return self._call_once(effect, journal)
            case Sleep():
                return self._sleep(effect)
            case StartChild():
                return self._cancel_child(effect) if effect.cancel else self._start_child(effect)
            case RequestInput():
                return self._request_input(effect)
            case Outcome():
                raise Bug("a run that has ended continues")
            case _:
                assert_never(effect)

    def _perform_traced(self, effect: Effect) -> Awaitable[Event | None]:
        assert self._trace is not None
        return self._trace.perform(effect, self._perform(effect))

    def _ask_model(self, effect: AskModel) -> Awaitable[Event]:
        """Ask a model whose text is watched, or whose tokens are limited."""
        services = self._services
        if services.watchers:
            asked: Awaitable[Event] = _watch_model(effect, services)
        else:
            asked = _ask_model(services.backends[effect.model], effect)
        return asked if self._budget is None else _count_reply(asked, self._budget)

    async def _call_once(self, effect: CallFunction, journal: Journal) -> Event:
        """Record the intent to call a function, then call it: after a crash, the record shows that it is in doubt."""
        await self._record(journal, CallStarted(step=effect.step, index=effect.index))
        return await _call_function(self._services.functions, effect)

    async def _sleep(self, effect: Sleep) -> Event | None:
        """Wait; a pause goes by the clock, and may be left to whoever resumes the run."""
        services = self._services
        seconds = effect.seconds * (1 + effect.jitter * services.chance())
        seconds = max(0.0, seconds - self._seconds_since(effect.step, 0))
        if self.run.status != "sleeping":
            await services.sleep(seconds)
            return Slept(step=effect.step)
        moment = services.now() + seconds if effect.until is None else effect.until
        if services.park and moment > services.now():
            self.sleeping += ((self.run.id, moment),)
            return None
        async with nullcontext() if self._parent is not None else place_given_up():
            await services.sleep_until(moment)
        return Slept(step=effect.step)

    async def _request_input(self, effect: RequestInput) -> Event | None:
        left = None if effect.timeout is None else effect.timeout - self._seconds_since(effect.step, effect.index)
        if left is not None and left <= 0:
            return await self._close_question(_unanswered(effect))
        try:
            human_input = self._services.human_input
            if human_input is None:
                raise NoResponderError
            async with asyncio.timeout(left) as timer:
                value = await human_input.answer(effect)
        except NoResponderError:
            self.waiting += (effect,)
            return None
        except TimeoutError:
            if not timer.expired():
                raise
            return await self._close_question(_unanswered(effect))
        answered = Answered(step=effect.step, index=effect.index, value=value)
        if advance(self._graph, self.run, answered).run is self.run:  # it does not fit: the question stays open
            self.waiting += (effect,)
            return answered
        counted = await self._close_question(answered)
        if counted != answered:
            _log.warning("%s", describe_closed(effect.id, counted))
        return counted

    async def _close_question(self, event: Closing) -> Closing:
        """Return the event that closes a question of the run: another one may have been accepted."""
        journal = self._services.journal
        if journal is None or event.step != self.run.step:
            return event
        return await journal.close_question(self.run.id, event)

    def _child_runs(self) -> ChildRuns:
        if self._children is None:
            flows = self._graph.flows
            self._children = ChildRuns(
                self._services,
                run_id=lambda: self.run.id,
                make=lambda flow: RunDriver(self._services, flows[flow], self.run.id, self._budget),
                spec_of=lambda flow: flows[flow].spec,
                budget=self._budget,
            )
        return self._children

    async def _start_child(self, effect: StartChild) -> Event | None:
        resumed = self._resumed is not None and self._resumed.step == effect.step
        result = await self._child_runs().start(effect, resumed=resumed)
        if result.run.outcome is None:
            self.waiting += result.waiting
            self.in_doubt += result.in_doubt
            self.sleeping += () if result.wakes is None else ((result.run_id, result.wakes),)
        return child_ended(effect, result.run)

    def _interrupts_child(self, effect: Effect) -> bool:
        """Cancel the child of an effect now, if it is in progress."""
        return isinstance(effect, StartChild) and effect.cancel and self._child_runs().interrupt(effect)

    async def _cancel_child(self, effect: StartChild) -> Event | None:
        """Cancel a child that waits, sleeps or was not resumed, and return its end."""
        name = effect.child_id(self.run.id)
        family = name, f"{name}."
        self.waiting = tuple(ask for ask in self.waiting if not _is_of(ask.run, *family))
        self.in_doubt = tuple(call for call in self.in_doubt if not _is_of(call.run, *family))
        self.sleeping = tuple(one for one in self.sleeping if not _is_of(one[0], *family))
        return await self._child_runs().cancel(effect)


def _is_of(run: str, child: str, below: str) -> bool:
    """Return whether a run is a child, or one below it."""
    return run == child or run.startswith(below)


def _unanswered(effect: RequestInput) -> Failed:
    """Return the event of a question whose own time is over."""
    message = f"nobody answered within {spell_duration(effect.timeout or 0.0)}"
    return Failed(step=effect.step, index=effect.index, failure=Failure(name="wait.timeout", message=message))


async def _ask_model(backend: ModelBackend, effect: AskModel) -> Event:
    try:
        reply = await backend.reply(effect)
    except RunError as exc:
        return Failed(step=effect.step, failure=exc.failure())
    return Replied(step=effect.step, reply=reply)


async def _watch_model(effect: AskModel, services: Services) -> Event:
    text = WatchedText(effect, services.watchers, services.secrets)
    try:
        reply = await services.backends[effect.model].reply(effect, on_text=text.receive)
    except RunError as exc:
        return Failed(step=effect.step, failure=exc.failure())
    text.end()
    return Replied(step=effect.step, reply=reply)


async def _count_reply(asked: Awaitable[Event], budget: TokenBudget) -> Event:
    """Count the tokens of a reply at once, so that all runs that share a limit know of them."""
    event = await asked
    if isinstance(event, Replied):
        budget.add(event.reply.usage)
        if (left := budget.left_above()) is not None:
            return Replied(step=event.step, reply=event.reply, tokens_left=left)
    return event


async def _call_function(functions: Functions, effect: CallFunction) -> Event:
    try:
        value = await functions.call(effect)
    except RunError as exc:
        return Failed(step=effect.step, index=effect.index, failure=exc.failure())
    return Returned(step=effect.step, index=effect.index, value=value)
