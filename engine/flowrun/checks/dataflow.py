"""The states as a graph, and what a run has set by the time that it enters each of them.

A forward data flow over the graph, to its fixed point. What must be set at a merge is what every way there has set;
who may have given the last reply is who may have on any way. A way out of a failed state (``catch``) has the error and
nothing of what the state would have set.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec

from flowrun.core.graph import Edge, edges
from flowrun.spec.model import ChatState, EndState, Spec, ToolsState, Working

if TYPE_CHECKING:
    import networkx

Slot = tuple[str, ...]
"""What may be set or not: ``("reply",)``, ``("vars", "draft")``, ``("outputs", "ask")``."""


class Facts(msgspec.Struct, frozen=True):
    """What holds where a state is entered: the slots surely set, and the chat states that may have replied last."""

    set: frozenset[Slot]
    speakers: frozenset[str]


class StateGraph(msgspec.Struct, frozen=True):
    """The graph of a spec. ``facts`` has the states that can be reached."""

    spec: Spec
    outgoing: Mapping[str, list[Edge]]
    incoming: Mapping[str, list[Edge]]
    facts: Mapping[str, Facts]

    def path_without(self, slot: Slot, state: str) -> list[Edge]:
        """Give the shortest way from the start to a state on which a slot is not set."""
        before: dict[str, Edge | None] = {self.spec.start: None}
        waiting = deque([self.spec.start])
        while waiting and state not in before:
            here = waiting.popleft()
            for edge in self.outgoing[here]:
                if edge.target not in before and slot not in gains(self.spec, edge):
                    before[edge.target] = edge
                    waiting.append(edge.target)
        path: list[Edge] = []
        at = before.get(state)
        while at is not None:
            path.append(at)
            at = before[at.source]
        return path[::-1]


def build_state_graph(spec: Spec) -> StateGraph:
    """Analyse a spec; ways that lead nowhere are left out."""
    outgoing: dict[str, list[Edge]] = {name: [] for name in spec.states}
    incoming: dict[str, list[Edge]] = {name: [] for name in spec.states}
    for edge in edges(spec):
        if edge.target in spec.states:
            outgoing[edge.source].append(edge)
            incoming[edge.target].append(edge)
    return StateGraph(spec, outgoing, incoming, _flow(spec, outgoing))


def _flow(spec: Spec, outgoing: Mapping[str, list[Edge]]) -> dict[str, Facts]:
    if spec.start not in spec.states:
        return {}
    facts = {spec.start: Facts(frozenset(("vars", name) for name in spec.vars), frozenset())}
    waiting = deque([spec.start])
    while waiting:
        here = waiting.popleft()
        entered = facts[here]
        for edge in outgoing[here]:
            spoken = edge.kind == "route" and isinstance(spec.states[here], ChatState)
            arriving = Facts(entered.set | gains(spec, edge), frozenset({here}) if spoken else entered.speakers)
            known = facts.get(edge.target)
            merged = arriving if known is None else Facts(known.set & arriving.set, known.speakers | arriving.speakers)
            if merged != known:
                facts[edge.target] = merged
                waiting.append(edge.target)
    return facts


def gains(spec: Spec, edge: Edge) -> frozenset[Slot]:
    """Give what taking a way out of a state sets."""
    if edge.kind == "catch":
        return frozenset({("error",)})
    state = spec.states[edge.source]
    assert not isinstance(state, EndState)
    return own_gains(edge.source, state) | {("vars", name) for name in state.set}


def own_gains(name: str, state: Working) -> frozenset[Slot]:
    """Give what a state sets before its ``set``."""
    own: set[Slot] = {("outputs", name)}
    if isinstance(state, ChatState):
        own.add(("reply",))
    elif isinstance(state, ToolsState):
        own.add(("results",))
    return frozenset(own)


def reached(outgoing: Mapping[str, list[Edge]], starts: Iterable[str]) -> set[str]:
    """Give the states that some way leads to from those given, and these themselves."""
    import networkx

    graph = _graph(outgoing)
    return {name for start in starts for name in (start, *networkx.descendants(graph, start))}


def reaching(incoming: Mapping[str, list[Edge]], ends: Iterable[str]) -> set[str]:
    """Give the states from which some way leads to those given, and these themselves."""
    import networkx

    graph = _graph(incoming)
    return {name for end in ends for name in (end, *networkx.ancestors(graph, end))}


def cycles(inner: Mapping[str, list[Edge]]) -> list[set[str]]:
    """Give the strongly connected parts that hold a cycle."""
    import networkx

    graph = _graph(inner)
    return [
        part
        for part in networkx.strongly_connected_components(graph)
        if len(part) > 1 or any(graph.has_edge(name, name) for name in part)
    ]


def _graph(ways: Mapping[str, list[Edge]]) -> "networkx.DiGraph[str]":
    import networkx

    graph: networkx.DiGraph[str] = networkx.DiGraph()
    graph.add_nodes_from(ways)
    graph.add_edges_from((edge.source, edge.target) for edges in ways.values() for edge in edges)
    return graph


def spell(path: list[Edge]) -> Iterator[str]:
    """Give the names along a way; one after a failure is marked."""
    if path:
        yield path[0].source
    for edge in path:
        yield f"(catch) {edge.target}" if edge.kind == "catch" else edge.target
