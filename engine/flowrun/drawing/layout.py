"""Where everything lies: the second half of a layered drawing. Lengths are in pixels, y grows downwards.

Layers are spread so that links run straight: each layer in turn takes the positions nearest to those of its neighbours
that keep its order and distances (a least-squares problem that pooling adjacent violators solves exactly).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from flowrun.drawing.layers import Cell, Layering, make_layers, neighbours

_BESIDE: Final = 26.0
_BESIDE_LINES: Final = 14.0
_BETWEEN_LAYERS: Final = 20.0
_STEEPNESS: Final = 0.10
"""How much of the way that a link goes sideways is added to the distance of two layers."""
_WIDEST_GAP: Final = 44.0
_PORTS: Final = 26.0
_AWAY_FROM_EVEN: Final = 16.0
"""How far a link may touch its node from where links spread evenly would, to run straight."""
_SPREADS: Final = 60
_STILL: Final = 0.05
"""A layout in which nothing goes farther than this any more is done."""
_LOOSE: Final = 0.01
"""How much a node without neighbours insists on its place."""

Point = tuple[float, float]


class Size(msgspec.Struct, frozen=True):
    """What a node or a label needs; ``beside`` is kept free at its right, for links from a node to itself."""

    width: float
    height: float
    beside: float = 0.0


class Course(msgspec.Struct, frozen=True):
    """How a link runs: the ends of its straight parts from its source on, and the middle of its label."""

    points: tuple[Point, ...]
    label: Point


class GraphLayout(msgspec.Struct, frozen=True):
    """The middle of each node, and each link's course (those from a node to itself have none)."""

    width: float
    height: float
    nodes: Mapping[str, Point]
    courses: Mapping[int, Course]


def lay_out(nodes: Mapping[str, Size], links: Sequence[tuple[str, str]], labels: Sequence[Size]) -> GraphLayout:
    """Lay a graph out from top to bottom; the first node is on top. ``labels`` are as many as ``links``."""
    layering = make_layers(list(nodes), links)
    boxes = _boxes(layering, nodes, labels)
    x = _spread(layering, boxes)
    tops, heights = _rows(layering, boxes, x)
    ports = _ports(layering, nodes, x)
    courses = {}
    for index, chain in layering.chains.items():
        points = _points(index, chain, x, tops, heights, ports, nodes)
        at = _label_cell(index, layering)
        label = (x[at], tops[at.layer] + heights[at.layer] / 2)
        courses[index] = Course(tuple(reversed(points)) if index in layering.turned else tuple(points), label)
    middles = {
        cell.node: (x[cell], tops[number] + heights[number] / 2)
        for number, layer in enumerate(layering.layers)
        for cell in layer
        if cell.link is None
    }
    width = max(x[cell] + boxes[cell][1] for layer in layering.layers for cell in layer)
    return GraphLayout(width, tops[-1] + heights[-1], middles, courses)


def _label_cell(index: int, layering: Layering) -> Cell:
    """Give the cell of a link's label: the one next to its source, where the decision is made."""
    return layering.chains[index][-2 if index in layering.turned else 1]


Boxes = Mapping[Cell, tuple[float, float, float]]
"""What each cell takes at its left, at its right, and in height."""


def _boxes(layering: Layering, nodes: Mapping[str, Size], labels: Sequence[Size]) -> Boxes:
    boxes: dict[Cell, tuple[float, float, float]] = {}
    for cell in (cell for layer in layering.layers for cell in layer):
        if cell.link is None:
            size = nodes[cell.node]
        elif cell == _label_cell(cell.link, layering):
            size = labels[cell.link]
        else:
            size = Size(0, 0)
        boxes[cell] = (size.width / 2, size.width / 2 + size.beside, size.height)
    return boxes


def _spread(layering: Layering, boxes: Boxes) -> dict[Cell, float]:
    """Give each cell's x: first by the layer above, then by the one below, by turns, at last by both."""
    around = neighbours(layering.chains)
    offsets = {number: _offsets(layer, boxes) for number, layer in enumerate(layering.layers)}
    x = {
        cell: offset
        for number, layer in enumerate(layering.layers)
        for cell, offset in zip(layer, offsets[number], strict=True)
    }
    for phase in (((0,), (1,)), ((0, 1), (0, 1))):
        for turn in range(_SPREADS):
            sides = phase[turn % 2]
            order = range(len(layering.layers))
            moved = [
                _settle(layering.layers[number], offsets[number], x, around, sides)
                for number in (order if turn % 2 == 0 else reversed(order))
            ]
            if max(moved) < _STILL:
                break
    _straighten(layering, boxes, x)
    left = min(x[cell] - boxes[cell][0] for cell in x)
    return {cell: at - left for cell, at in x.items()}


def _settle(
    layer: Sequence[Cell],
    offsets: Sequence[float],
    x: dict[Cell, float],
    around: Mapping[Cell, tuple[list[Cell], list[Cell]]],
    sides: Sequence[int],
) -> float:
    """Move the cells of a layer to where their neighbours pull them; give how far the farthest of them went."""
    wishes, weights = [], []
    for cell, offset in zip(layer, offsets, strict=True):
        pulls = [(x[other], _pull(cell, other)) for side in sides for other in around.get(cell, ([], []))[side]]
        weight = sum(pull for _, pull in pulls)
        wishes.append((sum(at * pull for at, pull in pulls) / weight if pulls else x[cell]) - offset)
        weights.append(weight if pulls else _LOOSE)
    moved = 0.0
    for cell, at, offset in zip(layer, _in_order(wishes, weights), offsets, strict=True):
        moved = max(moved, abs(x[cell] - at - offset))
        x[cell] = at + offset
    return moved


def _straighten(layering: Layering, boxes: Boxes, x: dict[Cell, float]) -> None:
    """Put the points of each link onto as few vertical lines as their neighbours in the layers leave room for."""
    room = {}
    for layer in layering.layers:
        for place, cell in enumerate(layer):
            room[cell] = (layer[place - 1] if place else None, layer[place + 1] if place + 1 < len(layer) else None)

    def between(cell: Cell) -> tuple[float, float]:
        before, after = room[cell]
        low = x[before] + _distance(before, cell, boxes) if before is not None else float("-inf")
        return low, x[after] - _distance(cell, after, boxes) if after is not None else float("inf")

    for chain in sorted(layering.chains.values(), key=len, reverse=True):
        run: list[Cell] = []
        low, high = float("-inf"), float("inf")
        for cell in chain[1:-1]:
            least, most = between(cell)
            if max(low, least) > min(high, most):
                _put_in_line(run, low, high, x)
                run, low, high = [], float("-inf"), float("inf")
            run, low, high = [*run, cell], max(low, least), min(high, most)
        _put_in_line(run, low, high, x)


def _put_in_line(run: Sequence[Cell], low: float, high: float, x: dict[Cell, float]) -> None:
    if run:
        middle = sum(x[cell] for cell in run) / len(run)
        x.update(dict.fromkeys(run, min(max(middle, low), high)))


def _pull(cell: Cell, other: Cell) -> float:
    """Tell how much two neighbours want to be in line: a link's own points most of all, so that it runs straight."""
    return (1.0, 3.0, 9.0)[(cell.link is not None) + (other.link is not None)]


def _offsets(layer: Sequence[Cell], boxes: Boxes) -> list[float]:
    """Give the least distance of each cell from the first one."""
    offsets = [0.0] * len(layer)
    for place in range(1, len(layer)):
        offsets[place] = offsets[place - 1] + _distance(layer[place - 1], layer[place], boxes)
    return offsets


def _distance(left: Cell, right: Cell, boxes: Boxes) -> float:
    """Give how far the middles of two that lie side by side have to be apart."""
    gap = _BESIDE if left.link is None or right.link is None else _BESIDE_LINES
    return boxes[left][1] + gap + boxes[right][0]


def _in_order(wishes: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Give the rising values nearest to the wishes, by weighted squares: pool adjacent violators."""
    pools: list[tuple[float, float, int]] = []
    for wish, weight in zip(wishes, weights, strict=True):
        pool = (wish, weight, 1)
        while pools and pools[-1][0] > pool[0]:
            value, heavy, count = pools.pop()
            total = heavy + pool[1]
            pool = ((value * heavy + pool[0] * pool[1]) / total, total, count + pool[2])
        pools.append(pool)
    return [value for value, _, count in pools for _ in range(count)]


def _rows(layering: Layering, boxes: Boxes, x: Mapping[Cell, float]) -> tuple[list[float], list[float]]:
    """Give each layer's top and height; layers whose links go far sideways lie further apart."""
    heights = [max((boxes[cell][2] for cell in layer), default=0.0) for layer in layering.layers]
    gaps = [_BETWEEN_LAYERS] * len(heights)
    for chain in layering.chains.values():
        for above, below in pairwise(chain):
            wanted = _BETWEEN_LAYERS + _STEEPNESS * abs(x[above] - x[below])
            gaps[above.layer] = max(gaps[above.layer], min(wanted, _WIDEST_GAP))
    tops = [0.0] * len(heights)
    for number in range(1, len(heights)):
        tops[number] = tops[number - 1] + heights[number - 1] + gaps[number - 1]
    return tops, heights


def _ports(layering: Layering, nodes: Mapping[str, Size], x: Mapping[Cell, float]) -> dict[tuple[int, int], float]:
    """Give the x at which each link touches its upper node (side 1, below it) and its lower one (side 0, above it)."""
    ends: dict[tuple[str, int], list[tuple[float, int]]] = {}
    for index, chain in layering.chains.items():
        ends.setdefault((chain[0].node, 1), []).append((x[chain[1]], index))
        ends.setdefault((chain[-1].node, 0), []).append((x[chain[-2]], index))
    middles = {cell.node: x[cell] for layer in layering.layers for cell in layer if cell.link is None}
    ports = {}
    for (node, side), touching in ends.items():
        step = min(_PORTS, max((nodes[node].width - 48) / len(touching), 14))
        spread = [middles[node] + (place - (len(touching) - 1) / 2) * step for place in range(len(touching))]
        wishes = [
            min(max(at, even - _AWAY_FROM_EVEN), even + _AWAY_FROM_EVEN) - place * step
            for place, (even, (at, _)) in enumerate(zip(spread, sorted(touching), strict=True))
        ]
        placed = _in_order(wishes, [1.0] * len(wishes))
        for place, (_, index) in enumerate(sorted(touching)):
            ports[index, side] = placed[place] + place * step
    return ports


def _points(
    index: int,
    chain: Sequence[Cell],
    x: Mapping[Cell, float],
    tops: Sequence[float],
    heights: Sequence[float],
    ports: Mapping[tuple[int, int], float],
    nodes: Mapping[str, Size],
) -> list[Point]:
    """Give a link's points from the top: it runs straight through each layer, and bends between two of them."""
    first, last = chain[0], chain[-1]
    bottom = tops[first.layer] + (heights[first.layer] + nodes[first.node].height) / 2
    top = tops[last.layer] + (heights[last.layer] - nodes[last.node].height) / 2
    points = [(ports[index, 1], bottom), (ports[index, 1], tops[first.layer] + heights[first.layer])]
    for cell in chain[1:-1]:
        points += [(x[cell], tops[cell.layer]), (x[cell], tops[cell.layer] + heights[cell.layer])]
    return [*points, (ports[index, 0], tops[last.layer]), (ports[index, 0], top)]
