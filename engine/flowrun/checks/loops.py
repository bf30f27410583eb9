"""FR304: a loop can end before ``limits.max_steps``.

A loop that asks a model is bounded by ``limits.max_rounds``; a loop that waits for a person is bounded by the person.
Any other loop needs a route out of it whose condition reads something that the loop changes.
"""

from collections.abc import Iterator, Mapping

from flowrun.checks.dataflow import Slot, cycles, slots_set_by
from flowrun.checks.subject import Subject
from flowrun.core.graph import Edge
from flowrun.core.texts import Text, texts_of
from flowrun.errors import Issue
from flowrun.spec.model import ChatState, FlowState, MapState, ParallelState, Spec, State, WaitState


def check_loops(subject: Subject) -> Iterator[Issue]:
    """Find loops that only the number of steps bounds."""
    spec, graph = subject.spec, subject.state_graph
    silent = {name for name, state in spec.states.items() if name in graph.facts and not _asks(subject, state)}
    inner = {name: [edge for edge in graph.outgoing[name] if edge.target in silent] for name in silent}
    conditions = [text for text in texts_of(spec) if text.moment == "left"]
    for loop in cycles(inner):
        leaving = [edge for name in loop for edge in graph.outgoing[name] if edge.target not in loop]
        if leaving and not _ends_by_itself(spec, loop, graph.outgoing, leaving, conditions):
            first = next(name for name in spec.states if name in loop)
            cycle = " > ".join([*_shortest_cycle(inner, loop, first), first])
            message = f"nothing that happens in the loop {cycle} decides when it ends, but limits.max_steps"
            remedy = "leave it by a route whose condition reads what the loop sets, such as a counter in vars"
            yield subject.issue("FR304", ("states", first), message, remedy, key=True, severity="warning")


def _asks(subject: Subject, state: State) -> bool:
    """Return whether a state asks a model or a person, directly or in a sub-flow; True for an unknown sub-flow."""
    match state:
        case ChatState() | WaitState():
            return True
        case FlowState() | MapState():
            return _flow_asks(subject.flows.get(state.flow))
        case ParallelState():
            return any(_flow_asks(subject.flows.get(branch.flow)) for branch in state.branches.values())
        case _:
            return False


def _flow_asks(flow: Spec | None) -> bool:
    if flow is None:
        return True
    return any(
        isinstance(state, (ChatState, WaitState, FlowState, MapState, ParallelState)) for state in flow.states.values()
    )


def _ends_by_itself(
    spec: Spec, loop: set[str], outgoing: Mapping[str, list[Edge]], leaving: list[Edge], conditions: list[Text]
) -> bool:
    """Return whether the condition of a route out of a loop reads something that the loop changes.

    Args:
        leaving: the edges out of the loop.
        conditions: the conditions of all routes of the spec.
    """
    changed: set[Slot] = {("run",)}
    for name in loop:
        for edge in outgoing[name]:
            changed |= slots_set_by(spec, edge) if edge.target in loop or edge.kind == "route" else set()
    deciding = {edge.source for edge in leaving if edge.kind == "route"}
    return any(_reads_any(text, changed) for text in conditions if text.state in deciding)


def _reads_any(text: Text, changed: set[Slot]) -> bool:
    return any(path[:1] in changed or path[:2] in changed or len(path) == 1 for path in text.reads_if_valid().paths)


def _shortest_cycle(inner: Mapping[str, list[Edge]], loop: set[str], first: str) -> list[str]:
    """Return the states of a shortest cycle in a loop, from the state ``first``."""
    before: dict[str, str] = {}
    queue = [first]
    while queue:
        here = queue.pop(0)
        for edge in inner[here]:
            if edge.target == first:
                cycle = [here]
                while cycle[-1] != first:
                    cycle.append(before[cycle[-1]])
                return cycle[::-1]
            if edge.target in loop and edge.target not in before:
                before[edge.target] = here
                queue.append(edge.target)
    return [first]
