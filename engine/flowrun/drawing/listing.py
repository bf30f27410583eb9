"""The graph as an indented list, for terminals: each state, and under it its ways on in the order they are tried."""

from typing import Final

from flowrun.drawing.picture import Arrow, Kind, Picture, shorten

_LONGEST: Final = 72
_MARKS: Final[dict[Kind, str]] = {"succeeded": "■", "failed": "✗", "missing": "?"}


def draw_text(picture: Picture) -> str:
    """Write a picture as an indented list; ``▶`` marks the start, ``■`` and ``✗`` the ends, ``↑`` a way back up."""
    width = max(len(box.name) for box in picture.boxes)
    order = {box.name: number for number, box in enumerate(picture.boxes)}
    lines = [picture.title]
    if picture.description:
        lines.append(shorten(picture.description, 2 * _LONGEST))
    for box in picture.boxes:
        mark = "▶" if box.name == picture.start else _MARKS.get(box.kind, "○")
        lines += ["", f"{mark} {box.name:{width}}  {shorten(box.caption, _LONGEST)}"]
        ways = [arrow for arrow in picture.arrows if arrow.source == box.name]
        lines += [f"    {_way(arrow)}{_back(arrow, order)}" for arrow in ways]
    return "\n".join(lines) + "\n"


def _way(arrow: Arrow) -> str:
    if arrow.caught:
        return f"⇢ {arrow.target}  on {shorten(arrow.label, _LONGEST)}"
    if arrow.number is None:
        return f"→ {arrow.target}" + (f"  when {shorten(arrow.label, _LONGEST)}" if arrow.label else "")
    condition = arrow.label if arrow.label == "else" else f"when {shorten(arrow.label, _LONGEST)}"
    return f"{arrow.number} → {arrow.target}  {condition}"


def _back(arrow: Arrow, order: dict[str, int]) -> str:
    return "  ↑" if order[arrow.target] <= order[arrow.source] else ""
