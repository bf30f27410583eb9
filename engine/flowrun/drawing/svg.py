"""A self-contained SVG: no scripts, no fonts, nothing to load; light or dark as the reader's system is set."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import ceil
from typing import Final
from xml.sax.saxutils import escape

from flowrun.drawing.layout import EdgeLine, GraphLayout, Point, Size, lay_out
from flowrun.drawing.outlines import OUTLINES
from flowrun.drawing.picture import Arrow, Box, Picture
from flowrun.drawing.style_sheet import CODE_SIZE, DETAIL_SIZE, NAME_SIZE, PATH_STYLE, draw_style
from flowrun.drawing.widths import code_width, text_width
from flowrun.excerpts import one_line
from flowrun.unicode import visible

_MARGIN: Final = 24.0
_MAX_DETAIL: Final = 48
_MAX_LABEL: Final = 44
_NODE_HEIGHT: Final = 50.0
_MIN_WIDTH: Final = 96.0
_LABEL_HEIGHT: Final = 20.0
_LOOP: Final = 26.0
_START: Final = ""
"""The name of the start mark in the layout; no state can have it."""


def draw_svg(picture: Picture, *, part: str | None = None) -> str:
    """Render a picture as SVG: boxes from top to bottom, edges that point upwards beside them.

    Args:
        part: the prefix of the ids of a drawing inside a page, different for each drawing of the page. Such a drawing
            has no background and no style sheet: the page holds ``draw_style()`` and ``PATH_STYLE``. None for a file.
    """
    first = sorted(picture.boxes, key=lambda box: box.name != picture.start)
    arrows = [arrow for arrow in picture.arrows if arrow.source != arrow.target]
    loops = {box.name: [a for a in picture.arrows if a.source == a.target == box.name] for box in first}
    nodes = {_START: Size(16, 16), **{box.name: _size(box, loops[box.name]) for box in first}}
    edges = [(_START, picture.start), *((arrow.source, arrow.target) for arrow in arrows)]
    labels = [Size(0, 0), *map(_label_size, arrows)]
    layout = lay_out(nodes, edges, labels)
    return "\n".join(
        [
            *_prologue(picture, layout, part),
            *(_edge(arrow, layout.edge_lines[index]) for index, arrow in enumerate(arrows, 1)),
            _edge(_first_arrow(picture), layout.edge_lines[0]),
            _start_mark(layout.nodes[_START]),
            *(_node(box, nodes[box.name], layout.nodes[box.name]) for box in first),
            *(part for box in first for part in _loops(loops[box.name], nodes[box.name], layout.nodes[box.name])),
            *(
                _label(arrow, layout.edge_lines[index].label)
                for index, arrow in enumerate(arrows, 1)
                if _label_of(arrow)
            ),
            "</g>",
            "</svg>",
            "",
        ]
    )


def _prologue(picture: Picture, layout: GraphLayout, part: str | None) -> Iterator[str]:
    width, height = ceil(layout.width + 2 * _MARGIN), ceil(layout.height + 2 * _MARGIN)
    title, description = (f"{part}-title", f"{part}-description") if part else ("title", "description")
    role = "group" if any(box.link for box in picture.boxes) else "img"
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="{role}" aria-labelledby="{title} {description}">'
    )
    yield f'<title id="{title}">{_text(picture.title)}</title>'
    yield f'<desc id="{description}">{_text(picture.description or _summary(picture))}</desc>'
    if part is None:
        walked = any(box.visits is not None for box in picture.boxes)
        yield f"<style>\n{draw_style()}\n{PATH_STYLE}\n</style>" if walked else f"<style>\n{draw_style()}\n</style>"
        yield f'<rect class="paper" width="{width}" height="{height}"/>'
    yield f'<g transform="translate({_number(_MARGIN)} {_number(_MARGIN)})">'


def _first_arrow(picture: Picture) -> Arrow:
    visits = next(box.visits for box in picture.boxes if box.name == picture.start)
    return Arrow(source=_START, target=picture.start, taken=None if visits is None else min(visits, 1))


def _summary(picture: Picture) -> str:
    states = ", ".join(f"{box.name} ({box.caption})" for box in picture.boxes)
    return f"The states of the flow, from {picture.start}: {states}"


# --- boxes --------------------------------------------------------------------------------------------------------


def _size(box: Box, self_loops: Sequence[Arrow]) -> Size:
    lines = (
        text_width(box.name, NAME_SIZE, bold=True),
        text_width(one_line(box.caption, _MAX_DETAIL), DETAIL_SIZE),
        _MIN_WIDTH - 40,
    )
    right_margin = max((_LOOP + _label_size(loop).width for loop in self_loops), default=0.0)
    return Size(max(lines) + 40, max(_NODE_HEIGHT, len(self_loops) * (_LABEL_HEIGHT + 6)), right_margin)


def _node(box: Box, size: Size, middle: Point) -> str:
    x, y = middle
    tooltip = f"{box.name}: {box.caption}" + (f"\n{box.description}" if box.description else "")
    dx, dy = (-3, 3) if box.look.outline == "stacked" else (0, 0)
    drawn = (
        f'<g class="{_box_classes(box)}" transform="translate({_number(x)} {_number(y)})">'
        f"<title>{_text(tooltip)}</title>"
        f"{OUTLINES[box.look.outline].svg(size.width / 2, size.height / 2)}"
        f'<text class="name" x="{dx}" y="{dy - 4}">{_text(box.name)}</text>'
        f'<text class="detail" x="{dx}" y="{dy + 14}">{_text(one_line(box.caption, _MAX_DETAIL))}</text>'
        f"{_visits(box, size)}</g>"
    )
    return f'<a href="{_attribute(box.link)}" data-state="{_attribute(box.name)}">{drawn}</a>' if box.link else drawn


def _box_classes(box: Box) -> str:
    unseen = "unseen" if box.visits == 0 else None
    return " ".join(filter(None, ("node", box.kind, unseen, box.mark)))


def _visits(box: Box, size: Size) -> str:
    """Draw the badge of a state that was entered more than once or has a mark; a marked state also gets a halo."""
    symbol = {"broken": "!", "paused": "?"}.get(box.mark or "", "")
    count = f"{symbol} ×{box.visits}".strip() if (box.visits or 0) > 1 else symbol
    if not count:
        return ""
    width, height = size.width + 12, size.height + 12
    halo = f'<rect class="halo" x="{_number(-width / 2)}" y="{_number(-height / 2)}" ' + (
        f'width="{_number(width)}" height="{_number(height)}" rx="14"/>'
    )
    badge = text_width(count, 11, bold=True) + 12
    x, y = size.width / 2 - 4, -size.height / 2
    return (
        f"{halo if box.mark else ''}"
        f'<g class="count" transform="translate({_number(x)} {_number(y)})"><rect x="{_number(-badge / 2)}" y="-9" '
        f'width="{_number(badge)}" height="18" rx="9"/><text y="4">{_text(count)}</text></g>'
    )


def _start_mark(middle: Point) -> str:
    x, y = middle
    return f'<circle class="start" cx="{_number(x)}" cy="{_number(y)}" r="8"><title>start</title></circle>'


# --- edges --------------------------------------------------------------------------------------------------------


def _edge(arrow: Arrow, line: EdgeLine) -> str:
    """Draw an edge: straight inside a layer, and between two layers a curve that is vertical at both ends."""
    *before, (x, y) = line.points
    up = before[0][1] > y
    points = [*before, (x, y + (6 if up else -6))]
    path = [f"M{_point(points[0])}"]
    for number, ((x0, y0), (x1, y1)) in enumerate(pairwise(points)):
        if number % 2 == 0 or abs(x1 - x0) < 0.5:
            path.append(f"L{_point((x1, y1))}")
        else:
            half = (y0 + y1) / 2
            path.append(f"C{_point((x0, half))} {_point((x1, half))} {_point((x1, y1))}")
    return _stroke(arrow, " ".join(path), _arrowhead(arrow, (x, y), (0, -1 if up else 1)))


def _loops(self_loops: Sequence[Arrow], size: Size, middle: Point) -> Iterator[str]:
    """Draw the edges from a state to itself on its right, one below the other."""
    for number, arrow in enumerate(self_loops):
        x = middle[0] + size.width / 2
        y = middle[1] + (number - (len(self_loops) - 1) / 2) * (_LABEL_HEIGHT + 6)
        end = (x + 6, y + 7)
        path = f"M{_point((x, y - 7))} C{_point((x + _LOOP, y - 12))} {_point((x + _LOOP, y + 10))} {_point(end)}"
        yield _stroke(arrow, path, _arrowhead(arrow, (x, y + 7), (-1, 0)))
        if _label_of(arrow):
            yield _label(arrow, (x + _LOOP + _label_size(arrow).width / 2, y))


def _stroke(arrow: Arrow, path: str, head: str) -> str:
    return (
        f'<g class="edge{_classes(arrow)}"><title>{_text(_tooltip(arrow))}</title>'
        f'<path class="line" d="{path}"/>{head}</g>'
    )


def _classes(arrow: Arrow) -> str:
    walked = "" if arrow.taken is None else " taken" if arrow.taken else " unseen"
    return " caught" * arrow.caught + walked


def _label_of(arrow: Arrow) -> str:
    """Return the text at an edge: its label, and how often the run took it, if more than once."""
    text = one_line(arrow.text, _MAX_LABEL)
    return f"{text} ×{arrow.taken}".strip() if (arrow.taken or 0) > 1 else text


def _arrowhead(arrow: Arrow, tip: Point, towards: tuple[int, int]) -> str:
    (x, y), (dx, dy) = tip, towards
    corners = [(x, y), (x - 8 * dx + 4.5 * dy, y - 8 * dy + 4.5 * dx), (x - 8 * dx - 4.5 * dy, y - 8 * dy - 4.5 * dx)]
    return f'<path class="head" d="M{" L".join(map(_point, corners))} Z"/>'


def _tooltip(arrow: Arrow) -> str:
    source = arrow.source or "start"
    when = f" on {arrow.label}" if arrow.caught else f" when {arrow.label}" if arrow.label else ""
    return f"{source} → {arrow.target}" + (" (else)" if arrow.label == "else" else when)


def _label_size(arrow: Arrow) -> Size:
    if not (text := _label_of(arrow)):
        return Size(0, 0)
    return Size(code_width(text, CODE_SIZE) + 12, _LABEL_HEIGHT)


def _label(arrow: Arrow, middle: Point) -> str:
    size, (x, y) = _label_size(arrow), middle
    return (
        f'<g class="label{_classes(arrow)}" transform="translate({_number(x)} {_number(y)})">'
        f"<title>{_text(_tooltip(arrow))}</title>"
        f'<rect x="{_number(-size.width / 2)}" y="{_number(-size.height / 2)}" width="{_number(size.width)}" '
        f'height="{_number(size.height)}" rx="5"/>'
        f'<text y="4">{_text(_label_of(arrow))}</text></g>'
    )


# --- output -------------------------------------------------------------------------------------------------------


def _text(text: str) -> str:
    """Escape a text; control and bidirectional characters are marked."""
    return escape(visible(text))


def _attribute(text: str) -> str:
    return _text(text).replace('"', "&quot;")


def _point(point: Point) -> str:
    return f"{_number(point[0])} {_number(point[1])}"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0").replace("-0.0", "0")
