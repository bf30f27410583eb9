"""The style sheets of the SVG drawing, for light and dark backgrounds.

Each colour is written out in its own rule, because some programs that draw SVG do not support CSS variables.
"""

from typing import Final

from flowrun.drawing.picture import all_looks

INK: Final = "#1f2328"
CAUGHT: Final = "#c4403f"
"""The colour of the edges of caught errors, on a light background."""

NAME_SIZE: Final = 14.0
DETAIL_SIZE: Final = 11.5
CODE_SIZE: Final = 11.5


def _rules(*, paper: str, ink: str, faint: str, line: str, caught: str, dark: bool) -> str:
    fills = [(kind, *(look.dark if dark else look.light)) for kind, look in all_looks().items()]
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


def draw_style() -> str:
    """Return the style sheet of every drawing."""
    ends = [f".{kind} .shape" for kind, look in all_looks().items() if look.outline == "pill"]
    return "\n".join(
        [
            "text { text-anchor: middle; font-family: Helvetica, Arial, 'Liberation Sans', sans-serif; }",
            f".name {{ font-size: {NAME_SIZE}px; font-weight: 600; }}",
            f".detail {{ font-size: {DETAIL_SIZE}px; }}",
            f".label text {{ font-size: {CODE_SIZE}px; font-family: ui-monospace, Menlo, Consolas, "
            "'Liberation Mono', 'DejaVu Sans Mono', monospace; }",
            ".shape { stroke-width: 1.5; } .mark { fill: none; stroke-width: 1.5; }",
            ".missing .shape { stroke-dasharray: 5 4; }",
            f"{', '.join(ends)} {{ stroke-width: 2.5; }}",
            ".line { fill: none; stroke-width: 1.5; }",
            ".caught .line { stroke-dasharray: 5 4; }",
            _rules(paper="#ffffff", ink=INK, faint="#59636e", line="#6e7781", caught=CAUGHT, dark=False),
            "@media (prefers-color-scheme: dark) {",
            _rules(paper="#0d1117", ink="#e6edf3", faint="#9198a1", line="#8b949e", caught="#ff8580", dark=True),
            "}",
        ]
    )


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
        _path_rules(paper="#ffffff", ink=INK, caught=CAUGHT, paused=all_looks()["wait"].light[1]),
        "@media (prefers-color-scheme: dark) {",
        _path_rules(paper="#0d1117", ink="#e6edf3", caught="#ff8580", paused=all_looks()["wait"].dark[1]),
        "}",
    ]
)
"""The additional style sheet of a drawing that shows a run's path."""
