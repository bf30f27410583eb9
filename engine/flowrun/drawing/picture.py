"""A state graph as boxes and arrows, independent of the output format. Every drawing function renders a ``Picture``."""

from collections.abc import Iterator
from typing import Final, Literal, assert_never, get_args

import msgspec

from flowrun.core.graph import Edge, edges
from flowrun.spec.model import (
    DEFAULT_MODEL,
    MAIN,
    CallState,
    ChatState,
    EndState,
    FlowState,
    MapState,
    ParallelState,
    RouteState,
    Spec,
    State,
    ToolsState,
    WaitState,
)

Kind = Literal["chat", "tools", "call", "route", "flow", "map", "parallel", "wait", "succeeded", "failed", "missing"]
"""The kind of a box: a state's type, an end's status, or ``missing`` for a state that is not defined."""

Mark = Literal["broken", "paused"]
"""The status of a run that stopped in a state: it failed there, or it waits there for human input."""

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """The box of a state. ``detail`` names what the state uses, such as the sub-flow that it runs.

    In the picture of a run, ``visits`` counts how often the state was entered, ``mark`` is set if the run stopped
    there, and ``link`` is the URL of the state's details.
    """

    name: str
    kind: Kind
    detail: str = ""
    description: str = ""
    visits: int | None = None
    mark: Mark | None = None
    link: str = ""

    @property
    def caption(self) -> str:
        """The state's type and its detail: ``flow · #research``."""
        return " · ".join(filter(None, (_TITLES.get(self.kind, self.kind), self.detail)))


_TITLES: Final[dict[Kind, str]] = {"succeeded": "end · succeeded", "failed": "end · failed", "missing": "no such state"}


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
    kind: Kind = state.status if isinstance(state, EndState) else state.__struct_config__.tag  # type: ignore[assignment]
    return Box(name=name, kind=kind, detail=" · ".join(_details(state)), description=state.description or "")


def _details(state: State) -> Iterator[str]:
    match state:
        case ChatState():
            if state.model != DEFAULT_MODEL:
                yield f"model {state.model}"
            if state.thread != MAIN:
                yield f"thread {state.thread}"
        case ToolsState():
            if state.thread != MAIN:
                yield f"thread {state.thread}"
        case CallState():
            yield state.entrypoint
        case FlowState():
            yield state.flow
        case MapState():
            yield f"{state.flow} for each {state.item} in {state.for_each}"
        case ParallelState():
            yield ", ".join(f"{name}: {branch.flow}" for name, branch in state.branches.items())
        case RouteState() | WaitState() | EndState():
            return
        case _:
            assert_never(state)


def _arrow(edge: Edge, spec: Spec) -> Arrow:
    if edge.kind == "catch":
        return Arrow(source=edge.source, target=edge.target, label=edge.label, caught=True)
    state = spec.states[edge.source]
    several = not isinstance(state, EndState) and len(state.routes) > 1
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
