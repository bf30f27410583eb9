"""One run under way: its state, the effects in flight, and its deadlines. Decides nothing."""

import asyncio
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Final, assert_never

from flowrun.core.events import (
    Answered,
    AskModel,
    CallFunction,
    CallStarted,
    Cancelled,
    ChildEnded,
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
from flowrun.core.ports import Functions, Journal, ModelBackend
from flowrun.core.recovery import recover
from flowrun.errors import Bug, NoResponderError, RunError
from flowrun.runtime.pending_effects import PendingEffects
from flowrun.runtime.result import AssumeDone, Result
from flowrun.spec.model import JSON, Spec

if TYPE_CHECKING:
    from flowrun.runtime.runner import Runner

EVENTS_A_TURN: Final = 32
"""After so many events a run lets the loop see to deadlines, signals and other runs, as effects may never wait."""


class RunDriver:
    """One run under way: its state, the effects in flight, and its deadlines."""

    __slots__ = (
        "_begun",
        "_effects",
        "_fed",
        "_flights",
        "_graph",
        "_interruption",
        "_kept",
        "_parent",
        "_recovered",
        "_runner",
        "_scope",
        "_waited",
        "doubtful",
        "run",
        "waiting",
    )

    def __init__(self, runner: "Runner", graph: Graph, parent: str | None) -> None:
        self.run = Run()
        self.waiting: tuple[RequestInput, ...] = ()
        self.doubtful: tuple[CallFunction, ...] = ()
        self._runner = runner
        self._graph = graph
        self._parent = parent
        self._effects: tuple[Effect, ...] = ()
        self._flights: PendingEffects | None = None
        self._fed = 0
        self._begun = 0.0
        self._kept = 0  # events in the journal
        self._recovered = 0  # the step that a run was taken up in
        self._waited = 0.0  # seconds that it had waited in that step
        self._scope: asyncio.Timeout | None = None
        self._interruption: Event | None = None

    async def recover(self, run_id: str, then: Event | None) -> Result:
        """Go on where the journal's last event left the run."""
        assert self._runner.journal is not None
        recorded = await self._runner.journal.events(run_id)
        self.run, effects, doubtful = recover(self._graph, (one.event for one in recorded))
        self._kept = len(recorded)
        self._recovered = self.run.step
        if self.run.status == "waiting":
            self._waited = max(0.0, self._runner.now() - recorded[-1].at)
        if then is None:
            await self._resolve_in_doubt(effects, doubtful)
        return await self.go(then)

    async def _resolve_in_doubt(self, effects: tuple[Effect, ...], doubtful: tuple[CallFunction, ...]) -> None:
        """Learn what became of the calls in doubt: what was done is kept; the rest is done once it is known of all."""
        decide = self._runner.decide or (lambda call: None)
        verdicts = [(call, decide(call)) for call in doubtful]
        step = self.run.step
        for call, verdict in verdicts:
            if isinstance(verdict, AssumeDone):
                await self._feed(Returned(step=call.step, index=call.index, value=verdict.value))
        left = tuple(call for call, verdict in verdicts if not isinstance(verdict, AssumeDone))
        if any(verdict is None for _, verdict in verdicts):
            self._effects, self.doubtful = (), left
        elif self.run.step == step:
            self._effects = (*effects, *left)

    def interrupt(self, event: Event) -> None:
        """Have an event from outside happen now, rather than when what is under way is done; not if it is too late."""
        if isinstance(self._interruption, Cancelled) or advance(self._graph, self.run, event).run is self.run:
            return
        self._interruption = event
        if self._scope is not None:
            with suppress(RuntimeError):  # it was left, or its time is up: what comes next looks for interruptions
                self._scope.reschedule(asyncio.get_running_loop().time())

    async def go(self, first: Event | None) -> Result:
        """Perform effects and feed their events until the run has ended or only waits for people."""
        self._begun = asyncio.get_running_loop().time()
        if self._runner.journal is not None:
            self._register(first, self._runner.journal)
        try:
            if first is not None:
                await self._feed(first)
            over = bool(self.doubtful)
            while not over:
                when, step = self._deadline()
                try:
                    async with asyncio.timeout_at(when) as self._scope:
                        over = self._interruption is None and await self._drive_on(step)
                except TimeoutError:
                    if not self._expired():
                        raise
                    over = await self._interrupt_now(step)
                else:
                    if self._interruption is not None and not over:
                        over = await self._interrupt_now(step)
            if self.run.outcome is None and self._runner.journal is not None:
                await self._mark(self._runner.journal)
        finally:
            self._cancel_effects()
            self._runner.drives.pop(self.run.id, None)
        return Result(self.run, self.waiting, self.doubtful)

    def _expired(self) -> bool:
        return self._scope is not None and self._scope.expired()

    def _register(self, first: Event | None, journal: Journal) -> None:
        """Have the run known to its journal, and to who delivers events to it."""
        if isinstance(first, Started):
            journal.begin(first.run, flow=self._graph.spec.name, parent=self._parent)
        self._runner.drives[first.run if isinstance(first, Started) else self.run.id] = self

    async def _mark(self, journal: Journal) -> None:
        status = "needs_attention" if self.doubtful else "waiting"
        if status != self.run.status:
            await journal.mark(self.run.id, status)

    async def _interrupt_now(self, deadline_step: int) -> bool:
        """Give up what is under way, because time is up or something came from outside; tell whether the run ended."""
        self._cancel_pending()
        event, self._interruption = self._interruption, None
        if self.run.outcome is not None:
            return True  # time was up as the last event was kept
        if event is not None:
            await self._feed(event)
        elif deadline_step in (0, self.run.step):  # else the state was left, and the time was up as the event was kept
            await self._feed(TimedOut(step=deadline_step))
        return self.run.outcome is not None

    def _deadline(self) -> tuple[float | None, int]:
        """Give the next deadline in the loop's time, and whose it is: a state's step, or 0 for the run's."""
        if self.run.outcome is not None:
            return None, 0
        whole, timeout = self._graph.limits.timeout, self._graph.nodes[self.run.state].timeout
        ends = None if whole is None else self._begun + whole
        if timeout is not None and self.run.awaiting != "sleep":
            waited = self._waited if self.run.step == self._recovered else 0.0
            state_ends = asyncio.get_running_loop().time() + timeout - waited
            if ends is None or state_ends < ends:
                return state_ends, self.run.step
        return ends, 0

    async def _drive_on(self, deadline_step: int) -> bool:
        """Go on until the run is over (True), or a state with a timeout of its own is entered or left (False)."""
        nodes = self._graph.nodes
        while self.run.outcome is None:
            if self._fed % EVENTS_A_TURN == 0:
                await asyncio.sleep(0)
            event = await self._next_event()
            if event is None:
                return True
            step = self.run.step
            await self._feed(event)
            if self.run.step != step or isinstance(event, Slept):
                if self._flights is not None or self.waiting or self.doubtful:
                    self._cancel_pending()
                if deadline_step or nodes[self.run.state].timeout is not None:
                    return False
        return True

    async def _feed(self, event: Event) -> None:
        """Take the run one event further; the event is kept before anything that follows from it is done."""
        self.run, self._effects, moves = advance(self._graph, self.run, event)
        runner = self._runner
        if runner.journal is not None:
            try:
                await self._keep(runner.journal, event)
            except asyncio.CancelledError:  # it is kept nevertheless
                self._notify(event, moves)
                raise
        self._notify(event, moves)
        self._fed += 1

    def _notify(self, event: Event, moves: tuple[Move, ...]) -> None:
        run = self.run
        for observer in self._runner.observers:
            observer.notify(
                Notice(run=run.id, state=run.state, step=run.step, event=event, effects=self._effects, moves=moves)
            )

    def _keep(self, journal: Journal, event: Event) -> Awaitable[None]:
        seq, run = self._kept, self.run
        self._kept += 1
        return journal.append(run.id, event, seq=seq, state=run.state, status=run.status)

    def _next_event(self) -> Awaitable[Event | None]:
        """Perform what is to be performed, and give the first event; None if all that is left waits for people."""
        effects, self._effects = self._effects, ()
        flights = self._flights
        if len(effects) == 1 and (flights is None or not flights.pending):
            return self._perform(effects[0])
        if flights is None:
            flights = self._flights = PendingEffects(self._perform)
        for effect in effects:
            flights.start(effect)
        return flights.first_completed()

    def _cancel_pending(self) -> None:
        """Give up what the state that was left had in flight, or waiting: its events are not awaited any more."""
        self._cancel_effects()
        self.waiting = ()
        self.doubtful = ()

    def _cancel_effects(self) -> None:
        if self._flights is not None:
            self._flights.cancel()
            self._flights = None

    def _perform(self, effect: Effect) -> Awaitable[Event | None]:
        """Do one effect, and give the event that it leads to; None if it waits for people and there are none."""
        match effect:
            case AskModel():
                return _ask_model(self._runner.backends[effect.model], effect)
            case CallFunction():
                journal = self._runner.journal
                if journal is None or effect.idempotent:
                    return _call_function(self._runner.functions, effect)
                return self._call_once(effect, journal)
            case Sleep():
                return self._sleep(effect)
            case StartChild():
                return self._start_child(effect)
            case RequestInput():
                return self._ask_person(effect)
            case Outcome():
                raise Bug("a run that has ended goes on")
            case _:
                assert_never(effect)

    async def _call_once(self, effect: CallFunction, journal: Journal) -> Event:
        """Call a function, but first write down that it is called: after a crash nobody else would know."""
        await self._keep(journal, CallStarted(step=effect.step, index=effect.index))
        return await _call_function(self._runner.functions, effect)

    async def _sleep(self, effect: Sleep) -> Event:
        await self._runner.sleep(effect.seconds * (1 + effect.jitter * self._runner.chance()))
        return Slept(step=effect.step)

    async def _ask_person(self, effect: RequestInput) -> Event | None:
        try:
            if self._runner.people is None:
                raise NoResponderError
            return Answered(step=effect.step, value=await self._runner.people.answer(effect))
        except NoResponderError:
            self.waiting += (effect,)
            return None

    async def _start_child(self, effect: StartChild) -> Event | None:
        graph = self._graph.flows[effect.flow]
        child = RunDriver(self._runner, graph, self.run.id)
        name = child_id(self.run.id, effect)
        journal = self._runner.journal
        if journal is not None and effect.step == self._recovered and await journal.events(name):
            run, waiting, doubtful = await child.recover(name, None)
        else:
            start = Started(
                run=name,
                inputs=with_defaults(graph.spec, effect.inputs),
                max_rounds=effect.max_rounds,
                max_steps=effect.max_steps,
            )
            run, waiting, doubtful = await child.go(start)
        if run.outcome is None:
            self.waiting += waiting
            self.doubtful += doubtful
            return None
        return ChildEnded(
            step=effect.step,
            index=effect.index,
            outcome=run.outcome,
            rounds=run.rounds,
            steps=run.step + run.child_steps,
            usage=run.usage,
        )


async def _ask_model(backend: ModelBackend, effect: AskModel) -> Event:
    try:
        reply = await backend.reply(effect)
    except RunError as exc:
        return Failed(step=effect.step, failure=exc.failure())
    return Replied(step=effect.step, reply=reply)


async def _call_function(functions: Functions, effect: CallFunction) -> Event:
    try:
        value = await functions.call(effect)
    except RunError as exc:
        return Failed(step=effect.step, index=effect.index, failure=exc.failure())
    return Returned(step=effect.step, index=effect.index, value=value)


def child_id(run: str, effect: StartChild) -> str:
    """Name the child run that an effect starts, after its place in its parent."""
    return f"{run}.{effect.step}.{effect.index}"


def with_defaults(spec: Spec, inputs: Mapping[str, JSON]) -> dict[str, JSON]:
    """Give a flow's inputs with the spec's defaults filled in."""
    defaults = {name: schema["default"] for name, schema in spec.inputs.items() if "default" in schema}
    return {**defaults, **inputs}
