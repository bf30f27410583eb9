"""Which ways a run takes: the machine is asked again, with an eye on what it decides. Nothing is decided here."""

import msgspec

from flowrun.core.events import Event
from flowrun.core.graph import CompiledRoute, EndNode, Graph, Node
from flowrun.core.machine import Run, advance
from flowrun.errors import Failure
from flowrun.spec.model import JSON, EndState
from flowrun.templates import Evaluator, Scope


class Note(msgspec.Struct, frozen=True):
    """What a state did when it was left: took its route ``route``, or set the variable ``name`` to ``value``."""

    state: str
    route: int | None = None
    name: str = ""
    value: JSON = None


def watch(graph: Graph, notes: list[Note]) -> Graph:
    """Give a graph that notes each variable that is set and each route that is taken."""
    nodes = {name: _watched(node, notes) for name, node in graph.nodes.items()}
    return msgspec.structs.replace(graph, nodes=nodes)


def _watched(node: Node, notes: list[Note]) -> Node:
    if isinstance(node, EndNode):
        return node

    def watched_way(index: int, way: CompiledRoute) -> CompiledRoute:
        def holds(scope: Scope) -> bool:
            taken = way.holds is None or way.holds(scope)
            if taken:
                notes.append(Note(node.name, index))
            return taken

        return msgspec.structs.replace(way, holds=holds)

    def watched_set(name: str, evaluate: Evaluator) -> Evaluator:
        def evaluated(scope: Scope) -> JSON:
            value = evaluate(scope)
            notes.append(Note(node.name, None, name, value))
            return value

        return evaluated

    return msgspec.structs.replace(
        node,
        ways=tuple(watched_way(index, way) for index, way in enumerate(node.ways)),
        assignments=tuple((name, watched_set(name, evaluate)) for name, evaluate in node.assignments),
    )


def failure_in(graph: Graph, run: Run, event: Event, state: str) -> Failure | None:
    """Give the failure of a state that was retried or caught: the one that ends the run if it can be neither."""
    node = graph.nodes[state]
    if isinstance(node, EndNode):
        return None
    strict = msgspec.structs.replace(node, retry=None, catches=())
    outcome = advance(msgspec.structs.replace(graph, nodes={**graph.nodes, state: strict}), run, event).run.outcome
    return None if outcome is None else outcome.error


def catch_of(graph: Graph, state: str, target: str, failure: Failure | None) -> int | None:
    """Give the number of the catch that led from one state to another; None if none did, so nobody can say."""
    node = graph.spec.states[state]
    assert not isinstance(node, EndState)
    name = failure.name if failure is not None else ""
    leading = [index for index, catch in enumerate(node.catch) if catch.to == target]
    return next((index for index in leading if _names(node.catch[index].errors, name)), next(iter(leading), None))


def _names(patterns: tuple[str, ...], name: str) -> bool:
    return not patterns or any(name == p or (p.endswith(".*") and name.startswith(p[:-1])) for p in patterns)
