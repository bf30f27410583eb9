"""The edges of a spec, for analysis: whole values, in the order of the spec."""

from flowrun.core.graph import Edge, edges
from tests.flows import spec_of

FLOW = """\
states:
  ask:
    type: wait
    prompt: Well?
    routes: [{when: outputs.ask, to: done}, {to: ask}]
    catch: [{errors: [wait.timeout, template.*], to: gone}, {to: done}]
  done: {type: end}
  last: {type: route, next: done}
"""


def test_edges() -> None:
    at = ("states", "ask")
    assert list(edges(spec_of(FLOW))) == [
        Edge(source="ask", target="done", kind="route", label="outputs.ask", path=(*at, "routes", 0, "to")),
        Edge(source="ask", target="ask", kind="route", label="", path=(*at, "routes", 1, "to")),
        Edge(source="ask", target="gone", kind="catch", label="wait.timeout, template.*", path=(*at, "catch", 0, "to")),
        Edge(source="ask", target="done", kind="catch", label="any error", path=(*at, "catch", 1, "to")),
        Edge(source="last", target="done", kind="route", label="", path=("states", "last", "routes", 0, "to")),
    ]
