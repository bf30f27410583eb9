"""What happened in a run and in the children that it started, and which ways they took.

A run is the fold of its events, so keeping these keeps everything.
"""

from collections.abc import Iterator
from itertools import pairwise

import msgspec

from flowrun.core.events import Event, Notice, StartChild
from flowrun.core.graph import CompiledRoute, EndNode, Graph, Node
from flowrun.core.machine import Run, advance, fold
from flowrun.core.machine.transitions import matches
from flowrun.spec.model import EndState
from flowrun.templates import Scope


class Taken(msgspec.Struct, frozen=True):
    """A part of a spec that a run went through: a state (``way`` None), its ``("routes", 0)`` or ``("catch", 1)``."""

    state: str
    way: tuple[str, int] | None = None


class Trace:
    """The events of a run and its children."""

    def __init__(self, graph: Graph, run: str) -> None:
        self.graphs = {run: graph}
        self._root = run
        self._events: dict[str, list[Event]] = {run: []}

    def notify(self, notice: Notice) -> None:
        """Keep an event; see ``ports.Observer``."""
        self._events.setdefault(notice.run, []).append(notice.event)
        for effect in notice.effects:
            if isinstance(effect, StartChild):
                child = f"{notice.run}.{effect.step}.{effect.index}"  # as the runner names it
                self.graphs[child] = self.graphs[notice.run].flows[effect.flow]

    @property
    def run(self) -> Run:
        """The run itself, as far as it came."""
        return self.runs()[self._root]

    def runs(self) -> dict[str, Run]:
        """Give the run and its children as far as they came, by their ids."""
        return {name: fold(self.graphs[name], events).run for name, events in self._events.items()}

    def begun(self) -> dict[str, Run]:
        """Give the run and its children as they were when they had just begun, by their ids."""
        return {name: fold(self.graphs[name], events[:1]).run for name, events in self._events.items()}

    def taken(self) -> Iterator[tuple[Graph, Taken]]:
        """Give every state and way that was taken, each as often as it was."""
        for name, events in self._events.items():
            for taken in _replay(self.graphs[name], events):
                yield self.graphs[name], taken


def _replay(graph: Graph, events: list[Event]) -> Iterator[Taken]:
    """Feed the events to the machine once more, with an eye on its routes."""
    routes: list[tuple[str, int]] = []
    watched = _watch(graph, routes)
    run = Run()
    for event in events:
        routes.clear()
        known = len(run.path)
        run = advance(watched, run, event).run
        yield from (Taken(state) for state in run.path[known:])
        for source, target in pairwise(run.path[max(known - 1, 0) :]):
            if routes and routes[0][0] == source:
                yield Taken(source, ("routes", routes.pop(0)[1]))
            else:
                yield Taken(source, ("catch", _catch(graph, run, source, target)))


def _watch(graph: Graph, routes: list[tuple[str, int]]) -> Graph:
    """Give a graph that notes each route as it is taken."""
    return msgspec.structs.replace(graph, nodes={name: _watched(node, routes) for name, node in graph.nodes.items()})


def _watched(node: Node, routes: list[tuple[str, int]]) -> Node:
    if isinstance(node, EndNode):
        return node

    def watched(index: int, way: CompiledRoute) -> CompiledRoute:
        def holds(scope: Scope) -> bool:
            taken = way.holds is None or way.holds(scope)
            if taken:
                routes.append((node.name, index))
            return taken

        return msgspec.structs.replace(way, holds=holds)

    return msgspec.structs.replace(node, ways=tuple(watched(index, way) for index, way in enumerate(node.ways)))


def _catch(graph: Graph, run: Run, source: str, target: str) -> int:
    """Give the index of the catch that led from one state to another."""
    state = graph.spec.states[source]
    assert not isinstance(state, EndState)
    error = run.error.name if run.error is not None else ""
    leading = [index for index, catch in enumerate(state.catch) if catch.to == target]
    return next((index for index in leading if matches(error, state.catch[index].errors)), leading[0])
