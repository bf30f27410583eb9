"""The outlines of boxes in every format that has outlines, one row each."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple, get_args

from flowrun.core.states import Outline


class DrawnOutline(NamedTuple):
    """An outline in Mermaid (what opens and closes the box), in DOT (attributes) and in SVG.

    The SVG is made for half of a box's width and height, centred at the origin.
    """

    mermaid: tuple[str, str]
    dot: Mapping[str, str]
    svg: Callable[[float, float], str]


def _box(rounding: float) -> Callable[[float, float], str]:
    return lambda w, h: _rect(w, h, rounding)


def _rect(w: float, h: float, rounding: float, *, dx: float = 0, dy: float = 0, kind: str = "shape") -> str:
    place = f'x="{dx - w:.1f}" y="{dy - h:.1f}" width="{2 * w:.1f}" height="{2 * h:.1f}"'
    return f'<rect class="{kind}" {place} rx="{rounding:g}"/>'


def _polygon(*corners: tuple[float, float]) -> str:
    points = " L".join(f"{x:.1f} {y:.1f}" for x, y in corners)
    return f'<path class="shape" stroke-linejoin="round" d="M{points} Z"/>'


def _lines(*lines: tuple[float, float, float, float]) -> str:
    path = " ".join(f"M{x0:.1f} {y0:.1f} L{x1:.1f} {y1:.1f}" for x0, y0, x1, y1 in lines)
    return f'<path class="mark" d="{path}"/>'


def _cut(w: float, h: float) -> str:
    c = 10
    return _polygon(
        (-w + c, -h), (w - c, -h), (w, -h + c), (w, h - c), (w - c, h), (-w + c, h), (-w, h - c), (-w, -h + c)
    )


def _hexagon(w: float, h: float) -> str:
    return _polygon((-w + 14, -h), (w - 14, -h), (w, 0), (w - 14, h), (-w + 14, h), (-w, 0))


def _slanted(w: float, h: float) -> str:
    return _polygon((-w + 12, -h), (w, -h), (w - 12, h), (-w, h))


def _striped(w: float, h: float) -> str:
    return _rect(w, h, 3) + _lines((-w + 8, -h, -w + 8, h), (w - 8, -h, w - 8, h))


def _notched(w: float, h: float) -> str:
    return _polygon((-w, -h), (w - 12, -h), (w, 0), (w - 12, h), (-w, h), (-w + 12, 0))


def _doubled(w: float, h: float) -> str:
    return _rect(w, h, 6) + _rect(w - 4, h - 4, 3, kind="mark")


def _stacked(w: float, h: float) -> str:
    return "".join(_rect(w - 3, h - 3, 4, dx=d, dy=-d) for d in (3, 0, -3))


def _barred(w: float, h: float) -> str:
    return _rect(w, h, 3) + _lines((-w, -h + 5, w, -h + 5), (-w, h - 5, w, h - 5))


OUTLINES: Final[Mapping[Outline, DrawnOutline]] = {
    "rounded": DrawnOutline(("(", ")"), {"shape": "box", "style": "rounded,filled"}, _box(12)),
    "notched": DrawnOutline((">", "]"), {"shape": "cds", "style": "filled"}, _notched),
    "cut": DrawnOutline(("[/", r"\]"), {"shape": "octagon", "style": "filled"}, _cut),
    "striped": DrawnOutline(("[[", "]]"), {"shape": "component", "style": "filled"}, _striped),
    "hexagon": DrawnOutline(("{{", "}}"), {"shape": "hexagon", "style": "filled"}, _hexagon),
    "doubled": DrawnOutline(("[[", "]]"), {"shape": "box", "style": "filled", "peripheries": "2"}, _doubled),
    "stacked": DrawnOutline(("[[", "]]"), {"shape": "box3d", "style": "filled"}, _stacked),
    "barred": DrawnOutline(("[[", "]]"), {"shape": "folder", "style": "filled"}, _barred),
    "slanted": DrawnOutline(("[/", "/]"), {"shape": "parallelogram", "style": "filled"}, _slanted),
    "pill": DrawnOutline(("([", "])"), {"shape": "box", "style": "rounded,filled,bold"}, lambda w, h: _rect(w, h, h)),
    "dashed": DrawnOutline(("[", "]"), {"shape": "box", "style": "dashed"}, _box(3)),
}

if missing := set(get_args(Outline)) - OUTLINES.keys():
    raise TypeError(f"these outlines are not drawn: {missing}")
