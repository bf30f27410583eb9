"""What there is to draw, before it is known how: a box a state, an arrow a way on. Every drawer begins here."""

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
"""How a box looks: a state's type, an end's status, or a state that is named and does not exist."""

Mark = Literal["broken", "paused"]
"""What a run may have come to in a state: it failed there, or waits there for somebody."""

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """A state. ``detail`` says in a few words what it works with, such as the sub-flow that it runs.

    In the picture of a run, ``visits`` counts how often it was entered, ``mark`` says what came of it, and ``link`` is
    where to read more.
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
    """A way on. ``number`` counts the routes of a state that has several; ``caught`` marks a way of errors.

    In the picture of a run, ``taken`` counts how often it was taken.
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
    """A flow's graph, in the order of the spec."""

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


def picture_of(spec: Spec) -> Picture:
    """Give what there is to draw of a spec. A state that is named and does not exist has its box, at the end."""
    arrows = tuple(_arrow(edge, spec) for edge in edges(spec))
    named = [spec.start, *(arrow.target for arrow in arrows)]
    missing = [Box(name=name, kind="missing") for name in dict.fromkeys(named) if name not in spec.states]
    return Picture(
        name=spec.name,
        version=spec.version,
        description=spec.description or "",
        start=spec.start,
        boxes=(*(_box(name, state) for name, state in spec.states.items()), *missing),
        arrows=arrows,
    )


def shorten(text: str, length: int) -> str:
    """Put a text on one line of at most ``length`` characters; what a terminal would obey is not let through."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))
    return line if len(line) <= length else f"{line[: length - 1].rstrip()}…"


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
    """Give a route's number; its path is ``states.<name>.routes.<index>.to``."""
    index = edge.path[3]
    assert isinstance(index, int)
    return index + 1
