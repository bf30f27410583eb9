"""Records the events and moves of a run and its children. The runs are rebuilt from their events."""

from collections.abc import Iterator

import msgspec

from flowrun.core.events import CallFunction, Event, Move, Notice, RequestInput, StartChild
from flowrun.core.graph import Graph
from flowrun.core.machine import Run, fold
from flowrun.spec.model import JSON


class Taken(msgspec.Struct, frozen=True):
    """A state that a run entered, or, with ``edge``, a route or catch that it took: ``("catch", 1)`` is the second."""

    state: str
    edge: tuple[str, int] | None = None


class CallLog:
    """The calls of a run and its children, in order, in the forms of ``ExpectedCall`` and ``ExpectedFunctionCall``.

    ``calls`` holds those of tools, ``function_calls`` those of ``call`` states.
    """

    def __init__(self) -> None:
        self.calls: list[JSON] = []
        self.function_calls: list[JSON] = []

    def add(self, effect: CallFunction) -> None:
        """Record a call."""
        arguments = dict(effect.arguments)
        if effect.tool is not None:
            self.calls.append({"name": effect.tool, "arguments": arguments})
        else:
            call = {"state": effect.state, "entrypoint": effect.entrypoint, "arguments": arguments}
            self.function_calls.append(call)


class Trace:
    """The events of a run and its children. ``requests`` are the questions to people, in order."""

    def __init__(self, graph: Graph, run: str) -> None:
        self.graphs = {run: graph}
        self.requests: list[RequestInput] = []
        self._root = run
        self._events: dict[str, list[Event]] = {run: []}
        self._moves: dict[str, list[Move]] = {run: []}

    def notify(self, notice: Notice) -> None:
        """Record an event and its moves. See ``ports.Observer.notify``."""
        self._events.setdefault(notice.run, []).append(notice.event)
        self._moves.setdefault(notice.run, []).extend(notice.moves)
        for effect in notice.effects:
            if isinstance(effect, RequestInput):
                self.requests.append(effect)
            elif isinstance(effect, StartChild):
                self.graphs[effect.child_id(notice.run)] = self.graphs[notice.run].flows[effect.flow]

    @property
    def run(self) -> Run:
        """The run after its last event."""
        return self.runs()[self._root]

    @property
    def moves(self) -> list[Move]:
        """The moves of the run, without those of its children."""
        return self._moves[self._root]

    def runs(self) -> dict[str, Run]:
        """Return the run and its children after their last events, by their ids."""
        return {name: fold(self.graphs[name], events).run for name, events in self._events.items()}

    def begun(self) -> dict[str, Run]:
        """Return the run and its children after their first events, by their ids."""
        return {name: fold(self.graphs[name], events[:1]).run for name, events in self._events.items()}

    def taken(self) -> Iterator[tuple[Graph, Taken]]:
        """Yield every state and edge that was taken, once for each time."""
        for name, run in self.runs().items():
            graph = self.graphs[name]
            yield from ((graph, Taken(state)) for state in run.path)
            for move in self._moves[name]:
                if move.index is not None:
                    yield graph, Taken(move.state, ("routes" if move.how == "route" else "catch", move.index))
