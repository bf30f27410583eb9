"""What happened in a run and in the children that it started, and which ways they took.

A run is the fold of its events, so keeping these keeps everything.
"""

from collections.abc import Iterator

import msgspec

from flowrun.core.events import Event, Move, Notice, StartChild
from flowrun.core.graph import Graph
from flowrun.core.machine import Run, fold


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
        self._moves: dict[str, list[Move]] = {run: []}

    def notify(self, notice: Notice) -> None:
        """Keep an event; see ``ports.Observer``."""
        self._events.setdefault(notice.run, []).append(notice.event)
        self._moves.setdefault(notice.run, []).extend(notice.moves)
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
        for name, run in self.runs().items():
            graph = self.graphs[name]
            yield from ((graph, Taken(state)) for state in run.path)
            for move in self._moves[name]:
                if move.index is not None:
                    yield graph, Taken(move.state, ("routes" if move.how == "route" else "catch", move.index))
