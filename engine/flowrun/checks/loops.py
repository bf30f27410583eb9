"""FR304: a loop can end before ``limits.max_steps``.

A loop that asks a model is bounded by ``limits.max_rounds``; a loop that waits for a person is bounded by the person.
Any other loop needs a route out of it whose condition reads something that the loop changes.
"""

from collections.abc import Iterator, Mapping

from flowrun.checks.dataflow import Slot, cycles, shortest_path, slots_set_by
from flowrun.checks.subject import Subject
from flowrun.core.graph import Edge
from flowrun.core.texts import Text
from flowrun.errors import Issue
from flowrun.spec import FlowTree
from flowrun.spec.model import Holds, Spec, State
from flowrun.spec.parts import parts_of


def check_loops(subject: Subject) -> Iterator[Issue]:
    """Find loops that only the number of steps bounds."""
    if subject.unsure:
        return
    spec, graph = subject.spec, subject.state_graph
    silent = {name for name, state in spec.states.items() if name in graph.facts and not _asks(subject.tree, state)}
    inner = {name: [edge for edge in graph.outgoing[name] if edge.target in silent] for name in silent}
    conditions: dict[str, list[Text]] = {}
    for text in subject.texts:
        if text.moment == "left":
            conditions.setdefault(text.state, []).append(text)
    number = {name: index for index, name in enumerate(spec.states)}
    for loop in cycles(inner):
        leaving = [edge for name in loop for edge in graph.outgoing[name] if edge.target not in loop]
        if leaving and not _ends_by_itself(spec, loop, graph.outgoing, leaving, conditions):
            first = min(loop, key=number.__getitem__)
            cycle = " > ".join([first, *(edge.target for edge in shortest_path(first, first, inner.__getitem__))])
            message = f"nothing that happens in the loop {cycle} decides when it ends, but limits.max_steps"
            remedy = "leave it by a route whose condition reads what the loop sets, such as a counter in vars"
            yield subject.issue("FR304", ("states", first), message, remedy, key=True, severity="warning")


def _asks(flow: FlowTree, state: State) -> bool:
    """Return whether a state asks a model or a person, directly or in a sub-flow; True for an unknown sub-flow."""
    children = [flow.flows.get(part.value) for part in parts_of(state, Holds.FLOW)]
    return state.asks != "nobody" or any(
        child is None or any(_asks(child, inner) for inner in child.loaded.spec.states.values()) for child in children
    )


def _ends_by_itself(
    spec: Spec,
    loop: set[str],
    outgoing: Mapping[str, list[Edge]],
    leaving: list[Edge],
    conditions: Mapping[str, list[Text]],
) -> bool:
    """Return whether the condition of a route out of a loop reads something that the loop changes.

    Args:
        leaving: the edges out of the loop.
        conditions: the conditions of the routes of each state.
    """
    changed: set[Slot] = {("run",)}
    for name in loop:
        for edge in outgoing[name]:
            changed |= slots_set_by(spec, edge) if edge.target in loop or edge.kind == "route" else set()
    deciding = {edge.source for edge in leaving if edge.kind == "route"}
    return any(_reads_any(text, changed) for state in deciding for text in conditions.get(state, ()))


def _reads_any(text: Text, changed: set[Slot]) -> bool:
    return any(path[:1] in changed or path[:2] in changed or len(path) == 1 for path in text.reads_if_valid().paths)
