"""A flow's picture with the path of its runs on it: what was visited, the ways taken, where it failed or waits."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from flowrun.core.graph import Graph
from flowrun.drawing.picture import Arrow, Box, Mark, Picture, build_picture
from flowrun.transcript.model import Child, Transcript, Visit


class FlowOverlay(msgspec.Struct, frozen=True, kw_only=True):
    """A flow, and all the runs of it that belong to a run. ``name`` is how its parent refers to it."""

    name: str
    graph: Graph
    stories: tuple[Transcript, ...]

    def picture(self) -> Picture:
        """Give the picture; a visited state links to its first visit."""
        visits = [(story, visit) for story in self.stories for visit in story.visits]
        entered = Counter(visit.state for _, visit in visits if visit.attempt == 1)
        ways = Counter(taken for _, visit in visits for taken in _taken(visit))
        first = {visit.state: f"#{anchor(story, visit)}" for story, visit in reversed(visits)}
        marks = dict(_marks(self.stories))
        picture = build_picture(self.graph.spec)
        return msgspec.structs.replace(
            picture,
            boxes=tuple(_box(box, entered, marks, first) for box in picture.boxes),
            arrows=tuple(_arrows(picture.arrows, ways)),
        )


def overlay_runs(graph: Graph, story: Transcript) -> list[FlowOverlay]:
    """Give a run's flow, and each sub-flow that it started with all of its runs together."""
    found: dict[int, tuple[str, Graph, list[Transcript]]] = {}
    _gather("", graph, story, found)
    return [FlowOverlay(name=name, graph=flow, stories=tuple(stories)) for name, flow, stories in found.values()]


def anchor(story: Transcript, visit: Visit) -> str:
    """Give the id of a visit in a page."""
    return f"{story.run}/{visit.step}"


def _gather(name: str, graph: Graph, story: Transcript, found: dict[int, tuple[str, Graph, list[Transcript]]]) -> None:
    found.setdefault(id(graph), (name, graph, []))[2].append(story)
    for visit in story.visits:
        for act in visit.acts:
            if isinstance(act, Child) and act.story is not None:
                _gather(act.flow, graph.flows[act.flow], act.story, found)


def _taken(visit: Visit) -> Iterator[tuple[str, str, int]]:
    if visit.left is not None and visit.left.how in ("route", "catch"):
        yield visit.state, visit.left.how, visit.left.number


def _marks(stories: Iterable[Transcript]) -> Iterator[tuple[str, Mark]]:
    for story in stories:
        for last in story.visits[-1:]:
            if story.outcome is not None and story.outcome.error is not None:
                yield last.state, "broken"
            elif story.status in ("waiting", "needs_attention"):
                yield last.state, "paused"


def _box(box: Box, entered: Counter[str], marks: dict[str, Mark], first: dict[str, str]) -> Box:
    mark, link = marks.get(box.name), first.get(box.name, "")
    return msgspec.structs.replace(box, visits=entered[box.name], mark=mark, link=link)


def _arrows(arrows: Sequence[Arrow], ways: Counter[tuple[str, str, int]]) -> Iterator[Arrow]:
    """Count for each arrow how often it was taken; a state's routes and catches are numbered in their order."""
    numbers: Counter[tuple[str, str]] = Counter()
    for arrow in arrows:
        kind = (arrow.source, "catch" if arrow.caught else "route")
        yield msgspec.structs.replace(arrow, taken=ways[(*kind, numbers[kind])])
        numbers[kind] += 1
