"""FR304: a loop ends by what happens in it, not by ``limits.max_steps``.

A loop that asks a model is bounded by ``limits.max_rounds``, one that waits for a person by the person. Any other must
have a way out whose condition reads something that the loop itself changes.
"""

from collections.abc import Iterator, Mapping

from flowrun.checks.dataflow import Slot, cycles, gains
from flowrun.checks.subject import Subject
from flowrun.core.graph import Edge
from flowrun.core.texts import Text, texts_of
from flowrun.errors import Issue
from flowrun.spec.model import ChatState, FlowState, MapState, ParallelState, Spec, State, WaitState


def check_loops(subject: Subject) -> Iterator[Issue]:
    """Find loops that nothing bounds but the number of steps."""
    spec, ways = subject.spec, subject.ways
    quiet = {name for name, state in spec.states.items() if name in ways.facts and not _asks(subject, state)}
    inner = {name: [edge for edge in ways.outgoing[name] if edge.target in quiet] for name in quiet}
    conditions = [text for text in texts_of(spec) if text.moment == "left"]
    for loop in cycles(inner):
        leaving = [edge for name in loop for edge in ways.outgoing[name] if edge.target not in loop]
        if leaving and not _ends_by_itself(spec, loop, ways.outgoing, leaving, conditions):
            first = next(name for name in spec.states if name in loop)
            way = " > ".join([*_around(inner, loop, first), first])
            message = f"nothing that happens in the loop {way} decides when it ends, but limits.max_steps"
            remedy = "leave it by a route whose condition reads what the loop sets, such as a counter in vars"
            yield subject.issue("FR304", ("states", first), message, remedy, key=True, severity="warning")


def _asks(subject: Subject, state: State) -> bool:
    """Tell whether a state asks a model or a person, by itself or in a sub-flow; one that is not known may."""
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
    changed: set[Slot] = {("run",)}
    for name in loop:
        for edge in outgoing[name]:
            changed |= gains(spec, edge) if edge.target in loop or edge.kind == "route" else set()
    deciding = {edge.source for edge in leaving if edge.kind == "route"}
    return any(_reads_any(text, changed) for text in conditions if text.state in deciding)


def _reads_any(text: Text, changed: set[Slot]) -> bool:
    return any(path[:1] in changed or path[:2] in changed or len(path) == 1 for path in text.reads_if_valid().paths)


def _around(inner: Mapping[str, list[Edge]], loop: set[str], first: str) -> list[str]:
    """Give the states of a shortest way around a loop, from its first one."""
    before: dict[str, str] = {}
    waiting = [first]
    while waiting:
        here = waiting.pop(0)
        for edge in inner[here]:
            if edge.target == first:
                way = [here]
                while way[-1] != first:
                    way.append(before[way[-1]])
                return way[::-1]
            if edge.target in loop and edge.target not in before:
                before[edge.target] = here
                waiting.append(edge.target)
    return [first]
