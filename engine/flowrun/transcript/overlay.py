"""The picture of a flow with the path of its runs: visited states, edges taken, and where it failed or waits."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from flowrun.core.graph import Graph
from flowrun.drawing.picture import Arrow, Box, Mark, Picture, build_picture
from flowrun.transcript.model import Child, Transcript, Visit


class FlowOverlay(msgspec.Struct, frozen=True, kw_only=True):
    """A flow, with the transcripts of all its runs in one top run. ``name`` is the reference in the parent's spec."""

    name: str
    graph: Graph
    transcripts: tuple[Transcript, ...]

    def picture(self) -> Picture:
        """Return the picture; a visited state links to its first visit."""
        visits = [(transcript, visit) for transcript in self.transcripts for visit in transcript.visits]
        entered = Counter(visit.state for _, visit in visits if visit.attempt == 1)
        taken_counts = Counter(taken for _, visit in visits for taken in _taken(visit))
        first = {visit.state: f"#{anchor(transcript, visit)}" for transcript, visit in reversed(visits)}
        marks = dict(_marks(self.transcripts))
        picture = build_picture(self.graph.spec)
        return msgspec.structs.replace(
            picture,
            boxes=tuple(_box(box, entered, marks, first) for box in picture.boxes),
            arrows=tuple(_arrows(picture.arrows, taken_counts)),
        )


def overlay_runs(graph: Graph, transcript: Transcript) -> list[FlowOverlay]:
    """Return the flow of a run, and each sub-flow that it started, with all runs of each."""
    found: dict[int, tuple[str, Graph, list[Transcript]]] = {}
    _gather("", graph, transcript, found)
    return [
        FlowOverlay(name=name, graph=flow, transcripts=tuple(transcripts)) for name, flow, transcripts in found.values()
    ]


def anchor(transcript: Transcript, visit: Visit) -> str:
    """Return the id of a visit in the page."""
    return f"{transcript.run}/{visit.step}"


def _gather(
    name: str, graph: Graph, transcript: Transcript, found: dict[int, tuple[str, Graph, list[Transcript]]]
) -> None:
    found.setdefault(id(graph), (name, graph, []))[2].append(transcript)
    for visit in transcript.visits:
        for activity in visit.activities:
            if isinstance(activity, Child) and activity.transcript is not None:
                _gather(activity.flow, graph.flows[activity.flow], activity.transcript, found)


def _taken(visit: Visit) -> Iterator[tuple[str, str, int]]:
    if visit.exit is not None and visit.exit.how in ("route", "catch"):
        yield visit.state, visit.exit.how, visit.exit.number


def _marks(transcripts: Iterable[Transcript]) -> Iterator[tuple[str, Mark]]:
    for transcript in transcripts:
        for last in transcript.visits[-1:]:
            if transcript.outcome is not None and transcript.outcome.error is not None:
                yield last.state, "broken"
            elif transcript.status in ("waiting", "sleeping", "needs_attention"):
                yield last.state, "paused"


def _box(box: Box, entered: Counter[str], marks: dict[str, Mark], first: dict[str, str]) -> Box:
    mark, link = marks.get(box.name), first.get(box.name, "")
    return msgspec.structs.replace(box, visits=entered[box.name], mark=mark, link=link)


def _arrows(arrows: Sequence[Arrow], taken_counts: Counter[tuple[str, str, int]]) -> Iterator[Arrow]:
    """Yield the arrows with the count of moves along each; a state's routes and catches are numbered in order."""
    numbers: Counter[tuple[str, str]] = Counter()
    for arrow in arrows:
        kind = (arrow.source, "catch" if arrow.caught else "route")
        yield msgspec.structs.replace(arrow, taken=taken_counts[(*kind, numbers[kind])])
        numbers[kind] += 1
