"""Recorded runs for tests: the machine with stubs, and a clock that moves only to the next event."""

import heapq
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from typing import Any, Final

from flowrun.core.events import (
    Answered,
    AskModel,
    CallFunction,
    CallStarted,
    ChildEnded,
    Effect,
    Event,
    Failed,
    Outcome,
    Recorded,
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
from flowrun.core.messages import Reply, ToolCall, Usage
from flowrun.errors import Failure
from flowrun.spec.model import JSON

NOON: Final = 1_795_435_200.0
"""The start of every recorded run: 2026-11-23 12:00:00 UTC."""

Answer = tuple[float, Any]
"""A reply, a value, or a ``Failure``, and the seconds after which it comes."""


class World:
    """The stubs of a run: ``replies`` in order, functions by entrypoint, and answers by state.

    Whatever has no answer never comes.
    """

    def __init__(
        self,
        *,
        replies: Sequence[Answer] = (),
        functions: Mapping[str, Answer | Callable[..., Answer]] | None = None,
        answers: Mapping[str, Answer] | None = None,
    ) -> None:
        self.replies = list(replies)
        self.functions = functions or {}
        self.answers = answers or {}

    def answer(self, effect: Effect) -> tuple[float, Event] | None:
        """Return the event of an effect, and the seconds after which it comes."""
        match effect:
            case AskModel():
                return _event(effect.step, 0, self.replies.pop(0), Replied) if self.replies else None
            case CallFunction():
                found = self.functions.get(effect.entrypoint)
                answer = found(**effect.arguments) if callable(found) else found
                return None if answer is None else _event(effect.step, effect.index, answer, Returned)
            case RequestInput():
                given = self.answers.get(effect.state)
                return None if given is None else (given[0], Answered(step=effect.step, value=given[1]))
            case Sleep():
                return effect.seconds, Slept(step=effect.step)
            case _:
                return None


def _event(step: int, index: int, answer: Answer, kind: type[Replied] | type[Returned]) -> tuple[float, Event]:
    seconds, value = answer
    if isinstance(value, Failure):
        return seconds, Failed(step=step, index=index, failure=value)
    if kind is Replied:
        return seconds, Replied(step=step, reply=value)
    return seconds, Returned(step=step, index=index, value=value)


class Recording:
    """A run and its children, by their ids, as a journal would hold them."""

    def __init__(
        self, graph: Graph, world: World, inputs: Mapping[str, JSON] | None = None, *, run: str = "r1"
    ) -> None:
        self.graph = graph
        self.events: dict[str, list[Recorded]] = {}
        self._world = world
        self._runs: dict[str, tuple[Graph, Run]] = {}
        self._parents: dict[str, tuple[str, int, int]] = {}
        self._coming: list[tuple[float, int, str, Event]] = []
        self._number = count()
        self.now = NOON
        self._start(run, graph, Started(run=run, inputs=_inputs(graph, inputs or {})))
        while self._coming:
            self.now, _, name, event = heapq.heappop(self._coming)
            self._feed(name, event)

    @property
    def recorded(self) -> list[Recorded]:
        """The run's own events."""
        return next(iter(self.events.values()))

    def add(self, event: Event, seconds: float = 1.0, run: str = "r1") -> None:
        """Apply an event from outside."""
        self.now += seconds
        self._feed(run, event)

    def cut(self, kind: str) -> "Recording":
        """Remove the run's first event of a kind, and all later ones."""
        kept = self.recorded
        names = [type(entry.event).__name__ for entry in kept]
        del kept[names.index(kind) :]
        graph = self.graph
        run = Run()
        for entry in kept:
            run = advance(graph, run, entry.event).run
        self._runs[run.id] = (graph, run)
        self.now = kept[-1].at
        return self

    def _start(self, name: str, graph: Graph, event: Started) -> None:
        self.events[name], self._runs[name] = [], (graph, Run())
        self._feed(name, event)

    def _feed(self, name: str, event: Event) -> None:
        graph, before = self._runs[name]
        if before.outcome is not None or not self._awaited(name, before, event):
            return
        run, effects, _ = advance(graph, before, event)
        self._runs[name] = (graph, run)
        self._record(name, run, event)
        timeout = None if run.outcome is not None else graph.nodes[run.state].timeout
        if run.step != before.step and timeout is not None:
            self._come(timeout, name, TimedOut(step=run.step))
        for effect in effects:
            self._perform(name, graph, run, effect)

    def _awaited(self, name: str, run: Run, event: Event) -> bool:
        """Return whether a runner would still record an event; it drops those of states that the run has left."""
        if getattr(event, "step", run.step) not in (run.step, 0):
            return False
        parent = self._parents.get(name)
        return parent is None or (self._runs[parent[0]][1].step == parent[1] and self._awaited_parent(parent[0]))

    def _awaited_parent(self, name: str) -> bool:
        return self._runs[name][1].outcome is None

    def _record(self, name: str, run: Run, event: Event) -> None:
        kept = self.events[name]
        kept.append(Recorded(seq=len(kept), at=self.now, state=run.state, event=event))

    def _perform(self, name: str, graph: Graph, run: Run, effect: Effect) -> None:
        if isinstance(effect, Outcome):
            self._tell_parent(name, run, effect)
            return
        if isinstance(effect, StartChild):
            child = effect.child_id(name)
            self._parents[child] = (name, effect.step, effect.index)
            flow = graph.flows[effect.flow]
            started = Started(
                run=child,
                inputs=_inputs(flow, effect.inputs),
                max_rounds=effect.max_rounds,
                max_steps=effect.max_steps,
                max_tool_calls=effect.max_tool_calls,
                token_limits=effect.token_limits,
            )
            self._start(child, flow, started)
            return
        if isinstance(effect, CallFunction):
            self._record(name, run, CallStarted(step=effect.step, index=effect.index))
        coming = self._world.answer(effect)
        if coming is not None:
            self._come(coming[0], name, coming[1])

    def _tell_parent(self, name: str, run: Run, outcome: Outcome) -> None:
        if (parent := self._parents.get(name)) is not None:
            ended = ChildEnded(
                step=parent[1],
                index=parent[2],
                outcome=outcome,
                rounds=run.rounds,
                steps=run.step + run.child_steps,
                tool_calls=run.tool_calls,
                usage=run.usage,
            )
            self._come(0.0, parent[0], ended)

    def _come(self, seconds: float, name: str, event: Event) -> None:
        heapq.heappush(self._coming, (self.now + seconds, next(self._number), name, event))


def _inputs(graph: Graph, given: Mapping[str, JSON]) -> dict[str, JSON]:
    defaults = {name: schema["default"] for name, schema in graph.spec.inputs.items() if "default" in schema}
    return {**defaults, **given}


def said(content: str, *, seconds: float = 0.5, prompt: int = 20, written: int = 8, cached: int = 0) -> Answer:
    """Return a reply with a text."""
    usage = Usage(prompt_tokens=prompt, completion_tokens=written, cached_tokens=cached)
    return seconds, Reply(content=content, usage=usage)


def calls(*wishes: tuple[str, str], seconds: float = 0.4, prompt: int = 20, written: int = 12) -> Answer:
    """Return a reply with tool calls: names, and arguments as JSON text."""
    tool_calls = tuple(ToolCall(id="", name=name, arguments=arguments) for name, arguments in wishes)
    usage = Usage(prompt_tokens=prompt, completion_tokens=written)
    return seconds, Reply(tool_calls=tool_calls, finish_reason="tool_calls", usage=usage)
