"""The state graph in Graphviz's DOT language.

Every id and label is quoted; a backslash begins an escape sequence in DOT, so it is doubled.
"""

from typing import Final

from flowrun.drawing.outlines import OUTLINES
from flowrun.drawing.picture import Arrow, Box, Picture
from flowrun.drawing.style_sheet import CAUGHT
from flowrun.excerpts import one_line
from flowrun.unicode import visible

_MAX_LABEL: Final = 60
_START: Final = "(start)"
"""The id of the start mark; no state can have this name."""


def draw_dot(picture: Picture) -> str:
    """Render a picture as a DOT digraph."""
    lines = [
        f"digraph {_quote(picture.name)} {{",
        f"    graph [label={_quote(picture.title)}, labelloc=t, rankdir=TB, fontname=Helvetica]",
        '    node [fontname=Helvetica, fontsize=11, margin="0.18,0.08"]',
        "    edge [fontname=Courier, fontsize=10]",
        f'    {_quote(_START)} [label="", shape=circle, style=filled, fillcolor=black, width=0.15, fixedsize=true]',
        *(_box(box) for box in picture.boxes),
        f"    {_quote(_START)} -> {_quote(picture.start)}",
        *(_arrow(arrow) for arrow in picture.arrows),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _box(box: Box) -> str:
    fill, line = box.look.light
    look = {
        "label": f"{box.name}\n{one_line(box.caption, _MAX_LABEL)}",
        **OUTLINES[box.look.outline].dot,
        "fillcolor": fill,
        "color": line,
        "tooltip": box.description or box.caption,
    }
    return f"    {_quote(box.name)} [{_attributes(look)}]"


def _arrow(arrow: Arrow) -> str:
    look: dict[str, str] = {}
    if arrow.text:
        look |= {"label": f" {one_line(arrow.text, _MAX_LABEL)} ", "labeltooltip": arrow.text}
    if arrow.caught:
        look |= {"style": "dashed", "color": CAUGHT, "fontcolor": CAUGHT}
    attributes = f" [{_attributes(look)}]" if look else ""
    return f"    {_quote(arrow.source)} -> {_quote(arrow.target)}{attributes}"


def _attributes(look: dict[str, str]) -> str:
    return ", ".join(f"{key}={_quote(value)}" for key, value in look.items())


def _quote(text: str) -> str:
    escaped = visible(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "")
    return f'"{escaped}"'
