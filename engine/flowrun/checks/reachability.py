"""FR301 and FR302: every state can be reached, and from every state an end can be."""

from collections.abc import Iterator

from flowrun.checks.dataflow import reached, reaching
from flowrun.checks.subject import Subject
from flowrun.errors import Issue
from flowrun.spec.model import EndState


def check_graph(subject: Subject) -> Iterator[Issue]:
    """Find states that are never entered, and states that no end follows."""
    spec, ways = subject.spec, subject.ways
    if spec.start not in spec.states:
        return
    entered = reached(ways.outgoing, [spec.start])
    ending = reaching(ways.incoming, [name for name, state in spec.states.items() if isinstance(state, EndState)])
    for name in spec.states:
        path = ("states", name)
        if name not in entered:
            remedy = "route to it, or remove it"
            yield subject.issue("FR301", path, f"no route leads from the start to state {name!r}", remedy, key=True)
        elif name not in ending:
            remedy = "add a route that leads to a state of type end"
            yield subject.issue("FR302", path, f"from state {name!r} no end can be reached", remedy, key=True)
