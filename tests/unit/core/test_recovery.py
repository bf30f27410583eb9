"""What a run still wants done, wherever its events break off."""

import pytest

from flowrun.core.events import (
    Answered,
    AskModel,
    CallFunction,
    CallStarted,
    Cancelled,
    ChildEnded,
    Effect,
    Event,
    Failed,
    Outcome,
    Replied,
    RequestInput,
    Returned,
    Sleep,
    Slept,
    StartChild,
    Started,
    TimedOut,
)
from flowrun.core.machine import fold
from flowrun.core.messages import Reply, ToolCall
from flowrun.core.recovery import recover
from flowrun.errors import Failure
from tests.flows import ADD, AGENT, graph_of

AGENT_GRAPH = graph_of(ADD, AGENT)
BEGIN = Started(run="r", inputs={"question": "hi"})
TWO_CALLS = Replied(
    step=1,
    reply=Reply(tool_calls=tuple(ToolCall(id="", name="add", arguments=f'{{"a": 1, "b": {b}}}') for b in (2, 3))),
)
SURE = graph_of(ADD.replace("timeout: 5s", "timeout: 5s\n    idempotent: true"), AGENT)


def brief(effect: Effect) -> tuple[str, int, int]:
    return type(effect).__name__, getattr(effect, "step", 0), getattr(effect, "index", 0)


def open_after(*events: Event) -> tuple[list[tuple[str, int, int]], list[int]]:
    _, effects, doubtful, *_ = recover(AGENT_GRAPH, events)
    return [brief(effect) for effect in effects], [effect.index for effect in doubtful]


def test_the_run_is_the_fold_of_its_events() -> None:
    events: list[Event] = [BEGIN, TWO_CALLS, Returned(step=2, index=0, value=3)]
    assert recover(AGENT_GRAPH, events).run == fold(AGENT_GRAPH, events).run


def test_what_was_asked_and_not_answered_is_open() -> None:
    assert open_after() == ([], [])
    assert open_after(BEGIN) == ([("AskModel", 1, 0)], [])
    assert open_after(BEGIN, TWO_CALLS) == ([("CallFunction", 2, 0), ("CallFunction", 2, 1)], [])
    assert open_after(BEGIN, TWO_CALLS, Returned(step=2, index=1, value=4)) == ([("CallFunction", 2, 0)], [])


def test_a_call_that_was_begun_is_in_doubt() -> None:
    begun = (BEGIN, TWO_CALLS, CallStarted(step=2, index=0), CallStarted(step=2, index=1))
    assert open_after(*begun) == ([], [0, 1])
    assert open_after(*begun, Returned(step=2, index=1, value=4)) == ([], [0])
    failed = Failed(step=2, index=0, failure=Failure(name="tool.failed", message="no"))
    assert open_after(*begun, Returned(step=2, index=1, value=4), failed) == ([("AskModel", 3, 0)], [])
    assert open_after(BEGIN, TWO_CALLS, CallStarted(step=2, index=1)) == ([("CallFunction", 2, 0)], [1])


def test_what_was_begun_in_another_step_is_not_in_doubt_now() -> None:
    retrying = AGENT.replace(
        "{type: tools, next: ask}", "{type: tools, on_error: raise, retry: {max_attempts: 2}, next: ask}"
    )
    graph = graph_of(ADD, retrying)
    failed = Failed(step=2, index=0, failure=Failure(name="tool.failed", message="no"))
    one = Replied(step=1, reply=Reply(tool_calls=TWO_CALLS.reply.tool_calls[:1]))
    begun: list[Event] = [BEGIN, one, CallStarted(step=2), failed, Slept(step=3)]
    early: list[Event] = [BEGIN, CallStarted(step=2), one, CallStarted(step=1)]
    for events, step in ((begun, 3), ([*begun, CallStarted(step=2)], 3), (early, 2)):
        _, effects, doubtful, *_ = recover(graph, events)
        assert ([brief(effect) for effect in effects], doubtful) == ([("CallFunction", step, 0)], ())
    assert [effect.step for effect in recover(graph, [*begun, CallStarted(step=3)]).in_doubt] == [3]


def test_a_call_that_may_be_made_twice_is_never_in_doubt() -> None:
    _, effects, doubtful, *_ = recover(SURE, [BEGIN, TWO_CALLS, CallStarted(step=2, index=0)])
    assert ([effect.index for effect in effects if isinstance(effect, CallFunction)], doubtful) == ([0, 1], ())


def test_a_run_that_has_ended_wants_nothing() -> None:
    run, effects, doubtful, *_ = recover(AGENT_GRAPH, [BEGIN, Replied(step=1, reply=Reply(content="hello"))])
    assert (run.outcome, effects, doubtful) == (Outcome(status="succeeded", output={"answer": "hello"}), (), ())


@pytest.mark.parametrize("last", [Cancelled(), TimedOut()], ids=["cancelled", "out of time"])
def test_a_run_that_was_ended_wants_none_of_what_was_open(last: Event) -> None:
    graph = graph_of(ADD, AGENT.replace("max_steps: 20", "timeout: 1m"))
    run, effects, doubtful, *_ = recover(graph, [BEGIN, TWO_CALLS, CallStarted(step=2, index=1), last])
    assert (run.outcome is None, effects, doubtful) == (False, (), ())


def test_a_pause_between_two_attempts() -> None:
    graph = graph_of(
        "states: {ask: {type: chat, retry: {max_attempts: 2, delay: 1}, next: end}, end: {type: end}}",
    )
    failed = Failed(step=1, failure=Failure(name="backend.unavailable", message="no"))
    found = recover(graph, [Started(run="r", inputs={}), failed])
    assert [type(effect) for effect in found.effects] == [Sleep]
    found = recover(graph, [Started(run="r", inputs={}), failed, Slept(step=2)])
    assert [(type(effect), found.run.attempt) for effect in found.effects] == [(AskModel, 2)]


def test_children_and_human_input() -> None:
    graph = graph_of(
        "flows: {one: {states: {only: {type: end, output: 1}}}}\n"
        "states:\n"
        "  many: {type: map, flow: '#one', for_each: '[1, 2, 3]', as: item, with: {}, max_concurrency: 2, next: ask}\n"
        "  ask: {type: wait, prompt: Well?, schema: {type: boolean}, next: end}\n"
        "  end: {type: end}\n"
    )
    events: list[Event] = [Started(run="r", inputs={})]

    def children() -> list[int]:
        return [effect.index for effect in recover(graph, events).effects if isinstance(effect, StartChild)]

    def ended(index: int) -> ChildEnded:
        return ChildEnded(step=1, index=index, outcome=Outcome(status="succeeded", output=1))

    assert children() == [0, 1]
    events.append(ended(1))
    assert children() == [0, 2]
    events += [ended(0), ended(2)]
    wait = recover(graph, events)
    assert [type(effect) for effect in wait.effects] == [RequestInput]
    events.append(Answered(step=2, value="neither"))  # does not match: as if it were never given
    assert recover(graph, events) == wait
    events.append(Answered(step=2, value=True))
    assert recover(graph, events).run.status == "succeeded"


def test_each_open_effect_has_the_time_of_the_event_that_requested_it() -> None:
    flow = """
    flows: {one: {inputs: {n: {}}, states: {e: {type: end}}}}
    states:
      many: {type: map, flow: "#one", for_each: "[1, 2, 3]", as: n, max_concurrency: 2, next: e}
      e: {type: end}
    """
    events: list[Event] = [
        Started(run="r", inputs={}),
        ChildEnded(step=1, index=1, outcome=Outcome(status="succeeded")),
    ]
    found = recover(graph_of(flow), events, [100.0, 130.0])
    assert (found.entered, found.requested) == (100.0, {0: 100.0, 2: 130.0})
