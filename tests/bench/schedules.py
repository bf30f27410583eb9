"""The least time of a simulated engine that schedules are shown to reach: each is played to its end.

The bound of ``least_seconds`` is no schedule: its steps are all full, and the longest conversation has the engine for
itself at the same time. Two kinds of schedules are played here. Those that do not know what comes, as nobody does who
runs a batch: requests in the order in which they come, or those of earlier rounds first. And one that knows how long
each conversation will still take, tools included, and asks for the longest first.
"""

import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tests.bench.simulated import PLACES, Round, step_seconds

Order = Callable[[int, int, int], float]
"""Returns what the requests are sorted by: of the request's conversation, its round, and the number of its arrival."""


class Reached(NamedTuple):
    """The seconds of the best schedule that does not know what comes, and of the one that does."""

    blind: float
    knowing: float


def reached_seconds(conversations: Sequence[Sequence[Round]], tools: Sequence[Sequence[float]]) -> Reached:
    """Return the least seconds in which schedules hold these conversations, all of which may begin at once.

    Args:
        tools: of each conversation, the seconds of the tool behind each round but the last.
    """

    def remaining(number: int, turn: int, arrival: int) -> float:
        steps = sum(round.written for round in conversations[number][turn:])
        return -(steps * step_seconds(PLACES, 0) + sum(tools[number][turn:]))

    blind: tuple[Order, ...] = (lambda number, turn, arrival: arrival, lambda number, turn, arrival: turn)
    return Reached(min(_play(conversations, tools, order) for order in blind), _play(conversations, tools, remaining))


def _play(conversations: Sequence[Sequence[Round]], tools: Sequence[Sequence[float]], order: Order) -> float:
    """Return the seconds in which an engine of ``PLACES`` holds the conversations, whose requests wait in an order."""
    now, arrivals = 0.0, itertools.count()
    waiting: list[tuple[float, int, int]] = []
    running: dict[tuple[int, int], int] = {}
    at_tools: list[tuple[float, int, int]] = []

    def ask(number: int, turn: int) -> None:
        heapq.heappush(waiting, (order(number, turn, next(arrivals)), number, turn))

    for number in range(len(conversations)):
        ask(number, 0)
    while running or waiting or at_tools:
        if not running and not waiting:
            now = max(now, at_tools[0][0])
        while at_tools and at_tools[0][0] <= now:
            _, number, turn = heapq.heappop(at_tools)
            ask(number, turn)
        read = 0
        while waiting and len(running) < PLACES:
            _, number, turn = heapq.heappop(waiting)
            running[number, turn] = conversations[number][turn].written
            read += conversations[number][turn].read
        now += step_seconds(len(running), read)
        for number, turn in [*running]:
            running[number, turn] -= 1
            if not running[number, turn]:
                del running[number, turn]
                if turn + 1 < len(conversations[number]):
                    heapq.heappush(at_tools, (now + tools[number][turn], number, turn + 1))
    return now
