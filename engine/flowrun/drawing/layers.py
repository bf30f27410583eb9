"""Assigns nodes to layers and orders each layer: the first half of a layered graph drawing.

Source: Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical system structures", 1981.

Nodes are in the even layers and edge labels in the odd layers between them, so no label can overlap a node. An edge
that would point upwards is reversed for the layout, and crosses as many layers as any other edge.
"""

from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import Final

import msgspec

_MAX_SWEEPS: Final = 24

Node = str


class Cell(msgspec.Struct, frozen=True):
    """A position in a layer: a node (``edge`` is None), or the point where an edge crosses the layer."""

    layer: int
    node: Node = ""
    edge: int | None = None


class Layering(msgspec.Struct, frozen=True):
    """The layers from top to bottom, each with its cells from left to right.

    ``chains`` holds the cells of each edge from top to bottom, by the edge's index; a self-loop has no chain.
    ``reversed_edges`` holds the edges that point upwards: their chains begin at the edge's target.
    """

    layers: list[list[Cell]]
    chains: dict[int, list[Cell]]
    reversed_edges: frozenset[int]


def make_layers(nodes: Sequence[Node], edges: Sequence[tuple[Node, Node]]) -> Layering:
    """Assign the nodes to layers and order each layer so that few edges cross; the first node is on top.

    Args:
        edges: the (source, target) pair of each edge.
    """
    reversed_edges = _back_edges(nodes, edges)
    down = {
        index: (target, source) if index in reversed_edges else (source, target)
        for index, (source, target) in enumerate(edges)
        if source != target
    }
    depths = _depths(nodes, list(down.values()))
    chains = {index: _chain(index, source, target, depths) for index, (source, target) in down.items()}
    layers: list[list[Cell]] = [[] for _ in range(max(depths.values(), default=0) + 1)]
    for cell in _initial_order(nodes, chains, depths):
        layers[cell.layer].append(cell)
    return Layering(_reduce_crossings(layers, neighbours(chains)), chains, reversed_edges)


def neighbours(chains: Mapping[int, Sequence[Cell]]) -> dict[Cell, tuple[list[Cell], list[Cell]]]:
    """Return each cell's neighbours in the layer above and in the layer below, one for each edge."""
    found: dict[Cell, tuple[list[Cell], list[Cell]]] = {}
    for chain in chains.values():
        for above, below in pairwise(chain):
            found.setdefault(above, ([], []))[1].append(below)
            found.setdefault(below, ([], []))[0].append(above)
    return found


def _back_edges(nodes: Sequence[Node], edges: Sequence[tuple[Node, Node]]) -> frozenset[int]:
    """Find the edges that close a cycle, by a depth-first search from the first node."""
    import networkx

    graph: networkx.DiGraph[Node] = networkx.DiGraph()
    graph.add_nodes_from(nodes)
    graph.add_edges_from(edges)
    path: set[Node] = set()
    closing: set[tuple[Node, Node]] = set()
    for source, target, step in networkx.dfs_labeled_edges(graph):
        if step == "forward":
            path.add(target)
        elif step == "reverse":
            path.remove(target)
        elif target in path:
            closing.add((source, target))
    return frozenset(index for index, edge in enumerate(edges) if edge in closing)


def _depths(nodes: Sequence[Node], edges: Sequence[tuple[Node, Node]]) -> dict[Node, int]:
    """Assign each node to the first even layer below all of its predecessors (longest-path layering)."""
    sources: dict[Node, set[Node]] = {node: set() for node in nodes}
    for source, target in edges:
        sources[target].add(source)
    depths = dict.fromkeys(nodes, 0)
    for node in TopologicalSorter(sources).static_order():
        depths[node] = max((depths[source] + 2 for source in sources[node]), default=0)
    return depths


def _chain(index: int, source: Node, target: Node, depths: Mapping[Node, int]) -> list[Cell]:
    between = range(depths[source] + 1, depths[target])
    return [
        Cell(depths[source], node=source),
        *(Cell(layer, edge=index) for layer in between),
        Cell(depths[target], node=target),
    ]


def _initial_order(
    nodes: Sequence[Node], chains: Mapping[int, Sequence[Cell]], depths: Mapping[Node, int]
) -> list[Cell]:
    """Order the cells by a depth-first search from the first node, so that connected cells are close to each other."""
    around = neighbours(chains)
    order: dict[Cell, None] = {}
    for node in nodes:
        stack = [Cell(depths[node], node=node)]
        while stack:
            cell = stack.pop()
            if cell not in order:
                order[cell] = None
                above, below = around.get(cell, ([], []))
                stack += [*reversed(above), *reversed(below)]
    return list(order)


def _reduce_crossings(
    layers: list[list[Cell]], around: Mapping[Cell, tuple[list[Cell], list[Cell]]]
) -> list[list[Cell]]:
    """Order each layer by the mean position of its neighbours, downwards and upwards in turn; return the best order."""
    best, fewest = layers, _crossings(layers, around)
    for sweep in range(_MAX_SWEEPS):
        if fewest == 0:
            break
        side = sweep % 2
        layers = [list(layer) for layer in layers]
        order = range(1, len(layers)) if side == 0 else range(len(layers) - 2, -1, -1)
        for number in order:
            fixed = {cell: position for position, cell in enumerate(layers[number - 1 if side == 0 else number + 1])}
            layers[number] = _by_barycenter(layers[number], fixed, around, side)
        _swap_neighbours(layers, around)
        crossings = _crossings(layers, around)
        if crossings < fewest:
            best, fewest = layers, crossings
    return best


def _by_barycenter(
    layer: list[Cell], fixed: Mapping[Cell, int], around: Mapping[Cell, tuple[list[Cell], list[Cell]]], side: int
) -> list[Cell]:
    def barycenter(position: int) -> float:
        others = [fixed[other] for other in around.get(layer[position], ([], []))[side]]
        return sum(others) / len(others) if others else float(position)

    return [layer[position] for position in sorted(range(len(layer)), key=barycenter)]


def _swap_neighbours(layers: list[list[Cell]], around: Mapping[Cell, tuple[list[Cell], list[Cell]]]) -> None:
    """Swap two adjacent cells wherever this reduces the number of crossings."""
    for number, layer in enumerate(layers):
        sides = [
            {cell: position for position, cell in enumerate(layers[other])} if 0 <= other < len(layers) else {}
            for other in (number - 1, number + 1)
        ]
        for position in range(len(layer) - 1):
            left, right = layer[position], layer[position + 1]
            current = sum(_pair_crossings(around, side, fixed, left, right) for side, fixed in enumerate(sides))
            swapped = sum(_pair_crossings(around, side, fixed, right, left) for side, fixed in enumerate(sides))
            if swapped < current:
                layer[position], layer[position + 1] = right, left


def _pair_crossings(
    around: Mapping[Cell, tuple[list[Cell], list[Cell]]], side: int, fixed: Mapping[Cell, int], left: Cell, right: Cell
) -> int:
    lefts = [fixed[cell] for cell in around.get(left, ([], []))[side]]
    rights = [fixed[cell] for cell in around.get(right, ([], []))[side]]
    return sum(one > other for one in lefts for other in rights)


def _crossings(layers: Sequence[Sequence[Cell]], around: Mapping[Cell, tuple[list[Cell], list[Cell]]]) -> int:
    """Count the edge crossings between all layers."""
    count = 0
    for upper, lower in pairwise(layers):
        positions = {cell: position for position, cell in enumerate(lower)}
        seen: list[int] = []
        for cell in upper:
            ends = [positions[other] for other in around.get(cell, ([], []))[1]]
            count += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return count
