"""FR301 and FR302: a path leads from the start to every state, and from every state to an end."""

from collections.abc import Iterator

from flowrun.checks.dataflow import leading_to
from flowrun.checks.subject import Subject
from flowrun.core.graph import edges
from flowrun.errors import Issue
from flowrun.spec.model import EndState


def check_graph(subject: Subject) -> Iterator[Issue]:
    """Find states that no path enters, and states from which no path leads to an end."""
    spec, graph = subject.spec, subject.state_graph
    if spec.start not in spec.states:
        return
    lost = {edge.source for edge in edges(spec) if edge.target not in spec.states}  # FR701: they lead anywhere
    ends = [name for name, state in spec.states.items() if isinstance(state, EndState) or name in lost]
    ending = leading_to(graph.outgoing, ends)
    for name in spec.states:
        path = ("states", name)
        if name not in graph.facts:
            if lost:
                continue
            remedy = "route to it, or remove it"
            yield subject.issue("FR301", path, f"no route leads from the start to state {name!r}", remedy, key=True)
        elif name not in ending:
            remedy = "add a route that leads to a state of type end"
            yield subject.issue("FR302", path, f"from state {name!r} no end can be reached", remedy, key=True)
