"""The graph of a spec's states, and a data-flow analysis: which slots are set when a run enters a state.

The analysis runs forward over the graph to its fixed point. Where paths merge, a slot is set if it is set on all of
them, and a chat state may have given the last reply if it may have on one of them. A ``catch`` edge sets the error and
its own variables, and none of the failed state's slots; an agent that fails may have replied.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

import msgspec

from flowrun.core.graph import Edge, edges
from flowrun.spec.model import Spec, State, WorkingState

if TYPE_CHECKING:
    import networkx

Slot = tuple[str, ...]
"""A name that a run sets, with its member: ``("reply",)``, ``("vars", "draft")``, ``("outputs", "ask")``."""


class Facts(msgspec.Struct, frozen=True):
    """The facts when a run enters a state: the slots that are set, and the chat states that may have replied last.

    ``set`` is a bit mask of the slots in ``StateGraph.bits``: Python sets would take memory that grows with the square
    of the flow's length.
    """

    set: int
    reply_states: frozenset[str]


class StateGraph(msgspec.Struct, frozen=True):
    """The graph of a spec, without edges to unknown states. ``facts`` contains only the reachable states."""

    spec: Spec
    outgoing: Mapping[str, list[Edge]]
    facts: Mapping[str, Facts]
    bits: Mapping[Slot, int]

    def is_set(self, slot: Slot, state: str) -> bool:
        """Return whether a slot is set on every path to a state."""
        return slot in self.bits and self.facts[state].set & self.bits[slot] != 0

    def path_without(self, slot: Slot, state: str) -> list[Edge]:
        """Return the shortest path from the start to a state on which no edge sets a slot; [] if there is none."""
        if state == self.spec.start:
            return []
        return shortest_path(
            self.spec.start,
            state,
            lambda here: (edge for edge in self.outgoing[here] if slot not in slots_set_by(self.spec, edge)),
        )


def build_state_graph(spec: Spec) -> StateGraph:
    """Build the graph of a spec and analyse it."""
    outgoing: dict[str, list[Edge]] = {name: [] for name in spec.states}
    for edge in edges(spec):
        if edge.target in spec.states:
            outgoing[edge.source].append(edge)
    bits: dict[Slot, int] = {}
    return StateGraph(spec, outgoing, _analyse(spec, outgoing, bits), bits)


def _analyse(spec: Spec, outgoing: Mapping[str, list[Edge]], bits: dict[Slot, int]) -> dict[str, Facts]:
    """Return the facts of all reachable states, and fill ``bits``."""
    import networkx

    if spec.start not in spec.states:
        return {}

    def mask(slots: Iterable[Slot]) -> int:
        return reduce(or_, (bits.setdefault(slot, 1 << len(bits)) for slot in slots), 0)

    facts = {spec.start: Facts(mask(("vars", name) for name in spec.vars), frozenset())}
    order = [*networkx.dfs_postorder_nodes(_graph(outgoing), spec.start)][::-1]
    changed = True
    while changed:  # without cycles, one pass sets all facts: all predecessors of a state come before it
        changed = False
        for edge in (edge for here in order for edge in outgoing[here]):
            entered, known = facts[edge.source], facts.get(edge.target)
            replied = repliers(spec, edge.source, entered.reply_states, done=edge.kind == "route")
            is_set = entered.set | mask(slots_set_by(spec, edge))
            merged = (
                Facts(is_set, replied) if known is None else Facts(known.set & is_set, known.reply_states | replied)
            )
            if merged != known:
                facts[edge.target], changed = merged, True
    return facts


def slots_set_by(spec: Spec, edge: Edge) -> frozenset[Slot]:
    """Return the slots that a move along an edge sets."""
    state = spec.states[edge.source]
    assert isinstance(state, WorkingState)
    if edge.kind == "catch":
        return frozenset({("error",), *(("vars", name) for name in state.catch[int(edge.path[3])].set)})
    return result_slots(edge.source, state) | {("vars", name) for name in state.set}


def repliers(spec: Spec, name: str, before: frozenset[str], *, done: bool) -> frozenset[str]:
    """Return the states that may have given the last reply after a state that is done, or while it is not.

    Args:
        before: the states that may have given it when the state was entered.
    """
    state = spec.states[name]
    own = frozenset({name} if state.result == "reply" else ())
    if own and done:
        return own
    return before | own if state.makes_calls else before  # what an agent's turns before have done stays


def result_slots(name: str, state: State) -> frozenset[Slot]:
    """Return the slots that a state's own result sets, before its ``set`` is evaluated."""
    names = (*filter(None, (state.result,)), *(("results",) if state.always_calls else ()))
    return frozenset({("outputs", name), *((name,) for name in names)})


def leading_to(outgoing: Mapping[str, list[Edge]], ends: Iterable[str]) -> set[str]:
    """Return ``ends`` and all states from which a path leads to one of them."""
    import networkx

    graph = _graph(outgoing)
    graph.add_node("")  # behind all ends: no state has this name
    graph.add_edges_from((end, "") for end in ends)
    return set(networkx.ancestors(graph, ""))


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


def shortest_path(start: str, end: str, edges_from: Callable[[str], Iterable[Edge]]) -> list[Edge]:
    """Return the shortest path of one or more edges from a state to another or to itself; [] if there is none."""
    before: dict[str, Edge] = {}
    queue = deque([start])
    while queue and end not in before:
        for edge in edges_from(queue.popleft()):
            if edge.target not in before:
                before[edge.target] = edge
                queue.append(edge.target)
    if end not in before:
        return []
    path = [before[end]]
    while path[-1].source != start:
        path.append(before[path[-1].source])
    return path[::-1]


def names_on_path(path: list[Edge]) -> Iterator[str]:
    """Yield the names of the states on a path. A state that a ``catch`` leads to is marked."""
    if path:
        yield path[0].source
    for edge in path:
        yield f"(catch) {edge.target}" if edge.kind == "catch" else edge.target
