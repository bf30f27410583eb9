"""What succeeded in a state that failed is not done again: by its retry, nor by a state that comes back to it."""

from typing import Any

import pytest

from flowrun.core.events import (
    Answered,
    AskModel,
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
    TimedOut,
)
from flowrun.core.machine import Run, advance, fold
from flowrun.core.messages import Reply, ToolCall
from flowrun.core.recovery import recover
from flowrun.errors import Failure
from tests.flows import ADD, graph_of

BEGIN = Started(run="r", inputs={})
NO = Failure(name="tool.failed", message="no")
PAIR = Replied(
    step=1,
    reply=Reply(tool_calls=tuple(ToolCall(id="same", name="add", arguments=f'{{"a": 1, "b": {b}}}') for b in (2, 3))),
)
TOOLS = (
    ADD
    + """\
messages: [{role: user, content: Go.}]
vars: {}
states:
  ask: {type: chat, routes: [{when: reply.tool_calls, to: act}, {to: done}]}
  act: {type: tools, on_error: raise, retry: {max_attempts: 2}, timeout: 9s, catch: [{to: pause}], next: done}
  pause: {type: wait, prompt: Again?, next: act}
  done: {type: end, output: "{{ results }}"}
"""
)


def after(text: str, *events: Event) -> tuple[Run, list[tuple[int, int, str]]]:
    """Give the run, and the calls or children that the last event led to: their step, index and key."""
    run, effects, _ = fold(graph_of(text), [BEGIN, *events])
    made = [effect for effect in effects if isinstance(effect, (CallFunction, StartChild))]
    return run, [(one.step, one.index, getattr(one, "key", "")) for one in made]


def values_of(run: Run) -> list[Any]:
    assert run.outcome is not None
    return [result["value"] for result in run.outcome.output]


def test_a_retry_makes_only_the_calls_that_failed() -> None:
    events: list[Event] = [PAIR, Returned(step=2, index=0, value=3), Failed(step=2, index=1, failure=NO), Slept(step=3)]
    assert after(TOOLS, *events)[1] == [(3, 1, "r/2/1")]
    run, _ = after(TOOLS, *events, Returned(step=3, index=0, value=99), Returned(step=3, index=1, value=4))
    assert values_of(run) == [3, 4]
    assert [(message.content, message.tool_call_id) for message in run.threads["main"][2:]] == [
        ("3", "same"),
        ("4", "call00002"),
    ]
    assert (run.made, run.calls) == ({}, None)


def test_a_retry_after_a_timeout_makes_only_the_calls_that_have_no_value() -> None:
    events: list[Event] = [PAIR, Returned(step=2, index=1, value=4), TimedOut(step=2), Slept(step=3)]
    assert after(TOOLS, *events)[1] == [(3, 0, "r/2/0")]


def test_a_state_that_is_come_back_to_makes_only_the_calls_that_failed() -> None:
    events: list[Event] = [
        PAIR,
        Returned(step=2, index=0, value=3),
        Failed(step=2, index=1, failure=NO),
        Slept(step=3),
        Failed(step=3, index=1, failure=NO),  # the last attempt: caught
        Answered(step=4, value="yes"),
    ]
    assert after(TOOLS, *events)[1] == [(5, 1, "r/5/1")]
    assert values_of(after(TOOLS, *events, Returned(step=5, index=1, value=4))[0]) == [3, 4]


def test_values_of_calls_that_messages_answered_are_not_those_of_later_calls() -> None:
    told = "[{role: tool, content: no}, {role: tool, content: no}]"
    flow = TOOLS.replace("to: pause", "to: told").replace(
        "  pause:", f"  told: {{type: chat, messages: {told}, routes: [{{when: reply.tool_calls, to: act}}]}}\n  pause:"
    )
    failed: list[Event] = [PAIR, Returned(step=2, index=0, value=3), Failed(step=2, index=1, failure=NO), Slept(step=3)]
    failed.append(Failed(step=3, index=1, failure=NO))
    again = Replied(step=4, reply=PAIR.reply)
    assert after(flow, *failed, again)[1] == [(5, 0, "r/5/0"), (5, 1, "r/5/1")]


THREADS = (
    ADD
    + """\
threads: {main: [{role: user, content: Go.}], side: [{role: user, content: Go.}]}
states:
  ask: {type: chat, routes: [{when: reply.tool_calls, to: act}]}
  act: {type: tools, on_error: raise, catch: [{to: also}], next: done}
  also: {type: chat, thread: side, routes: [{when: reply.tool_calls, to: other}]}
  other: {type: tools, thread: side, on_error: raise, catch: [{to: back}], next: done}
  back: {type: wait, prompt: Which?, routes: [{when: outputs.back == 1, to: act}, {to: other}]}
  done: {type: end, output: "{{ results }}"}
"""
)


@pytest.mark.parametrize("which", [1, 2], ids=["the first", "the second"])
def test_values_are_kept_for_each_thread(which: int) -> None:
    halves: list[Event] = []
    for step in (1, 3):
        halves.append(Replied(step=step, reply=PAIR.reply))
        halves += [Returned(step=step + 1, index=0, value=step), Failed(step=step + 1, index=1, failure=NO)]
    events: list[Event] = [*halves, Answered(step=5, value=which)]
    assert after(THREADS, *events)[1] == [(6, 1, "r/6/1")]
    assert values_of(after(THREADS, *events, Returned(step=6, index=1, value=7))[0]) == [which * 2 - 1, 7]


HANDLED = (
    TOOLS.replace("routes: [{when: reply.tool_calls, to: act}, {to: done}]", "next: act")
    .replace("retry: {max_attempts: 2}, ", "")
    .replace("to: pause", "to: done")
    .replace("results", "error.name")
)
"""No template reads the calls, so only the tools state can have handled them."""


@pytest.mark.parametrize(
    ("flow", "events", "error"),
    [
        pytest.param(
            HANDLED, [Failed(step=2, index=0, failure=NO), Returned(step=2, index=1)], "tool.failed", id="failed"
        ),
        pytest.param(
            HANDLED.replace("on_error: raise", 'set: {x: "{{ inputs.n }}"}')
            .replace("[add]", "[]")
            .replace("type: chat,", "type: chat, tools: [],"),
            [],
            "template.failed",
            id="not offered, and the state's set fails",
        ),
    ],
)
def test_calls_whose_tools_state_failed_and_was_caught_are_handled(flow: str, events: list[Event], error: str) -> None:
    outcome = after(flow, PAIR, *events)[0].outcome
    assert outcome == Outcome(status="succeeded", output=error)


def test_values_of_earlier_calls_are_not_those_of_later_ones() -> None:
    flow = TOOLS.replace("next: done}\n  pause", "next: ask}\n  pause").replace("to: pause", "to: ask")
    flow = flow.replace("ask: {type: chat,", "ask: {type: chat, messages: [],")
    again = Replied(step=3, reply=PAIR.reply)
    _, made = after(flow, PAIR, Returned(step=2, index=0, value=3), Returned(step=2, index=1, value=4), again)
    assert made == [(4, 0, "r/4/0"), (4, 1, "r/4/1")]


def test_a_retried_call_is_the_only_one_that_can_be_in_doubt() -> None:
    events: list[Event] = [PAIR, Returned(step=2, index=0, value=3), Failed(step=2, index=1, failure=NO), Slept(step=3)]
    found = recover(graph_of(TOOLS), [BEGIN, *events])
    assert [(effect.index, type(effect)) for effect in found.effects if isinstance(effect, CallFunction)] == [
        (1, CallFunction)
    ]


SET = TOOLS.replace("catch: [{to: pause}]", 'set: {x: "{{ 1 / inputs.n }}"}, catch: [{to: pause}]').replace(
    "vars: {}", "inputs: {n: {default: 0}}\nvars: {x: 0}"
)


def test_calls_that_returned_are_not_made_again_because_their_states_set_fails() -> None:
    returned = Returned(step=2, index=0, value=3), Returned(step=2, index=1, value=4)
    run, made = after(SET, PAIR, *returned, Slept(step=3))
    assert (run.state, made) == ("pause", [])
    assert run.error is not None
    assert run.error.failure.name == "template.failed"


ASKED = """\
inputs: {n: {default: 0}}
messages: [{role: user, content: Hi.}]
states:
  ask:
    type: chat
    messages: [{role: user, content: "Important: {{ 1 / inputs.n }}"}]
    retry: {max_attempts: 3}
    next: done
  done: {type: end}
"""


ZERO = Started(run="r", inputs={"n": 0})


def test_a_chat_whose_own_messages_failed_is_not_asked_without_them() -> None:
    run, effects, _ = fold(graph_of(ASKED), [ZERO, Slept(step=2), Slept(step=3)])
    assert not [effect for effect in effects if isinstance(effect, AskModel)]
    assert run.outcome is not None
    assert (run.outcome.error or NO).name == "template.failed"


def test_a_chat_that_is_retried_has_its_messages_once() -> None:
    one = Started(run="r", inputs={"n": 1})
    run, effects, _ = fold(graph_of(ASKED), [one, Failed(step=1, failure=NO), Slept(step=2)])
    assert [message.content for message in run.threads["main"]] == ["Hi.", "Important: 1.0"]
    assert [type(effect) for effect in effects] == [AskModel]


@pytest.mark.parametrize("retry", ["", "retry: {max_attempts: 2}, "], ids=["caught", "tried again, and caught"])
def test_a_chat_that_may_not_ask_keeps_its_messages_once(retry: str) -> None:
    flow = f"""\
        states:
          one: {{type: chat, messages: [{{role: user, content: One.}}], next: two}}
          two: {{type: chat, messages: [{{role: user, content: Two.}}], {retry}catch: [{{to: done}}], next: done}}
          done: {{type: end, output: "{{{{ error.name }}}}"}}
        limits: {{max_rounds: 1}}
        """
    events: list[Event] = [Replied(step=1, reply=Reply(content="1")), Slept(step=3)]
    run, _ = after(flow, *events)
    assert run.outcome == Outcome(status="succeeded", output="limit.rounds")
    assert [message.content for message in run.threads["main"]] == ["One.", "1", "Two."]


CALL = """\
vars: {tries: 1}
states:
  pay: {type: call, entrypoint: "tools.shop:pay", retry: {max_attempts: 2}, set: {x: "{{ inputs.y }}"}, next: done}
  done: {type: end, output: "{{ outputs.pay }}"}
"""


def test_a_call_that_returned_is_not_made_again_because_its_set_fails() -> None:
    run, made = after(CALL, Returned(step=1, value="paid"), Slept(step=2))
    assert made == []
    assert run.outcome is not None
    assert (run.outcome.error or NO).name == "template.failed"


PAUSES = """\
states:
  pay: {type: call, entrypoint: "tools.shop:pay", retry: {max_attempts: MOST, POLICY}, next: done}
  done: {type: end}
limits: {max_steps: STEPS}
"""


def pauses(policy: str, *, attempts: int, steps: int = 9999) -> tuple[list[float], Run]:
    """Return the seconds before each further attempt of a call that always fails, and the run at its end."""
    text = PAUSES.replace("MOST", str(attempts)).replace("POLICY", policy).replace("STEPS", str(steps))
    graph, seconds = graph_of(text), []
    run, effects, _ = fold(graph, [BEGIN])
    while run.outcome is None:
        if isinstance(effects[0], Sleep):
            seconds.append(effects[0].seconds)
            run, effects, _ = advance(graph, run, Slept(step=run.step))
        else:
            run, effects, _ = advance(graph, run, Failed(step=run.step, failure=NO))
    return seconds, run


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        pytest.param("delay: 2s, backoff: 3, max_delay: 1h", [2, 6, 18], id="backoff"),
        pytest.param("delay: 2s, backoff: 3, max_delay: 7s", [2, 6, 7], id="no pause is longer than max_delay"),
        pytest.param("delay: 9s, backoff: 3, max_delay: 7s", [7, 7, 7], id="nor is the first"),
    ],
)
def test_pauses_between_attempts(policy: str, expected: list[float]) -> None:
    assert pauses(policy, attempts=4)[0] == expected


@pytest.mark.parametrize(("delay", "last"), [pytest.param("1ms", 5.0, id="delay"), pytest.param("0", 0.0, id="none")])
def test_a_power_of_backoff_that_no_float_holds_is_above_max_delay(delay: str, last: float) -> None:
    seconds, _ = pauses(f"delay: {delay}, backoff: 1e200, max_delay: 5s", attempts=4)
    assert seconds[1:] == [last, last]


def test_attempts_are_steps_and_end_with_them() -> None:
    seconds, run = pauses("delay: 1s", attempts=5, steps=3)
    assert (len(seconds), run.step) == (2, 3)
    assert run.outcome == Outcome(status="failed", error=Failure(name="tool.failed", message="no", state="pay"))


FLOWS = """\
flows:
  child:
    inputs: {item: {}}
    states: {only: {type: end, output: "{{ inputs.item }}"}}
"""
END = ', next: e}, e: {type: end, output: "{{ outputs.s }}"}}'
MAP = FLOWS + 'states: {s: {type: map, flow: "#child", for_each: "[7, 8, 9]", retry: {max_attempts: 2}' + END
NARROW = MAP.replace("retry:", "max_concurrency: 1, retry:")
PARALLEL = (
    FLOWS
    + 'states: {s: {type: parallel, retry: {max_attempts: 2}, branches: {a: {flow: "#child", with: {item: 1}}, '
    + 'b: {flow: "#child", with: {item: 2}}}'
    + END
)
ONE = FLOWS + 'states: {s: {type: flow, flow: "#child", with: {item: 1}, retry: {max_attempts: 2}' + END


def ended(step: int, index: int, value: Any = None, *, good: bool = True) -> ChildEnded:
    outcome = Outcome(status="succeeded", output=value) if good else Outcome(status="failed", error=NO)
    return ChildEnded(step=step, index=index, outcome=outcome)


@pytest.mark.parametrize(
    ("flow", "events", "again", "then", "output"),
    [
        pytest.param(
            MAP,
            [ended(1, 2, "c"), ended(1, 0, "a"), ended(1, 1, good=False)],
            [1],
            [ended(2, 1, "b")],
            ["a", "b", "c"],
            id="map",
        ),
        pytest.param(
            NARROW,
            [ended(1, 0, "a"), ended(1, 1, good=False)],
            [1],
            [ended(2, 1, "b"), ended(2, 2, "c")],
            ["a", "b", "c"],
            id="map, one at a time",
        ),
        pytest.param(
            PARALLEL,
            [ended(1, 1, "b"), ended(1, 0, good=False)],
            [0],
            [ended(2, 0, "a")],
            {"a": "a", "b": "b"},
            id="parallel",
        ),
        pytest.param(ONE, [ended(1, 0, good=False)], [0], [ended(2, 0, "a")], "a", id="flow"),
    ],
)
def test_a_retry_runs_only_the_children_that_did_not_succeed(
    flow: str, events: list[Event], again: list[int], then: list[Event], output: object
) -> None:
    assert after(flow, *events, Slept(step=2))[1] == [(2, index, "") for index in again]
    outcome = after(flow, *events, Slept(step=2), *then)[0].outcome
    assert outcome is not None
    assert outcome.output == output


@pytest.mark.parametrize(
    ("flow", "events"),
    [
        pytest.param(MAP, [ended(1, 0), ended(1, 1), ended(1, 2)], id="map"),
        pytest.param(PARALLEL, [ended(1, 0), ended(1, 1)], id="parallel"),
        pytest.param(ONE, [ended(1, 0)], id="flow"),
    ],
)
def test_children_are_not_run_again_because_a_set_fails(flow: str, events: list[Event]) -> None:
    failing = flow.replace(", next: e}", ', set: {x: "{{ inputs.y }}"}, next: e}')
    run, made = after(failing, *events, Slept(step=2))
    assert (made, run.status) == ([], "failed")
