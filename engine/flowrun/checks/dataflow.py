"""The graph of a spec's states, and a data-flow analysis: which slots are set when a run enters a state.

The analysis runs forward over the graph to its fixed point. Where paths merge, a slot is set if it is set on all of
them, and a chat state may have given the last reply if it may have on one of them. A ``catch`` edge sets the error and
none of the failed state's slots.
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
"""A name that a run sets, with its member: ``("reply",)``, ``("vars", "draft")``, ``("outputs", "ask")``."""


class Facts(msgspec.Struct, frozen=True):
    """The facts when a run enters a state: the slots that are set, and the chat states that may have replied last."""

    set: frozenset[Slot]
    reply_states: frozenset[str]


class StateGraph(msgspec.Struct, frozen=True):
    """The graph of a spec, without edges to unknown states. ``facts`` contains only the reachable states."""

    spec: Spec
    outgoing: Mapping[str, list[Edge]]
    incoming: Mapping[str, list[Edge]]
    facts: Mapping[str, Facts]

    def path_without(self, slot: Slot, state: str) -> list[Edge]:
        """Return the shortest path from the start to a state on which no edge sets a slot; [] if there is none."""
        before: dict[str, Edge | None] = {self.spec.start: None}
        queue = deque([self.spec.start])
        while queue and state not in before:
            here = queue.popleft()
            for edge in self.outgoing[here]:
                if edge.target not in before and slot not in slots_set_by(self.spec, edge):
                    before[edge.target] = edge
                    queue.append(edge.target)
        path: list[Edge] = []
        at = before.get(state)
        while at is not None:
            path.append(at)
            at = before[at.source]
        return path[::-1]


def build_state_graph(spec: Spec) -> StateGraph:
    """Build the graph of a spec and analyse it."""
    outgoing: dict[str, list[Edge]] = {name: [] for name in spec.states}
    incoming: dict[str, list[Edge]] = {name: [] for name in spec.states}
    for edge in edges(spec):
        if edge.target in spec.states:
            outgoing[edge.source].append(edge)
            incoming[edge.target].append(edge)
    return StateGraph(spec, outgoing, incoming, _analyse(spec, outgoing))


def _analyse(spec: Spec, outgoing: Mapping[str, list[Edge]]) -> dict[str, Facts]:
    if spec.start not in spec.states:
        return {}
    facts = {spec.start: Facts(frozenset(("vars", name) for name in spec.vars), frozenset())}
    queue = deque([spec.start])
    while queue:
        here = queue.popleft()
        entered = facts[here]
        for edge in outgoing[here]:
            replies = edge.kind == "route" and isinstance(spec.states[here], ChatState)
            arriving = Facts(
                entered.set | slots_set_by(spec, edge), frozenset({here}) if replies else entered.reply_states
            )
            known = facts.get(edge.target)
            merged = (
                arriving
                if known is None
                else Facts(known.set & arriving.set, known.reply_states | arriving.reply_states)
            )
            if merged != known:
                facts[edge.target] = merged
                queue.append(edge.target)
    return facts


def slots_set_by(spec: Spec, edge: Edge) -> frozenset[Slot]:
    """Return the slots that a move along an edge sets."""
    if edge.kind == "catch":
        return frozenset({("error",)})
    state = spec.states[edge.source]
    assert not isinstance(state, EndState)
    return result_slots(edge.source, state) | {("vars", name) for name in state.set}


def result_slots(name: str, state: Working) -> frozenset[Slot]:
    """Return the slots that a state's own result sets, before its ``set`` is evaluated."""
    slots: set[Slot] = {("outputs", name)}
    if isinstance(state, ChatState):
        slots.add(("reply",))
    elif isinstance(state, ToolsState):
        slots.add(("results",))
    return frozenset(slots)


def reachable_from(outgoing: Mapping[str, list[Edge]], starts: Iterable[str]) -> set[str]:
    """Return ``starts`` and all states that a path from one of them leads to."""
    import networkx

    graph = _graph(outgoing)
    return {name for start in starts for name in (start, *networkx.descendants(graph, start))}


def leading_to(incoming: Mapping[str, list[Edge]], ends: Iterable[str]) -> set[str]:
    """Return ``ends`` and all states from which a path leads to one of them."""
    import networkx

    graph = _graph(incoming)
    return {name for end in ends for name in (end, *networkx.ancestors(graph, end))}


def cycles(outgoing: Mapping[str, list[Edge]]) -> list[set[str]]:
    """Return the strongly connected components that contain a cycle."""
    import networkx

    graph = _graph(outgoing)
    return [
        component
        for component in networkx.strongly_connected_components(graph)
        if len(component) > 1 or any(graph.has_edge(name, name) for name in component)
    ]


def _graph(edges_of: Mapping[str, list[Edge]]) -> "networkx.DiGraph[str]":
    import networkx

    graph: networkx.DiGraph[str] = networkx.DiGraph()
    graph.add_nodes_from(edges_of)
    graph.add_edges_from((edge.source, edge.target) for edges in edges_of.values() for edge in edges)
    return graph


def names_on_path(path: list[Edge]) -> Iterator[str]:
    """Yield the names of the states on a path. A state that a ``catch`` leads to is marked."""
    if path:
        yield path[0].source
    for edge in path:
        yield f"(catch) {edge.target}" if edge.kind == "catch" else edge.target
