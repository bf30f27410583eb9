"""A state graph as boxes and arrows, independent of the output format. Every drawing function renders a ``Picture``."""

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from flowrun.core.graph import Edge, edges
from flowrun.core.states import Look, looks
from flowrun.spec.model import Spec, State, WorkingState

Mark = Literal["broken", "paused"]
"""The status of a run that stopped in a state: it failed there, or it waits there for human input."""

_MISSING: Final = Look(
    outline="dashed",
    light=("#ffffff", "#d0403f"),
    dark=("#0d1117", "#ff8580"),
    title="no such state",
    mark="?",
)


def all_looks() -> Mapping[str, Look]:
    """Return the looks of boxes by their kinds."""
    return {**looks(), "missing": _MISSING}


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """The box of a state. ``detail`` names what the state uses, such as the sub-flow that it runs.

    ``kind`` is a key of ``all_looks``: a state's type, an end's status, or ``missing`` for a state that is not defined.
    In the picture of a run, ``visits`` counts how often the state was entered, ``mark`` is set if the run stopped
    there, and ``link`` is the URL of the state's details.
    """

    name: str
    kind: str
    detail: str = ""
    description: str = ""
    visits: int | None = None
    mark: Mark | None = None
    link: str = ""

    @property
    def caption(self) -> str:
        """The state's type and its detail: ``flow · #research``."""
        return " · ".join(filter(None, (self.look.title or self.kind, self.detail)))

    @property
    def look(self) -> Look:
        """The look of the box."""
        return all_looks()[self.kind]


class Arrow(msgspec.Struct, frozen=True, kw_only=True):
    """An edge from one state to another.

    ``number`` numbers the routes of a state that has several, from 1; ``caught`` marks the edge of a ``catch``. In the
    picture of a run, ``taken`` counts how often the run took the edge.
    """

    source: str
    target: str
    label: str = ""
    number: int | None = None
    caught: bool = False
    taken: int | None = None

    @property
    def text(self) -> str:
        """The label with its number: ``1: reply.tool_calls``."""
        return self.label if self.number is None else f"{self.number}: {self.label}"


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """The state graph of a flow, in the order of the spec."""

    name: str
    version: str
    description: str
    start: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]

    @property
    def title(self) -> str:
        """The flow's name and version."""
        return f"{self.name} {self.version}"


def build_picture(spec: Spec) -> Picture:
    """Build the picture of a spec. A state that is referenced but not defined gets a box at the end."""
    arrows = tuple(_arrow(edge, spec) for edge in edges(spec))
    referenced = [spec.start, *(arrow.target for arrow in arrows)]
    missing = [Box(name=name, kind="missing") for name in dict.fromkeys(referenced) if name not in spec.states]
    return Picture(
        name=spec.name,
        version=spec.version,
        description=spec.description or "",
        start=spec.start,
        boxes=(*(_box(name, state) for name, state in spec.states.items()), *missing),
        arrows=arrows,
    )


def _box(name: str, state: State) -> Box:
    return Box(name=name, kind=state.look, detail=" · ".join(state.details()), description=state.description or "")


def _arrow(edge: Edge, spec: Spec) -> Arrow:
    if edge.kind == "catch":
        return Arrow(source=edge.source, target=edge.target, label=edge.label, caught=True)
    state = spec.states[edge.source]
    several = isinstance(state, WorkingState) and len(state.routes) > 1
    return Arrow(
        source=edge.source,
        target=edge.target,
        label=edge.label or ("else" if several else ""),
        number=_number(edge) if several else None,
    )


def _number(edge: Edge) -> int:
    """Return a route's number, from 1; the path of its edge is ``states.<name>.routes.<index>.to``."""
    index = edge.path[3]
    assert isinstance(index, int)
    return index + 1
