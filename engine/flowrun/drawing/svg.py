"""A self-contained SVG: no scripts, no fonts, no links; light and dark as the reader's system has it."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import ceil
from typing import Final
from xml.sax.saxutils import escape

from flowrun.drawing.layout import Course, Layout, Point, Size, lay_out
from flowrun.drawing.picture import Arrow, Box, Picture, shorten
from flowrun.drawing.shapes import CODE_SIZE, DETAIL_SIZE, NAME_SIZE, STYLE, outline
from flowrun.drawing.widths import code_width, text_width

_MARGIN: Final = 24.0
_LONGEST_DETAIL: Final = 48
_LONGEST_LABEL: Final = 44
_NODE_HEIGHT: Final = 50.0
_LEAST_WIDTH: Final = 96.0
_LABEL_HEIGHT: Final = 20.0
_LOOP: Final = 26.0
_BEGIN: Final = ""
"""The start mark's name in the layout, which no state can have."""


def draw_svg(picture: Picture) -> str:
    """Draw a picture as SVG: boxes from top to bottom, links that lead back upwards beside them."""
    first = sorted(picture.boxes, key=lambda box: box.name != picture.start)
    arrows = [arrow for arrow in picture.arrows if arrow.source != arrow.target]
    loops = {box.name: [a for a in picture.arrows if a.source == a.target == box.name] for box in first}
    nodes = {_BEGIN: Size(16, 16), **{box.name: _size(box, loops[box.name]) for box in first}}
    links = [(_BEGIN, picture.start), *((arrow.source, arrow.target) for arrow in arrows)]
    labels = [Size(0, 0), *map(_label_size, arrows)]
    layout = lay_out(nodes, links, labels)
    return "\n".join(
        [
            *_head(picture, layout),
            *(_line(arrow, layout.courses[index]) for index, arrow in enumerate(arrows, 1)),
            _line(Arrow(source=_BEGIN, target=picture.start), layout.courses[0]),
            _start_mark(layout.nodes[_BEGIN]),
            *(_node(box, nodes[box.name], layout.nodes[box.name]) for box in first),
            *(part for box in first for part in _loops(loops[box.name], nodes[box.name], layout.nodes[box.name])),
            *(_label(arrow, layout.courses[index].label) for index, arrow in enumerate(arrows, 1) if arrow.text),
            "</g>",
            "</svg>",
            "",
        ]
    )


def _head(picture: Picture, layout: Layout) -> Iterator[str]:
    width, height = ceil(layout.width + 2 * _MARGIN), ceil(layout.height + 2 * _MARGIN)
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'role="img" aria-labelledby="title description">'
    )
    yield f'<title id="title">{_text(picture.title)}</title>'
    yield f'<desc id="description">{_text(picture.description or _summary(picture))}</desc>'
    yield f"<style>\n{STYLE}\n</style>"
    yield f'<rect class="paper" width="{width}" height="{height}"/>'
    yield f'<g transform="translate({_number(_MARGIN)} {_number(_MARGIN)})">'


def _summary(picture: Picture) -> str:
    states = ", ".join(f"{box.name} ({box.caption})" for box in picture.boxes)
    return f"The states of the flow, from {picture.start}: {states}"


# --- boxes --------------------------------------------------------------------------------------------------------


def _size(box: Box, loops: Sequence[Arrow]) -> Size:
    lines = (
        text_width(box.name, NAME_SIZE, bold=True),
        text_width(shorten(box.caption, _LONGEST_DETAIL), DETAIL_SIZE),
        _LEAST_WIDTH - 40,
    )
    beside = max((_LOOP + _label_size(loop).width for loop in loops), default=0.0)
    return Size(max(lines) + 40, max(_NODE_HEIGHT, len(loops) * (_LABEL_HEIGHT + 6)), beside)


def _node(box: Box, size: Size, middle: Point) -> str:
    x, y = middle
    told = f"{box.name}: {box.caption}" + (f"\n{box.description}" if box.description else "")
    aside, down = (-3, 3) if box.kind == "map" else (0, 0)  # the front one of its stack is not in the middle
    return (
        f'<g class="node {box.kind}" transform="translate({_number(x)} {_number(y)})"><title>{_text(told)}</title>'
        f"{outline(box.kind, size.width, size.height)}"
        f'<text class="name" x="{aside}" y="{down - 4}">{_text(box.name)}</text>'
        f'<text class="detail" x="{aside}" y="{down + 14}">{_text(shorten(box.caption, _LONGEST_DETAIL))}</text></g>'
    )


def _start_mark(middle: Point) -> str:
    x, y = middle
    return f'<circle class="start" cx="{_number(x)}" cy="{_number(y)}" r="8"><title>start</title></circle>'


# --- links --------------------------------------------------------------------------------------------------------


def _line(arrow: Arrow, course: Course) -> str:
    """Draw a link: straight within layers, and between two of them a curve that leaves and arrives vertically."""
    *before, (x, y) = course.points
    up = before[0][1] > y
    points = [*before, (x, y + (6 if up else -6))]
    path = [f"M{_pair(points[0])}"]
    for number, ((x0, y0), (x1, y1)) in enumerate(pairwise(points)):
        if number % 2 == 0 or abs(x1 - x0) < 0.5:
            path.append(f"L{_pair((x1, y1))}")
        else:
            half = (y0 + y1) / 2
            path.append(f"C{_pair((x0, half))} {_pair((x1, half))} {_pair((x1, y1))}")
    return _stroke(arrow, " ".join(path), _head_of(arrow, (x, y), (0, -1 if up else 1)))


def _loops(loops: Sequence[Arrow], size: Size, middle: Point) -> Iterator[str]:
    """Draw the links from a state to itself at its right, one below the other."""
    for number, arrow in enumerate(loops):
        x = middle[0] + size.width / 2
        y = middle[1] + (number - (len(loops) - 1) / 2) * (_LABEL_HEIGHT + 6)
        end = (x + 6, y + 7)
        path = f"M{_pair((x, y - 7))} C{_pair((x + _LOOP, y - 12))} {_pair((x + _LOOP, y + 10))} {_pair(end)}"
        yield _stroke(arrow, path, _head_of(arrow, (x, y + 7), (-1, 0)))
        if arrow.text:
            yield _label(arrow, (x + _LOOP + _label_size(arrow).width / 2, y))


def _stroke(arrow: Arrow, path: str, head: str) -> str:
    kind = "way caught" if arrow.caught else "way"
    return f'<g class="{kind}"><title>{_text(_told(arrow))}</title><path class="line" d="{path}"/>{head}</g>'


def _head_of(arrow: Arrow, tip: Point, towards: tuple[int, int]) -> str:
    (x, y), (dx, dy) = tip, towards
    corners = [(x, y), (x - 8 * dx + 4.5 * dy, y - 8 * dy + 4.5 * dx), (x - 8 * dx - 4.5 * dy, y - 8 * dy - 4.5 * dx)]
    return f'<path class="head" d="M{" L".join(map(_pair, corners))} Z"/>'


def _told(arrow: Arrow) -> str:
    source = arrow.source or "start"
    when = f" on {arrow.label}" if arrow.caught else f" when {arrow.label}" if arrow.label else ""
    return f"{source} → {arrow.target}" + (" (else)" if arrow.label == "else" else when)


def _label_size(arrow: Arrow) -> Size:
    if not arrow.text:
        return Size(0, 0)
    return Size(code_width(shorten(arrow.text, _LONGEST_LABEL), CODE_SIZE) + 12, _LABEL_HEIGHT)


def _label(arrow: Arrow, middle: Point) -> str:
    size, (x, y) = _label_size(arrow), middle
    kind = "label caught" if arrow.caught else "label"
    return (
        f'<g class="{kind}" transform="translate({_number(x)} {_number(y)})"><title>{_text(_told(arrow))}</title>'
        f'<rect x="{_number(-size.width / 2)}" y="{_number(-size.height / 2)}" width="{_number(size.width)}" '
        f'height="{_number(size.height)}" rx="5"/>'
        f'<text y="4">{_text(shorten(arrow.text, _LONGEST_LABEL))}</text></g>'
    )


# --- writing ------------------------------------------------------------------------------------------------------


def _text(text: str) -> str:
    """Escape a text, and leave out the control characters that XML does not have."""
    return escape("".join(c for c in text if c in "\t\n" or (c >= " " and c not in "\x7f\ufffe\uffff")))


def _pair(point: Point) -> str:
    return f"{_number(point[0])} {_number(point[1])}"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0").replace("-0.0", "0")
