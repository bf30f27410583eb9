"""What bounds tool calls: how many a run makes, how many run at once, and what one adds to the thread."""

import pytest

from flowrun.core.events import (
    CallFunction,
    ChildEnded,
    Event,
    Failed,
    Outcome,
    Replied,
    Returned,
    Sleep,
    Slept,
    StartChild,
    Started,
)
from flowrun.core.graph import Graph
from flowrun.core.machine import fold
from flowrun.core.messages import Reply, ToolCall
from flowrun.core.recovery import recover
from flowrun.errors import Failure
from flowrun.spec.model import JSON
from tests.flows import ADD, graph_of

BEGIN = Started(run="r", inputs={})
NO = Failure(name="tool.failed", message="no")

FLOW = """\
messages: [{role: user, content: hi}]
states:
  ask: {type: chat, routes: [{when: reply.tool_calls, to: act}, {to: done}]}
  act: {type: tools, next: ask}
  done: {type: end, output: "{{ reply.content }}"}
"""
IN_ORDER = FLOW.replace("type: tools,", "type: tools, max_concurrency: 1,")
TWO = FLOW.replace("type: tools,", "type: tools, max_concurrency: 2,")
RAISING = IN_ORDER.replace("next: ask", "on_error: raise, retry: {max_attempts: 2}, next: ask")


def called(*arguments: str, name: str = "add", step: int = 1) -> Replied:
    calls = tuple(ToolCall(id="", name=name, arguments=written) for written in arguments)
    return Replied(step=step, reply=Reply(tool_calls=calls))


def adding(*numbers: int, step: int = 1) -> Replied:
    return called(*(f'{{"a": 1, "b": {number}}}' for number in numbers), step=step)


def started(graph: Graph, *events: Event) -> list[int]:
    """Return the indexes of the calls that the last event starts."""
    return [effect.index for effect in fold(graph, events).effects if isinstance(effect, CallFunction)]


# --- order --------------------------------------------------------------------------------------------------------


def test_without_a_limit_all_calls_start_at_once() -> None:
    assert started(graph_of(ADD, FLOW), BEGIN, adding(1, 2, 3)) == [0, 1, 2]


def test_calls_in_order_start_when_the_one_before_has_ended() -> None:
    graph = graph_of(ADD, IN_ORDER)
    events: list[Event] = [BEGIN, called('{"a": 1, "b": 1}', "{}", '{"a": 1, "b": 2}', '{"a": 1, "b": 3}')]
    assert started(graph, *events) == [0]
    events.append(Returned(step=2, index=0, value="first"))
    assert started(graph, *events) == [2]  # the second is invalid
    events.append(Failed(step=2, index=2, failure=NO))
    assert started(graph, *events) == [3]
    run = fold(graph, [*events, Returned(step=2, index=3, value="last")]).run
    assert [message.content for message in run.threads["main"]][2:] == [
        "first",
        'error: tool.invalid_arguments: "a" is a required property; "b" is a required property',
        "error: tool.failed: no",
        "last",
    ]


def test_at_most_so_many_calls_run_at_once() -> None:
    graph = graph_of(ADD, TWO)
    events: list[Event] = [BEGIN, adding(1, 2, 3, 4)]
    assert started(graph, *events) == [0, 1]
    events.append(Returned(step=2, index=1, value="b"))
    assert started(graph, *events) == [2]
    events.append(Returned(step=2, index=2, value="c"))
    assert started(graph, *events) == [3]
    events.append(Returned(step=2, index=0, value="a"))
    assert started(graph, *events) == []
    run = fold(graph, [*events, Returned(step=2, index=3, value="d")]).run
    assert [message.content for message in run.threads["main"]][2:] == ["a", "b", "c", "d"]


def test_a_call_that_is_held_back_has_no_result() -> None:
    graph = graph_of(ADD, IN_ORDER)
    events: list[Event] = [BEGIN, adding(1, 2)]
    assert fold(graph, [*events, Returned(step=2, index=1, value=1)]).run == fold(graph, events).run


def test_a_resumed_run_keeps_the_order() -> None:
    graph = graph_of(ADD, IN_ORDER)
    _, effects, doubtful, *_ = recover(graph, [BEGIN, adding(1, 2, 3), Returned(step=2, index=0, value=1)])
    assert [effect.index for effect in effects if isinstance(effect, CallFunction)] == [1]
    assert doubtful == ()


def test_no_call_starts_after_one_that_fails_the_state() -> None:
    graph = graph_of(ADD, RAISING)
    events: list[Event] = [BEGIN, adding(1, 2, 3), Returned(step=2, index=0, value=1)]
    events.append(Failed(step=2, index=1, failure=NO))
    (sleep,) = fold(graph, events).effects
    assert isinstance(sleep, Sleep)
    assert started(graph, *events, Slept(step=3)) == [1]  # the first has returned, and is not made again
    assert started(graph, *events, Slept(step=3), Returned(step=3, index=1, value=2)) == [2]


def test_a_state_that_fails_waits_for_the_calls_under_way() -> None:
    graph = graph_of(ADD, RAISING.replace("max_concurrency: 1", "max_concurrency: 2"))
    events: list[Event] = [BEGIN, adding(1, 2, 3), Failed(step=2, index=0, failure=NO)]
    assert fold(graph, events).effects == ()
    (sleep,) = fold(graph, [*events, Returned(step=2, index=1, value=1)]).effects
    assert isinstance(sleep, Sleep)


# --- how many -----------------------------------------------------------------------------------------------------

LIMITED = FLOW + "limits: {max_tool_calls: 3}\n"


def test_a_run_makes_no_more_calls_than_its_limit() -> None:
    graph = graph_of(ADD, LIMITED)
    assert started(graph, BEGIN, adding(1, 2, 3)) == [0, 1, 2]
    assert fold(graph, [BEGIN, adding(*range(20_000))]).run.outcome == Outcome(
        status="failed",
        error=Failure(
            name="limit.tool_calls",
            message="the reply makes 20000 calls, and limits.max_tool_calls leaves 3",
            state="act",
        ),
    )
    events: list[Event] = [BEGIN, adding(1, 2), Returned(step=2, index=0, value=1), Returned(step=2, index=1, value=1)]
    outcome = fold(graph, [*events, adding(1, 2, step=3)]).run.outcome
    assert outcome is not None
    assert outcome.error is not None
    assert outcome.error.message == "the reply makes 2 calls, and limits.max_tool_calls leaves 1"


def test_invalid_calls_count_and_answered_ones_do_not() -> None:
    graph = graph_of(ADD, LIMITED)
    run = fold(graph, [BEGIN, called("{}", "[]")]).run
    assert (run.tool_calls, run.state) == (2, "ask")


def test_the_limit_can_be_caught() -> None:
    flow = LIMITED.replace("type: tools, next: ask", "type: tools, next: ask, catch: [{errors: [limit.*], to: done}]")
    run = fold(graph_of(ADD, flow), [BEGIN, adding(1, 2, 3, 4)]).run
    assert run.outcome == Outcome(status="succeeded")


PARENT = """\
states:
  go: {type: flow, flow: "#child", next: again}
  again: {type: flow, flow: "#child", next: done}
  done: {type: end}
flows:
  child:
    states: {end: {type: end}}
"""


@pytest.mark.parametrize(("limits", "left"), [("{}", [None, None]), ("{max_tool_calls: 5}", [5, 2])], ids=str)
def test_the_calls_of_children_count(limits: str, left: list[int | None]) -> None:
    graph = graph_of(PARENT, f"limits: {limits}\n")
    ended = ChildEnded(step=1, outcome=Outcome(status="succeeded"), tool_calls=3)
    effects = [*fold(graph, [BEGIN]).effects, *fold(graph, [BEGIN, ended]).effects]
    assert [effect.max_tool_calls for effect in effects if isinstance(effect, StartChild)] == left


@pytest.mark.parametrize(
    ("own", "given", "least"), [(None, None, None), (3, None, 3), (None, 2, 2), (3, 2, 2), (3, 0, 0)]
)
def test_a_child_has_the_least_of_its_limits(own: int | None, given: int | None, least: int | None) -> None:
    flow = FLOW if own is None else f"{FLOW}limits: {{max_tool_calls: {own}}}\n"
    run = fold(graph_of(ADD, flow), [Started(run="r", inputs={}, max_tool_calls=given)]).run
    assert run.max_tool_calls == least


# --- how much -----------------------------------------------------------------------------------------------------

SMALL = ADD.replace("    timeout: 5s\n", "    timeout: 5s\n    max_output: 1KB\n")


def content(graph: Graph, *events: Event) -> str:
    last = fold(graph, [BEGIN, *events]).run.threads["main"][-1].content
    assert isinstance(last, str)
    return last


@pytest.mark.parametrize(
    ("value", "begins", "size"),
    [
        ("x" * 10_000, "x" * 900, "10,000"),
        ("é" * 10_000, "é" * 450, "20,000"),
        ({"a": "\u20ac" * 10_000}, '{"a": "' + "\u20ac" * 300, "30,009"),
    ],
    ids=["ascii", "two bytes", "JSON"],
)
def test_a_result_is_cut_and_its_value_stays_whole(value: JSON, begins: str, size: str) -> None:
    flow = FLOW.replace("tools, next: ask", "tools, next: done").replace("reply.content", "results[0].value")
    run = fold(graph_of(SMALL, flow), [BEGIN, adding(1), Returned(step=2, value=value)]).run
    assert run.outcome == Outcome(status="succeeded", output=value)
    shown = run.threads["main"][-1].content
    assert isinstance(shown, str)
    assert shown.startswith(begins)
    assert shown.endswith(f"\n[cut: it has {size} bytes, of which 1,000 may be shown]")
    assert len(shown.encode()) <= 1000


def test_what_fits_is_not_cut() -> None:
    graph = graph_of(SMALL, FLOW)
    assert content(graph, adding(1), Returned(step=2, value="é" * 500)) == "é" * 500


def test_an_error_is_cut() -> None:
    failure = Failure(name="tool.failed", message="x" * 4000)
    shown = content(graph_of(SMALL, FLOW), adding(1), Failed(step=2, failure=failure))
    assert len(shown.encode()) <= 1000
    assert shown.startswith("error: tool.failed: xxx")


def test_without_max_output_64_kb_are_shown() -> None:
    graph = graph_of(ADD, FLOW)
    assert len(content(graph, adding(1), Returned(step=2, value="x" * 64_000))) == 64_000
    assert len(content(graph, adding(1), Returned(step=2, value="x" * 64_001))) == 64_000


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (f'{{"a": "{"7" * 3_000_000}", "b": 1}}', "add"),
        (f'{{"{"k" * 3_000_000}": 1}}', "add"),
        (f'{{"{"k" * 3_000_000}": 1, "{"k" * 3_000_000}": 2}}', "add"),
        ('{"a": 1, "b": ' + "[" * 30 + f'"{"7" * 3_000_000}"' + "]" * 30 + "}", "add"),
        ("7" * 3_000_000, "add"),
        ("{}", "n" * 3_000_000),
    ],
    ids=["value", "name of a member", "a member twice", "nested", "no object", "name of a tool"],
)
def test_the_echo_of_invalid_arguments_is_short(arguments: str, name: str) -> None:
    shown = content(graph_of(ADD, FLOW), called(arguments, name=name))
    assert shown.startswith("error: tool.")
    assert len(shown) < 4000


def test_the_echo_keeps_the_reason() -> None:
    shown = content(graph_of(ADD, FLOW), called(f'{{"a": "{"7" * 3_000_000}", "b": 1}}'))
    assert shown.startswith('error: tool.invalid_arguments: a: "777')
    assert shown.endswith('7" is not of type "integer"')
