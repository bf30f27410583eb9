"""What a wide state costs grows with its width and no faster: operations are counted, no time is measured."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from flowrun.core.call_handling import find_call_handling
from flowrun.core.events import ChildEnded, Event, Outcome, Replied, Returned, Started
from flowrun.core.graph import Graph
from flowrun.core.machine import Run, advance
from flowrun.core.messages import Reply, ToolCall
from tests.flows import ADD, AGENT, graph_of, spec_of

CHILD = 'flows: {child: {inputs: {item: {}}, states: {only: {type: end, output: "{{ inputs.item }}"}}}}\n'
LIST = "inputs: {list: {type: array}}\n"
MAP = 'states: {s: {type: map, flow: "#child", for_each: inputs.list, as: item, next: e}, e: {type: end}}\n'
NARROW = MAP.replace("as: item", "as: item, max_concurrency: 8")
Wide = tuple[Graph, list[Event]]


def ended(index: int) -> ChildEnded:
    return ChildEnded(step=1, index=index, outcome=Outcome(status="succeeded", output=[index]))


def wide_map(width: int) -> Wide:
    start = Started(run="r", inputs={"list": list(range(width))})
    return graph_of(CHILD, LIST, MAP), [start, *map(ended, reversed(range(width)))]


def narrow_map(width: int) -> Wide:
    start = Started(run="r", inputs={"list": list(range(width))})
    return graph_of(CHILD, LIST, NARROW), [start, *map(ended, range(width))]


def wide_parallel(width: int) -> Wide:
    branches = ", ".join(f'b{index}: {{flow: "#child", with: {{item: {index}}}}}' for index in range(width))
    states = f"states: {{s: {{type: parallel, branches: {{{branches}}}, next: e}}, e: {{type: end}}}}\n"
    return graph_of(CHILD, states), [Started(run="r", inputs={}), *map(ended, range(width))]


def wide_reply(width: int) -> Wide:
    calls = tuple(ToolCall(id="", name="add", arguments='{"a": 1, "b": 2}') for _ in range(width))
    start = Started(run="r", inputs={"question": "?"})
    values = [Returned(step=2, index=index, value=[index]) for index in range(width)]
    answer = Replied(step=3, reply=Reply(content="Done."))
    return graph_of(ADD, AGENT), [start, Replied(step=1, reply=Reply(tool_calls=calls)), *values, answer]


def runs_of(graph: Graph, events: list[Event]) -> list[Run]:
    runs = [Run()]
    for event in events:
        runs.append(advance(graph, runs[-1], event).run)
    assert runs[-1].status == "succeeded"
    return runs


def count_calls(action: Callable[[], object]) -> int:
    """Count the calls of functions, those written in C included, that an action makes."""
    counted = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        action()
    finally:
        sys.setprofile(before)
    return counted


@pytest.mark.parametrize(
    ("wide", "width"),
    [
        pytest.param(wide_map, 2000, id="map"),
        pytest.param(narrow_map, 2000, id="map, eight at a time"),
        pytest.param(wide_parallel, 250, id="parallel"),
        pytest.param(wide_reply, 500, id="calls of one reply"),
    ],
)
def test_operations_of_a_wide_state_grow_with_its_width(wide: Callable[[int], Wide], width: int) -> None:
    graph, events = wide(20)
    runs_of(graph, events)  # what is made once
    costs = []
    for times in (1, 2):
        graph, events = wide(times * width)
        costs.append(count_calls(lambda graph=graph, events=events: runs_of(graph, events)) / times)  # type: ignore[misc]
    assert 1 / 1.3 < costs[1] / costs[0] < 1.3


def test_operations_of_finding_handled_calls_grow_with_chats_that_share_one_tail() -> None:
    costs = []
    for count in (100, 200):
        routes = ", ".join(f"{{when: inputs.n == {i}, to: c{i}}}" for i in range(count))
        chats = "".join(f"  c{i}: {{type: chat, next: t0}}\n" for i in range(count))
        tail = "".join(f"  t{i}: {{type: route, next: t{i + 1}}}\n" for i in range(count))
        ends = f"  t{count}: {{type: tools, next: e}}\n  e: {{type: end}}\n"
        states = f"states:\n  pick: {{type: route, routes: [{routes}, {{to: e}}]}}\n{chats}{tail}{ends}"
        spec = spec_of(ADD, "inputs: {n: {type: integer}}\n", states)
        assert find_call_handling(spec).chats == {f"c{i}" for i in range(count)}
        costs.append(count_calls(lambda spec=spec: find_call_handling(spec)) / count)  # type: ignore[misc]
    assert costs[1] / costs[0] < 1.3


@pytest.mark.parametrize(
    ("wide", "first"),
    [
        pytest.param(narrow_map, 1, id="map"),
        pytest.param(wide_parallel, 1, id="parallel"),
        pytest.param(wide_reply, 2, id="calls of one reply"),
    ],
)
def test_runs_of_a_wide_state_share_what_came_first(wide: Callable[[int], Wide], first: int) -> None:
    graph, events = wide(60)
    answer = events[first]
    value = answer.outcome if isinstance(answer, ChildEnded) else getattr(answer, "value", None)
    before = sys.getrefcount(value)
    runs = runs_of(graph, events)
    assert len(runs) > 60
    assert sys.getrefcount(value) - before < 10
