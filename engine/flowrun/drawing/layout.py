"""Assigns coordinates: the second half of a layered graph drawing. Lengths are in pixels, y grows downwards.

Edges are made as straight as possible. Each layer in turn gets the x coordinates nearest to those of its neighbours
that preserve its order and its minimum gaps (a least-squares problem that the pool-adjacent-violators algorithm solves
exactly).
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from flowrun.drawing.layers import Cell, Layering, make_layers, neighbours

_NODE_GAP: Final = 26.0
_EDGE_GAP: Final = 14.0
_LAYER_GAP: Final = 20.0
_SLOPE: Final = 0.10
"""The share of an edge's horizontal distance that is added to the gap between its two layers."""
_MAX_LAYER_GAP: Final = 44.0
_PORT_GAP: Final = 26.0
_MAX_PORT_SHIFT: Final = 16.0
"""How far an edge may touch its node from its evenly spaced port, so that it runs straight."""
_MAX_PASSES: Final = 60
_TOLERANCE: Final = 0.05
"""The layout is finished when a pass moves no cell by more than this."""
_FREE_WEIGHT: Final = 0.01
"""The weight of the position of a cell without neighbours."""

Point = tuple[float, float]


class Size(msgspec.Struct, frozen=True):
    """The size of a node or a label; ``right_margin`` is the free space on its right, for self-loops."""

    width: float
    height: float
    right_margin: float = 0.0


class EdgeLine(msgspec.Struct, frozen=True):
    """The line of an edge: the ends of its straight parts, starting at its source, and the centre of its label."""

    points: tuple[Point, ...]
    label: Point


class GraphLayout(msgspec.Struct, frozen=True):
    """The centre of each node by its name, and the line of each edge by its index; a self-loop has no line."""

    width: float
    height: float
    nodes: Mapping[str, Point]
    edge_lines: Mapping[int, EdgeLine]


def lay_out(nodes: Mapping[str, Size], edges: Sequence[tuple[str, str]], labels: Sequence[Size]) -> GraphLayout:
    """Compute the layout of a graph from top to bottom; the first node is on top.

    Args:
        edges: the (source, target) pair of each edge.
        labels: the size of each edge's label, in the order of ``edges``.
    """
    layering = make_layers(list(nodes), edges)
    boxes = _boxes(layering, nodes, labels)
    x = _assign_x(layering, boxes)
    tops, heights = _assign_y(layering, boxes, x)
    ports = _ports(layering, nodes, x)
    edge_lines = {}
    for index, chain in layering.chains.items():
        points = _points(index, chain, x, tops, heights, ports, nodes)
        at = _label_cell(index, layering)
        label = (x[at], tops[at.layer] + heights[at.layer] / 2)
        edge_lines[index] = EdgeLine(
            tuple(reversed(points)) if index in layering.reversed_edges else tuple(points), label
        )
    middles = {
        cell.node: (x[cell], tops[number] + heights[number] / 2)
        for number, layer in enumerate(layering.layers)
        for cell in layer
        if cell.edge is None
    }
    width = max(x[cell] + boxes[cell][1] for layer in layering.layers for cell in layer)
    return GraphLayout(width, tops[-1] + heights[-1], middles, edge_lines)


def _label_cell(index: int, layering: Layering) -> Cell:
    """Return the cell of an edge's label: the one next to the source, the state that decides which edge is taken."""
    return layering.chains[index][-2 if index in layering.reversed_edges else 1]


Boxes = Mapping[Cell, tuple[float, float, float]]
"""The space of each cell: left of its centre, right of its centre, and its height."""


def _boxes(layering: Layering, nodes: Mapping[str, Size], labels: Sequence[Size]) -> Boxes:
    boxes: dict[Cell, tuple[float, float, float]] = {}
    for cell in (cell for layer in layering.layers for cell in layer):
        if cell.edge is None:
            size = nodes[cell.node]
        elif cell == _label_cell(cell.edge, layering):
            size = labels[cell.edge]
        else:
            size = Size(0, 0)
        boxes[cell] = (size.width / 2, size.width / 2 + size.right_margin, size.height)
    return boxes


def _assign_x(layering: Layering, boxes: Boxes) -> dict[Cell, float]:
    """Compute each cell's x: first from the layers above and below in turn, then from both at once."""
    around = neighbours(layering.chains)
    offsets = {number: _offsets(layer, boxes) for number, layer in enumerate(layering.layers)}
    x = {
        cell: offset
        for number, layer in enumerate(layering.layers)
        for cell, offset in zip(layer, offsets[number], strict=True)
    }
    for phase in (((0,), (1,)), ((0, 1), (0, 1))):
        for turn in range(_MAX_PASSES):
            sides = phase[turn % 2]
            order = range(len(layering.layers))
            moved = [
                _place_layer(layering.layers[number], offsets[number], x, around, sides)
                for number in (order if turn % 2 == 0 else reversed(order))
            ]
            if max(moved) < _TOLERANCE:
                break
    _straighten_edges(layering, boxes, x)
    left = min(x[cell] - boxes[cell][0] for cell in x)
    return {cell: at - left for cell, at in x.items()}


def _place_layer(
    layer: Sequence[Cell],
    offsets: Sequence[float],
    x: dict[Cell, float],
    around: Mapping[Cell, tuple[list[Cell], list[Cell]]],
    sides: Sequence[int],
) -> float:
    """Move the cells of a layer towards their neighbours; return the largest distance that a cell moved."""
    targets, weights = [], []
    for cell, offset in zip(layer, offsets, strict=True):
        pulls = [(x[other], _pull(cell, other)) for side in sides for other in around.get(cell, ([], []))[side]]
        weight = sum(pull for _, pull in pulls)
        targets.append((sum(at * pull for at, pull in pulls) / weight if pulls else x[cell]) - offset)
        weights.append(weight if pulls else _FREE_WEIGHT)
    moved = 0.0
    for cell, at, offset in zip(layer, _fit_in_order(targets, weights), offsets, strict=True):
        moved = max(moved, abs(x[cell] - at - offset))
        x[cell] = at + offset
    return moved


def _straighten_edges(layering: Layering, boxes: Boxes, x: dict[Cell, float]) -> None:
    """Move the points of each edge onto as few vertical lines as the adjacent cells of the layers allow."""
    adjacent = {}
    for layer in layering.layers:
        for position, cell in enumerate(layer):
            adjacent[cell] = (
                layer[position - 1] if position else None,
                layer[position + 1] if position + 1 < len(layer) else None,
            )

    def between(cell: Cell) -> tuple[float, float]:
        before, after = adjacent[cell]
        low = x[before] + _distance(before, cell, boxes) if before is not None else float("-inf")
        return low, x[after] - _distance(cell, after, boxes) if after is not None else float("inf")

    for chain in sorted(layering.chains.values(), key=len, reverse=True):
        segment: list[Cell] = []
        low, high = float("-inf"), float("inf")
        for cell in chain[1:-1]:
            least, most = between(cell)
            if max(low, least) > min(high, most):
                _align(segment, low, high, x)
                segment, low, high = [], float("-inf"), float("inf")
            segment, low, high = [*segment, cell], max(low, least), min(high, most)
        _align(segment, low, high, x)


def _align(segment: Sequence[Cell], low: float, high: float, x: dict[Cell, float]) -> None:
    if segment:
        middle = sum(x[cell] for cell in segment) / len(segment)
        x.update(dict.fromkeys(segment, min(max(middle, low), high)))


def _pull(cell: Cell, other: Cell) -> float:
    """Return the weight of aligning two neighbours: the highest for two points of an edge, so that it runs straight."""
    return (1.0, 3.0, 9.0)[(cell.edge is not None) + (other.edge is not None)]


def _offsets(layer: Sequence[Cell], boxes: Boxes) -> list[float]:
    """Return the minimum distance of each cell from the first one."""
    offsets = [0.0] * len(layer)
    for position in range(1, len(layer)):
        offsets[position] = offsets[position - 1] + _distance(layer[position - 1], layer[position], boxes)
    return offsets


def _distance(left: Cell, right: Cell, boxes: Boxes) -> float:
    """Return the minimum distance between the centres of two adjacent cells."""
    gap = _NODE_GAP if left.edge is None or right.edge is None else _EDGE_GAP
    return boxes[left][1] + gap + boxes[right][0]


def _fit_in_order(targets: Sequence[float], weights: Sequence[float]) -> list[float]:
    """Return the ascending values nearest to the targets by weighted least squares (pool adjacent violators)."""
    pools: list[tuple[float, float, int]] = []
    for target, weight in zip(targets, weights, strict=True):
        pool = (target, weight, 1)
        while pools and pools[-1][0] > pool[0]:
            value, heavy, count = pools.pop()
            total = heavy + pool[1]
            pool = ((value * heavy + pool[0] * pool[1]) / total, total, count + pool[2])
        pools.append(pool)
    return [value for value, _, count in pools for _ in range(count)]


def _assign_y(layering: Layering, boxes: Boxes, x: Mapping[Cell, float]) -> tuple[list[float], list[float]]:
    """Return the top and the height of each layer; the gap grows with the horizontal distance of the edges in it."""
    heights = [max((boxes[cell][2] for cell in layer), default=0.0) for layer in layering.layers]
    gaps = [_LAYER_GAP] * len(heights)
    for chain in layering.chains.values():
        for above, below in pairwise(chain):
            wanted = _LAYER_GAP + _SLOPE * abs(x[above] - x[below])
            gaps[above.layer] = max(gaps[above.layer], min(wanted, _MAX_LAYER_GAP))
    tops = [0.0] * len(heights)
    for number in range(1, len(heights)):
        tops[number] = tops[number - 1] + heights[number - 1] + gaps[number - 1]
    return tops, heights


def _ports(layering: Layering, nodes: Mapping[str, Size], x: Mapping[Cell, float]) -> dict[tuple[int, int], float]:
    """Return the x at which each edge touches its two nodes, by (edge, side).

    Side 1 is the lower side of the upper node, side 0 the upper side of the lower node.
    """
    ends: dict[tuple[str, int], list[tuple[float, int]]] = {}
    for index, chain in layering.chains.items():
        ends.setdefault((chain[0].node, 1), []).append((x[chain[1]], index))
        ends.setdefault((chain[-1].node, 0), []).append((x[chain[-2]], index))
    middles = {cell.node: x[cell] for layer in layering.layers for cell in layer if cell.edge is None}
    ports = {}
    for (node, side), touching in ends.items():
        step = min(_PORT_GAP, max((nodes[node].width - 48) / len(touching), 14))
        spread = [middles[node] + (position - (len(touching) - 1) / 2) * step for position in range(len(touching))]
        targets = [
            min(max(at, even - _MAX_PORT_SHIFT), even + _MAX_PORT_SHIFT) - position * step
            for position, (even, (at, _)) in enumerate(zip(spread, sorted(touching), strict=True))
        ]
        placed = _fit_in_order(targets, [1.0] * len(targets))
        for position, (_, index) in enumerate(sorted(touching)):
            ports[index, side] = placed[position] + position * step
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
    """Return an edge's points from top to bottom: it is vertical inside a layer, and bends between two layers."""
    first, last = chain[0], chain[-1]
    bottom = tops[first.layer] + (heights[first.layer] + nodes[first.node].height) / 2
    top = tops[last.layer] + (heights[last.layer] - nodes[last.node].height) / 2
    points = [(ports[index, 1], bottom), (ports[index, 1], tops[first.layer] + heights[first.layer])]
    for cell in chain[1:-1]:
        points += [(x[cell], tops[cell.layer]), (x[cell], tops[cell.layer] + heights[cell.layer])]
    return [*points, (ports[index, 0], tops[last.layer]), (ports[index, 0], top)]
