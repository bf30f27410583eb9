"""Performs what the machine asks for: one asyncio task a run, many runs on the same backends. Decides nothing."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, assert_never

from flowrun.errors import Bug, NobodyAnswers, RunError
from flowrun.events import (
    Answered,
    AskModel,
    AskPerson,
    CallFunction,
    ChildEnded,
    Effect,
    Event,
    Failed,
    Notice,
    Outcome,
    Replied,
    Returned,
    Sleep,
    Slept,
    StartChild,
    Started,
    TimedOut,
)
from flowrun.graph import Graph
from flowrun.machine import Run, advance
from flowrun.ports import Functions, Journal, ModelBackend, Observer, People
from flowrun.spec import JSON, Spec


class Runner:
    """Runs flows. ``backends`` are started ones, by the names that the spec gives its models.

    Time and chance come from ``sleep`` (seconds) and ``chance`` (0 to 1), so that tests can hold them still.
    """

    def __init__(
        self,
        *,
        backends: Mapping[str, ModelBackend],
        functions: Functions,
        people: People | None = None,
        journal: Journal | None = None,
        observers: Sequence[Observer] = (),
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.backends = backends
        self.functions = functions
        self.people = people
        self.journal = journal
        self.observers = observers
        self.sleep = sleep
        self.chance = chance

    async def run(self, graph: Graph, inputs: Mapping[str, JSON], *, run_id: str) -> "Result":
        """Run a flow until it ends, or until nothing can go on before somebody answers.

        Args:
            inputs: those that the caller gives; the spec's defaults stand in for the others.

        Cancelling the awaiting task ends the run's effects and nothing else.
        """
        drive = _Drive(self, graph)
        await drive.go(Started(run=run_id, inputs=with_defaults(graph.spec, inputs)))
        return Result(drive.run, tuple(drive.waiting))


class Result(NamedTuple):
    """A run as far as it came; ``waiting`` holds what it, or a child of it, waits for an answer to."""

    run: Run
    waiting: tuple[AskPerson, ...]


class _Drive:
    """One run under way: its state, the effects in flight, and its deadlines."""

    def __init__(self, runner: Runner, graph: Graph) -> None:
        self.run = Run()
        self.waiting: list[AskPerson] = []
        self._runner = runner
        self._graph = graph
        self._effects: tuple[Effect, ...] = ()
        self._flying: set[asyncio.Task[None]] = set()
        self._in_flight = 0
        self._landed: asyncio.Queue[Event | Exception | None] = asyncio.Queue()
        self._begun = asyncio.get_running_loop().time()

    async def go(self, start: Started) -> None:
        """Perform effects and feed their events until the run has ended or only waits for people."""
        await self._feed(start)
        try:
            while not await self._until_deadline():
                pass
        finally:
            self._cancel_flights()

    async def _until_deadline(self) -> bool:
        """Go on under one deadline; tell whether the run is over, rather than under another deadline now."""
        when, step = self._deadline()
        try:
            async with asyncio.timeout_at(when) as scope:
                return await self._go_on(step)
        except TimeoutError:
            if not scope.expired():
                raise
            self._ground()
            await self._feed(TimedOut(step=step))
            return self.run.outcome is not None

    def _deadline(self) -> tuple[float | None, int]:
        """Give the next deadline in the loop's time, and whose it is: a state's step, or 0 for the run's."""
        if self.run.outcome is not None:
            return None, 0
        whole, timeout = self._graph.limits.timeout, self._graph.nodes[self.run.state].timeout
        ends = None if whole is None else self._begun + whole
        if timeout is not None:
            state_ends = asyncio.get_running_loop().time() + timeout
            if ends is None or state_ends < ends:
                return state_ends, self.run.step
        return ends, 0

    async def _go_on(self, deadline_step: int) -> bool:
        """Go on until the run is over (True), or a state with a timeout of its own is entered or left (False)."""
        nodes = self._graph.nodes
        while self.run.outcome is None:
            event = await self._next_event()
            if event is None:
                return True
            step = self.run.step
            await self._feed(event)
            if self.run.step != step:
                if self._in_flight or self.waiting:
                    self._ground()
                if deadline_step or nodes[self.run.state].timeout is not None:
                    return False
        return True

    async def _feed(self, event: Event) -> None:
        """Take the run one event further; the event is kept before anything that follows from it is done."""
        self.run, self._effects = advance(self._graph, self.run, event)
        runner = self._runner
        if runner.journal is not None:
            await runner.journal.append(self.run.id, event)
        if runner.observers:
            run = self.run
            notice = Notice(run=run.id, state=run.state, step=run.step, event=event, effects=self._effects)
            for observer in runner.observers:
                observer.notify(notice)

    async def _next_event(self) -> Event | None:
        """Perform what is to be performed, and give the first event; None if all that is left waits for people."""
        effects, self._effects = self._effects, ()
        if len(effects) == 1 and not self._in_flight:
            return await self._perform(effects[0])
        for effect in effects:
            task = asyncio.create_task(self._fly(effect, self._landed))
            self._flying.add(task)
            task.add_done_callback(self._flying.discard)
        self._in_flight += len(effects)
        while self._in_flight:
            landed = await self._landed.get()
            self._in_flight -= 1
            if isinstance(landed, Exception):
                raise landed
            if landed is not None:
                return landed
        return None

    async def _fly(self, effect: Effect, landed: "asyncio.Queue[Event | Exception | None]") -> None:
        try:
            landed.put_nowait(await self._perform(effect))
        except Exception as exc:  # kept for the run's own task, which raises it
            landed.put_nowait(exc)

    def _ground(self) -> None:
        """Give up what the state that was left had in flight, or waiting: its events are not awaited any more."""
        self._cancel_flights()
        self._landed = asyncio.Queue()
        self._in_flight = 0
        self.waiting.clear()

    def _cancel_flights(self) -> None:
        for task in self._flying:
            task.cancel()
        self._flying.clear()

    async def _perform(self, effect: Effect) -> Event | None:
        """Do one effect, and give the event that it leads to; None if it waits for people and there are none."""
        runner = self._runner
        match effect:
            case AskModel():
                return await _ask_model(runner.backends[effect.model], effect)
            case CallFunction():
                return await _call_function(runner.functions, effect)
            case Sleep():
                await runner.sleep(effect.seconds * (1 + effect.jitter * runner.chance()))
                return Slept(step=effect.step)
            case StartChild():
                return await self._start_child(effect)
            case AskPerson():
                return await self._ask_person(effect)
            case Outcome():
                raise Bug("a run that has ended goes on")
            case _:
                assert_never(effect)

    async def _ask_person(self, effect: AskPerson) -> Event | None:
        try:
            if self._runner.people is None:
                raise NobodyAnswers
            return Answered(step=effect.step, value=await self._runner.people.answer(effect))
        except NobodyAnswers:
            self.waiting.append(effect)
            return None

    async def _start_child(self, effect: StartChild) -> Event | None:
        graph = self._graph.flows[effect.flow]
        child = _Drive(self._runner, graph)
        start = Started(
            run=f"{self.run.id}.{effect.step}.{effect.index}",
            inputs=with_defaults(graph.spec, effect.inputs),
            max_rounds=effect.max_rounds,
            max_steps=effect.max_steps,
        )
        await child.go(start)
        if child.run.outcome is None:
            self.waiting.extend(child.waiting)
            return None
        return ChildEnded(
            step=effect.step,
            index=effect.index,
            outcome=child.run.outcome,
            rounds=child.run.rounds,
            steps=child.run.step + child.run.child_steps,
            usage=child.run.usage,
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


def with_defaults(spec: Spec, inputs: Mapping[str, JSON]) -> dict[str, JSON]:
    """Give a flow's inputs with the spec's defaults filled in."""
    defaults = {name: schema["default"] for name, schema in spec.inputs.items() if "default" in schema}
    return {**defaults, **inputs}
