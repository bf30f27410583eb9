"""Counts the states and edges of the tested specs that tests take."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path as FilePath

import msgspec

from flowrun.core.graph import Graph, edges
from flowrun.errors import Path, Place, dotted
from flowrun.runtime.project import CompiledFlow
from flowrun.spec import FlowTree, place_of
from flowrun.spec.document import written_path
from flowrun.testing.trace import Taken, Trace

Key = tuple[FilePath, Path]
"""A flow: its file, and the path in the file if it is a local flow."""


class Untaken(msgspec.Struct, frozen=True, order=True):
    """A state or edge that no test took."""

    place: Place
    what: str


class Covered(msgspec.Struct, frozen=True, kw_only=True):
    """The coverage of one flow."""

    name: str
    taken: int
    known: int
    untaken: tuple[Untaken, ...]


class Coverage:
    """Collects the states and edges that tests take."""

    def __init__(self) -> None:
        self._known: dict[Key, dict[Taken, Untaken]] = {}
        self._names: dict[Key, str] = {}
        self._taken: set[tuple[Key, Taken]] = set()

    def expect(self, flow: CompiledFlow) -> None:
        """Add the states and edges of a flow and its sub-flows to those that tests should take."""
        for tree in flow.tree.walk():
            key = _key(tree)
            self._known.setdefault(key, {}).update(_parts(tree))
            self._names.setdefault(key, f"{tree.loaded.document.file}{f'#{tree.base[-1]}' if tree.base else ''}")

    def add(self, flow: CompiledFlow, trace: Trace) -> None:
        """Add the states and edges that a run of a flow took."""
        keys = dict(_keys(flow.graph, flow.tree))
        self._taken.update((keys[id(graph)], taken) for graph, taken in trace.taken())

    def flows(self) -> Iterator[Covered]:
        """Yield the coverage of each flow, in the order in which they were first tested."""
        for key, parts in self._known.items():
            missed = tuple(sorted(untaken for part, untaken in parts.items() if (key, part) not in self._taken))
            yield Covered(name=self._names[key], taken=len(parts) - len(missed), known=len(parts), untaken=missed)


def _key(tree: FlowTree) -> Key:
    return FilePath(tree.loaded.document.file).resolve(), tree.base


def _keys(graph: Graph, tree: FlowTree) -> Iterator[tuple[int, Key]]:
    """Yield the key of each compiled graph's flow, by the id of the graph object."""
    yield id(graph), _key(tree)
    for reference, child in graph.flows.items():
        yield from _keys(child, tree.flows[reference])


def _parts(tree: FlowTree) -> Iterator[tuple[Taken, Untaken]]:
    """Yield every state and edge of a flow, each with the ``Untaken`` to report if no test takes it."""
    document, spec = tree.loaded.document, tree.loaded.spec
    for name in spec.states:
        place = place_of(document, (*tree.base, "states", name), key=True)
        yield Taken(name), Untaken(place, f"state {name} is never entered")
    for edge in edges(spec):
        _, _, kind, index, _ = edge.path
        written = written_path(document, (*tree.base, *edge.path[:4]))
        spelt = dotted(written[len(tree.base) + 1 :])
        untaken = Untaken(place_of(document, written), f"{spelt}, to {edge.target}, is never taken")
        yield Taken(edge.source, (str(kind), int(index))), untaken


def render_coverage(flows: Sequence[Covered]) -> str:
    """Render the coverage of each flow, with the states and edges that no test took."""
    if not flows:
        return "coverage: no flow could run"
    width = max(len(flow.name) for flow in flows)
    lines = ["coverage of states and edges"]
    for flow in flows:
        lines.append(f"  {flow.name:<{width}}  {_percent(flow.taken, flow.known):>4}  {flow.taken} of {flow.known}")
        lines += (f"    {untaken.place}  {untaken.what}" for untaken in flow.untaken)
    taken, known = sum(flow.taken for flow in flows), sum(flow.known for flow in flows)
    lines.append(f"  {'all':<{width}}  {_percent(taken, known):>4}  {taken} of {known}")
    return "\n".join(lines)


def is_covered(flows: Sequence[Covered], share: Fraction) -> bool:
    """Return whether the tests took at least a share of all states and edges."""
    return sum(flow.taken for flow in flows) >= share * sum(flow.known for flow in flows)


def _percent(part: int, total: int) -> str:
    """Return a percentage, rounded down, so that 100% means all."""
    return f"{100 * part // total}%"
