"""FR3xx: every state can be reached, and from every state an end can be."""

from collections.abc import Iterator

from flowrun.checks.subject import Subject
from flowrun.errors import Issue
from flowrun.graph import to_networkx
from flowrun.spec import End


def check_graph(subject: Subject) -> Iterator[Issue]:
    """Find states that are never entered, states that no end follows, and routes that cannot be taken."""
    yield from _routes(subject)
    spec = subject.spec
    if spec.start not in spec.states:
        return
    import networkx

    graph = to_networkx(spec)
    reached = networkx.descendants(graph, spec.start) | {spec.start}
    ends = [name for name, state in spec.states.items() if isinstance(state, End)]
    ending = set(ends).union(*(networkx.ancestors(graph, end) for end in ends))
    for name in spec.states:
        path = ("states", name)
        if name not in reached:
            remedy = "route to it, or remove it"
            yield subject.issue("FR301", path, f"no route leads from the start to state {name!r}", remedy, key=True)
        elif name not in ending:
            remedy = "add a route that leads to a state of type end"
            yield subject.issue("FR302", path, f"from state {name!r} no end can be reached", remedy, key=True)


def _routes(subject: Subject) -> Iterator[Issue]:
    for name, state in subject.spec.states.items():
        if isinstance(state, End):
            continue
        for index, route in enumerate(state.routes[:-1]):
            if route.when is None:
                path = ("states", name, "routes", index + 1)
                remedy = "put the route without when last"
                yield subject.issue("FR303", path, "this route can never match: the one before always does", remedy)
                break
