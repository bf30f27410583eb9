"""Which layer each node lies in, and in which order: the first half of a layered drawing (Sugiyama, Tagawa, Toda 1981).

Nodes lie in the even layers, labels of links in the odd ones between, so that no label can overlap a node. A link that
would lead upwards is turned round for the layout, and passes through as many layers as any other.
"""

from bisect import bisect_right, insort
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

import msgspec

_SWEEPS: Final = 24

Node = str


class Cell(msgspec.Struct, frozen=True):
    """What takes a place in a layer: a node (``link`` None), or the point at which a link passes."""

    layer: int
    node: Node = ""
    link: int | None = None


class Layering(msgspec.Struct, frozen=True):
    """The layers from the top, each with its cells from the left; and the cells that each link passes, from the top.

    ``turned`` are the links that lead upwards: their chains begin at the target. A link from a node to itself has no
    chain.
    """

    layers: list[list[Cell]]
    chains: dict[int, list[Cell]]
    turned: frozenset[int]


def make_layers(nodes: Sequence[Node], links: Sequence[tuple[Node, Node]]) -> Layering:
    """Put the nodes into layers and order them so that few links cross; the first node is on top."""
    turned = _links_back(nodes, links)
    down = {
        index: (target, source) if index in turned else (source, target)
        for index, (source, target) in enumerate(links)
        if source != target
    }
    depths = _depths(nodes, list(down.values()))
    chains = {index: _chain(index, source, target, depths) for index, (source, target) in down.items()}
    layers: list[list[Cell]] = [[] for _ in range(max(depths.values(), default=0) + 1)]
    for cell in _in_first_order(nodes, chains, depths):
        layers[cell.layer].append(cell)
    return Layering(_untangled(layers, neighbours(chains)), chains, turned)


def neighbours(chains: Mapping[int, Sequence[Cell]]) -> dict[Cell, tuple[list[Cell], list[Cell]]]:
    """Give each cell's neighbours in the layer above and in the one below, one for each link."""
    found: dict[Cell, tuple[list[Cell], list[Cell]]] = {}
    for chain in chains.values():
        for above, below in pairwise(chain):
            found.setdefault(above, ([], []))[1].append(below)
            found.setdefault(below, ([], []))[0].append(above)
    return found


def _links_back(nodes: Sequence[Node], links: Sequence[tuple[Node, Node]]) -> frozenset[int]:
    """Find the links that close a circle, in a walk in depth from the first node."""
    leaving: dict[Node, list[int]] = {node: [] for node in nodes}
    for index, (source, _) in enumerate(links):
        leaving[source].append(index)
    back: set[int] = set()
    done: set[Node] = set()
    for first in nodes:
        if first in done:
            continue
        path = {first: iter(leaving[first])}
        while path:
            node = next(reversed(path))
            following = next(path[node], None)
            if following is None:
                path.popitem()
                done.add(node)
            elif (target := links[following][1]) in path:
                back.add(following)
            elif target not in done:
                path[target] = iter(leaving[target])
    return frozenset(back)


def _depths(nodes: Sequence[Node], links: Sequence[tuple[Node, Node]]) -> dict[Node, int]:
    """Give each node the even layer behind those of all that lead to it."""
    depths = dict.fromkeys(nodes, 0)
    entering = dict.fromkeys(nodes, 0)
    leaving: dict[Node, list[Node]] = {node: [] for node in nodes}
    for source, target in links:
        entering[target] += 1
        leaving[source].append(target)
    ready = [node for node in nodes if entering[node] == 0]
    while ready:
        source = ready.pop()
        for target in leaving[source]:
            depths[target] = max(depths[target], depths[source] + 2)
            entering[target] -= 1
            if entering[target] == 0:
                ready.append(target)
    return depths


def _chain(index: int, source: Node, target: Node, depths: Mapping[Node, int]) -> list[Cell]:
    between = range(depths[source] + 1, depths[target])
    return [
        Cell(depths[source], node=source),
        *(Cell(layer, link=index) for layer in between),
        Cell(depths[target], node=target),
    ]


def _in_first_order(
    nodes: Sequence[Node], chains: Mapping[int, Sequence[Cell]], depths: Mapping[Node, int]
) -> list[Cell]:
    """Walk in depth from the first node: what belongs together begins side by side."""
    around = neighbours(chains)
    order: dict[Cell, None] = {}
    for node in nodes:
        waiting = [Cell(depths[node], node=node)]
        while waiting:
            cell = waiting.pop()
            if cell not in order:
                order[cell] = None
                above, below = around.get(cell, ([], []))
                waiting += [*reversed(above), *reversed(below)]
    return list(order)


def _untangled(layers: list[list[Cell]], around: Mapping[Cell, tuple[list[Cell], list[Cell]]]) -> list[list[Cell]]:
    """Order each layer by the middle of its neighbours, downwards and upwards by turns; the best order stays."""
    best, fewest = layers, _crossings(layers, around)
    for sweep in range(_SWEEPS):
        if fewest == 0:
            break
        side = sweep % 2
        layers = [list(layer) for layer in layers]
        order = range(1, len(layers)) if side == 0 else range(len(layers) - 2, -1, -1)
        for number in order:
            fixed = {cell: place for place, cell in enumerate(layers[number - 1 if side == 0 else number + 1])}
            layers[number] = _by_middle(layers[number], fixed, around, side)
        _swap_neighbours(layers, around)
        crossings = _crossings(layers, around)
        if crossings < fewest:
            best, fewest = layers, crossings
    return best


def _by_middle(
    layer: list[Cell], fixed: Mapping[Cell, int], around: Mapping[Cell, tuple[list[Cell], list[Cell]]], side: int
) -> list[Cell]:
    def middle(place: int) -> float:
        others = [fixed[other] for other in around.get(layer[place], ([], []))[side]]
        return sum(others) / len(others) if others else float(place)

    return [layer[place] for place in sorted(range(len(layer)), key=middle)]


def _swap_neighbours(layers: list[list[Cell]], around: Mapping[Cell, tuple[list[Cell], list[Cell]]]) -> None:
    """Swap two that lie side by side wherever fewer links cross then."""
    for number, layer in enumerate(layers):
        sides = [
            {cell: place for place, cell in enumerate(layers[other])} if 0 <= other < len(layers) else {}
            for other in (number - 1, number + 1)
        ]
        for place in range(len(layer) - 1):
            left, right = layer[place], layer[place + 1]
            kept = sum(_crossed(around, side, fixed, left, right) for side, fixed in enumerate(sides))
            swapped = sum(_crossed(around, side, fixed, right, left) for side, fixed in enumerate(sides))
            if swapped < kept:
                layer[place], layer[place + 1] = right, left


def _crossed(
    around: Mapping[Cell, tuple[list[Cell], list[Cell]]], side: int, fixed: Mapping[Cell, int], left: Cell, right: Cell
) -> int:
    lefts = [fixed[cell] for cell in around.get(left, ([], []))[side]]
    rights = [fixed[cell] for cell in around.get(right, ([], []))[side]]
    return sum(one > other for one in lefts for other in rights)


def _crossings(layers: Sequence[Sequence[Cell]], around: Mapping[Cell, tuple[list[Cell], list[Cell]]]) -> int:
    """Count the crossings between all layers."""
    count = 0
    for upper, lower in pairwise(layers):
        places = {cell: place for place, cell in enumerate(lower)}
        seen: list[int] = []
        for cell in upper:
            ends = [places[other] for other in around.get(cell, ([], []))[1]]
            count += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return count
