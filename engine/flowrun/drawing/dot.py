"""Graphviz's DOT language. Every id and label is quoted; a backslash begins an escape there, so it is doubled."""

from typing import Final

from flowrun.drawing.palette import CAUGHT, LIGHT
from flowrun.drawing.picture import Arrow, Box, Kind, Picture, shorten

_LONGEST: Final = 60
_BEGIN: Final = "(start)"
"""The start mark's id, which no state can have as its name."""

_SHAPES: Final[dict[Kind, dict[str, str]]] = {
    "chat": {"shape": "box", "style": "rounded,filled"},
    "tools": {"shape": "octagon", "style": "filled"},
    "call": {"shape": "component", "style": "filled"},
    "route": {"shape": "hexagon", "style": "filled"},
    "flow": {"shape": "box", "style": "filled", "peripheries": "2"},
    "map": {"shape": "box3d", "style": "filled"},
    "parallel": {"shape": "folder", "style": "filled"},
    "wait": {"shape": "parallelogram", "style": "filled"},
    "succeeded": {"shape": "box", "style": "rounded,filled,bold"},
    "failed": {"shape": "box", "style": "rounded,filled,bold"},
    "missing": {"shape": "box", "style": "dashed"},
}


def draw_dot(picture: Picture) -> str:
    """Write a picture as a digraph."""
    lines = [
        f"digraph {_quoted(picture.name)} {{",
        f"    graph [label={_quoted(picture.title)}, labelloc=t, rankdir=TB, fontname=Helvetica]",
        '    node [fontname=Helvetica, fontsize=11, margin="0.18,0.08"]',
        "    edge [fontname=Courier, fontsize=10]",
        f'    {_quoted(_BEGIN)} [label="", shape=circle, style=filled, fillcolor=black, width=0.15, fixedsize=true]',
        *(_box(box) for box in picture.boxes),
        f"    {_quoted(_BEGIN)} -> {_quoted(picture.start)}",
        *(_arrow(arrow) for arrow in picture.arrows),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _box(box: Box) -> str:
    fill, line = LIGHT[box.kind]
    look = {
        "label": f"{box.name}\n{shorten(box.caption, _LONGEST)}",
        **_SHAPES[box.kind],
        "fillcolor": fill,
        "color": line,
        "tooltip": box.description or box.caption,
    }
    return f"    {_quoted(box.name)} [{_attributes(look)}]"


def _arrow(arrow: Arrow) -> str:
    look: dict[str, str] = {}
    if arrow.text:
        look |= {"label": f" {shorten(arrow.text, _LONGEST)} ", "labeltooltip": arrow.text}
    if arrow.caught:
        look |= {"style": "dashed", "color": CAUGHT, "fontcolor": CAUGHT}
    attributes = f" [{_attributes(look)}]" if look else ""
    return f"    {_quoted(arrow.source)} -> {_quoted(arrow.target)}{attributes}"


def _attributes(look: dict[str, str]) -> str:
    return ", ".join(f"{key}={_quoted(value)}" for key, value in look.items())


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "")
    return f'"{escaped}"'
