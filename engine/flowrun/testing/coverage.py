"""Which states and ways of the tested specs some test took, and which none did."""

from collections.abc import Iterator, Sequence
from pathlib import Path as FilePath

import msgspec

from flowrun.core.graph import Graph, edges
from flowrun.errors import Path, Place, dotted
from flowrun.runtime.prepare import Flow
from flowrun.spec import FlowTree, place_of
from flowrun.spec.document import written_path
from flowrun.testing.trace import Taken, Trace

Key = tuple[FilePath, Path]
"""A flow: its file wherever it is referred to from, and the path in there if it is a local one."""


class Untaken(msgspec.Struct, frozen=True, order=True):
    """A state or way that no test took."""

    place: Place
    what: str


class Covered(msgspec.Struct, frozen=True, kw_only=True):
    """How much of one flow the tests took."""

    name: str
    taken: int
    known: int
    untaken: tuple[Untaken, ...]


class Coverage:
    """Adds up what tests went through."""

    def __init__(self) -> None:
        self._known: dict[Key, dict[Taken, Untaken]] = {}
        self._names: dict[Key, str] = {}
        self._taken: set[tuple[Key, Taken]] = set()

    def expect(self, flow: Flow) -> None:
        """Count the states and ways of a flow and its sub-flows among those to be taken."""
        for tree in flow.tree.walk():
            key = _key(tree)
            self._known.setdefault(key, {}).update(_parts(tree))
            self._names.setdefault(key, f"{tree.loaded.document.file}{f'#{tree.base[-1]}' if tree.base else ''}")

    def add(self, flow: Flow, trace: Trace) -> None:
        """Count what a run of a flow took."""
        keys = dict(_keys(flow.graph, flow.tree))
        self._taken.update((keys[id(graph)], taken) for graph, taken in trace.taken())

    def flows(self) -> Iterator[Covered]:
        """Give the flows, in the order in which they were first tested."""
        for key, parts in self._known.items():
            left = tuple(sorted(untaken for part, untaken in parts.items() if (key, part) not in self._taken))
            yield Covered(name=self._names[key], taken=len(parts) - len(left), known=len(parts), untaken=left)


def _key(tree: FlowTree) -> Key:
    return FilePath(tree.loaded.document.file).resolve(), tree.base


def _keys(graph: Graph, tree: FlowTree) -> Iterator[tuple[int, Key]]:
    """Give the flow that each compiled graph comes from."""
    yield id(graph), _key(tree)
    for reference, child in graph.flows.items():
        yield from _keys(child, tree.flows[reference])


def _parts(tree: FlowTree) -> Iterator[tuple[Taken, Untaken]]:
    """Give every state and way of a flow, with what is to be said if no test takes it."""
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
    """Write how much of each flow the tests took, and below it what they did not."""
    if not flows:
        return "coverage: no flow could run"
    width = max(len(flow.name) for flow in flows)
    lines = ["coverage of states and ways"]
    for flow in flows:
        lines.append(f"  {flow.name:<{width}}  {_percent(flow.taken, flow.known):>4}  {flow.taken} of {flow.known}")
        lines += (f"    {untaken.place}  {untaken.what}" for untaken in flow.untaken)
    taken, known = sum(flow.taken for flow in flows), sum(flow.known for flow in flows)
    lines.append(f"  {'all':<{width}}  {_percent(taken, known):>4}  {taken} of {known}")
    return "\n".join(lines)


def _percent(part: int, whole: int) -> str:
    """Round down, so that 100% is all of it."""
    return f"{100 * part // whole}%"
