"""The outlines and the style sheets of the SVG drawing, for light and dark backgrounds.

Each colour is written out in its own rule, because some programs that draw SVG do not support CSS variables.
"""

from collections.abc import Callable, Mapping
from typing import Final

from flowrun.drawing.palette import CAUGHT, DARK, INK, LIGHT
from flowrun.drawing.picture import Kind

NAME_SIZE: Final = 14.0
DETAIL_SIZE: Final = 11.5
CODE_SIZE: Final = 11.5


def _rules(*, paper: str, ink: str, faint: str, line: str, caught: str, dark: bool) -> str:
    fills = [(kind, *colours) for kind, colours in (DARK if dark else LIGHT).items()]
    return "\n".join(
        [
            f".paper, .label rect {{ fill: {paper}; }}",
            f".name, .label text {{ fill: {ink}; }}",
            f".detail {{ fill: {faint}; }}",
            f".edge .line {{ stroke: {line}; }}",
            f".edge .head {{ fill: {line}; }}",
            f".caught .line {{ stroke: {caught}; }}",
            f".caught .head, .caught text {{ fill: {caught}; }}",
            f".start {{ fill: {ink}; }}",
            *(f".{kind} .shape {{ fill: {fill}; stroke: {stroke}; }}" for kind, fill, stroke in fills),
            *(f".{kind} .mark {{ stroke: {stroke}; }}" for kind, _, stroke in fills),
        ]
    )


STYLE: Final = "\n".join(
    [
        "text { text-anchor: middle; font-family: Helvetica, Arial, 'Liberation Sans', sans-serif; }",
        f".name {{ font-size: {NAME_SIZE}px; font-weight: 600; }}",
        f".detail {{ font-size: {DETAIL_SIZE}px; }}",
        f".label text {{ font-size: {CODE_SIZE}px; font-family: ui-monospace, Menlo, Consolas, "
        "'Liberation Mono', 'DejaVu Sans Mono', monospace; }",
        ".shape { stroke-width: 1.5; } .mark { fill: none; stroke-width: 1.5; }",
        ".missing .shape { stroke-dasharray: 5 4; }",
        ".succeeded .shape, .failed .shape { stroke-width: 2.5; }",
        ".line { fill: none; stroke-width: 1.5; }",
        ".caught .line { stroke-dasharray: 5 4; }",
        _rules(paper="#ffffff", ink=INK, faint="#59636e", line="#6e7781", caught=CAUGHT, dark=False),
        "@media (prefers-color-scheme: dark) {",
        _rules(paper="#0d1117", ink="#e6edf3", faint="#9198a1", line="#8b949e", caught="#ff8580", dark=True),
        "}",
    ]
)
"""The style sheet of every drawing."""


def _path_rules(*, paper: str, ink: str, caught: str, paused: str) -> str:
    return "\n".join(
        [
            f".taken .line {{ stroke: {ink}; }}",
            f".taken .head {{ fill: {ink}; }}",
            f".taken.caught .line {{ stroke: {caught}; }}",
            f".taken.caught .head {{ fill: {caught}; }}",
            f".count rect {{ fill: {ink}; }} .count text {{ fill: {paper}; }}",
            f".broken .halo {{ stroke: {caught}; }} .broken .count rect {{ fill: {caught}; }}",
            f".paused .halo {{ stroke: {paused}; }} .paused .count rect {{ fill: {paused}; }}",
        ]
    )


PATH_STYLE: Final = "\n".join(
    [
        ".unseen { opacity: 0.45; } .label.unseen { opacity: 1; } .label.unseen text { opacity: 0.5; }",
        ".taken .line { stroke-width: 2.75; }",
        ".count text { font-size: 11px; font-weight: 700; }",
        ".halo { fill: none; stroke-width: 2; stroke-dasharray: 3 3; }",
        "a:focus-visible .shape, a:hover .shape { stroke-width: 3; }",
        _path_rules(paper="#ffffff", ink=INK, caught=CAUGHT, paused=LIGHT["wait"][1]),
        "@media (prefers-color-scheme: dark) {",
        _path_rules(paper="#0d1117", ink="#e6edf3", caught="#ff8580", paused=DARK["wait"][1]),
        "}",
    ]
)
"""The additional style sheet of a drawing that shows a run's path."""


def outline(kind: Kind, width: float, height: float) -> str:
    """Return the SVG outline of a box of this size, centred at the origin."""
    return _OUTLINES[kind](width / 2, height / 2)


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


def _procedure(w: float, h: float) -> str:
    return _rect(w, h, 3) + _lines((-w + 8, -h, -w + 8, h), (w - 8, -h, w - 8, h))


def _doubled(w: float, h: float) -> str:
    return _rect(w, h, 6) + _rect(w - 4, h - 4, 3, kind="mark")


def _stacked(w: float, h: float) -> str:
    return "".join(_rect(w - 3, h - 3, 4, dx=d, dy=-d) for d in (3, 0, -3))


def _barred(w: float, h: float) -> str:
    return _rect(w, h, 3) + _lines((-w, -h + 5, w, -h + 5), (-w, h - 5, w, h - 5))


_OUTLINES: Final[Mapping[Kind, Callable[[float, float], str]]] = {
    "chat": _box(12),
    "tools": _cut,
    "call": _procedure,
    "route": _hexagon,
    "flow": _doubled,
    "map": _stacked,
    "parallel": _barred,
    "wait": _slanted,
    "succeeded": lambda w, h: _rect(w, h, h),
    "failed": lambda w, h: _rect(w, h, h),
    "missing": _box(3),
}
