"""The state graph as an indented list for terminals: each state, and below it its routes in the order of evaluation."""

from typing import Final

from flowrun.drawing.picture import Arrow, Picture
from flowrun.excerpts import one_line

_MAX_LENGTH: Final = 72


def draw_text(picture: Picture) -> str:
    """Render a picture as an indented list.

    ``▶`` marks the start, ``■`` and ``✗`` the ends, ``↑`` an arrow to the same state or one above it.
    """
    width = max(len(box.name) for box in picture.boxes)
    order = {box.name: number for number, box in enumerate(picture.boxes)}
    lines = [picture.title]
    if picture.description:
        lines.append(one_line(picture.description, 2 * _MAX_LENGTH))
    for box in picture.boxes:
        mark = "▶" if box.name == picture.start else box.look.mark
        lines += ["", f"{mark} {box.name:{width}}  {one_line(box.caption, _MAX_LENGTH)}"]
        arrows = [arrow for arrow in picture.arrows if arrow.source == box.name]
        lines += [f"    {_arrow(arrow)}{_back(arrow, order)}" for arrow in arrows]
    return "\n".join(lines) + "\n"


def _arrow(arrow: Arrow) -> str:
    if arrow.caught:
        return f"⇢ {arrow.target}  on {one_line(arrow.label, _MAX_LENGTH)}"
    if arrow.number is None:
        return f"→ {arrow.target}" + (f"  when {one_line(arrow.label, _MAX_LENGTH)}" if arrow.label else "")
    condition = arrow.label if arrow.label == "else" else f"when {one_line(arrow.label, _MAX_LENGTH)}"
    return f"{arrow.number} → {arrow.target}  {condition}"


def _back(arrow: Arrow, order: dict[str, int]) -> str:
    return "  ↑" if order[arrow.target] <= order[arrow.source] else ""
