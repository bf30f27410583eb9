"""A state that fails when it is left leaves nothing behind but tokens used, and the results of its effects."""

import msgspec
import pytest

from flowrun.core.events import Answered, ChildEnded, Event, Outcome, Replied, Returned, Started
from flowrun.core.machine import Run, fold
from flowrun.core.messages import Reply, ToolCall, Usage
from tests.flows import ADD, graph_of

FLOW = """\
inputs: {to: {type: string}}
vars: {first: 0}
messages: [{role: user, content: Go.}]
flows: {child: {states: {only: {type: end, output: 1}}}}
states:
  pick:
    type: route
    routes:
      - {when: inputs.to == 'ask', to: ask}
      - {when: inputs.to == 'call', to: call}
      - {when: inputs.to == 'flow', to: flow}
      - {when: inputs.to == 'wait', to: wait}
      - {to: check}
  ask: {type: chat, routes: [{when: reply.tool_calls, to: act}], catch: [{to: pause}]}
  act: {type: tools, set: {first: 1, second: "{{ nothing }}"}, catch: [{to: pause}], next: done}
  call:
    type: call
    entrypoint: tools.numbers:look
    routes: [{when: outputs.call == 2, to: check}]
    catch: [{to: pause}]
  flow: {type: flow, flow: "#child", set: {first: 1, second: "{{ nothing }}"}, catch: [{to: pause}], next: done}
  wait: {type: wait, prompt: Well?, routes: [{when: outputs.wait == 2, to: check}], catch: [{to: pause}]}
  check: {type: route, set: {first: 1, second: "{{ nothing }}"}, catch: [{to: pause}], next: done}
  pause: {type: wait, prompt: Well?, next: done}
  done: {type: end}
"""
GRAPH = graph_of(ADD, FLOW)
CALLS = (ToolCall(id="", name="add", arguments='{"a": 1, "b": 2}'),)
USAGE = Usage(prompt_tokens=1)
TEXT = Replied(step=2, reply=Reply(content="No.", usage=USAGE))
CALL = Replied(step=2, reply=Reply(tool_calls=CALLS, usage=USAGE))
CHILD = ChildEnded(step=2, outcome=Outcome(status="succeeded", output=1), rounds=1, steps=1, usage=USAGE)

PAUSED = {"state", "step", "path", "status", "error"}
"""What changes because the failure is caught, and the run waits."""


def run_after(to: str, *events: Event) -> Run:
    return fold(GRAPH, [Started(run="r", inputs={"to": to}), *events]).run


@pytest.mark.parametrize(
    ("to", "before", "last", "failed", "stays"),
    [
        pytest.param("ask", (), TEXT, "ask", {"usage"}, id="chat"),
        pytest.param(
            "ask", (CALL,), Returned(step=3, value=3), "act", {"made", "awaiting", "left", "calls"}, id="tools"
        ),
        pytest.param("call", (), Returned(step=2, value=1), "call", set(), id="call"),
        pytest.param(
            "flow",
            (),
            CHILD,
            "flow",
            {"usage", "rounds", "child_steps", "awaiting", "left", "children", "started"},
            id="flow",
        ),
        pytest.param("wait", (), Answered(step=2, value=1), "wait", set(), id="wait"),
    ],
)
def test_what_a_state_did_before_its_routes_failed_is_undone(
    to: str, before: tuple[Event, ...], last: Event, failed: str, stays: set[str]
) -> None:
    run, failing = run_after(to, *before), run_after(to, *before, last)
    assert failing.error is not None
    assert (failing.error.failure.state, failing.path[-1], failing.status) == (failed, "pause", "waiting")
    fields = msgspec.structs.fields(Run)
    changed = {field.name for field in fields if getattr(run, field.name) != getattr(failing, field.name)}
    assert changed == (PAUSED | stays) - ({"status"} if run.status == "waiting" else set())


@pytest.mark.parametrize(
    ("to", "events"),
    [
        pytest.param("check", (), id="after a route state"),
        pytest.param("call", (Returned(step=2, value=2),), id="after a call state"),
    ],
)
def test_a_state_that_fails_when_entered_undoes_nothing_of_the_state_before(to: str, events: tuple[Event, ...]) -> None:
    run = run_after(to, *events)
    assert run.error is not None
    assert (run.error.failure.state, run.state, run.vars) == ("check", "pause", {"first": 0})
    assert dict(run.outputs) == {"pick": None} | ({"call": 2} if events else {})
    assert list(run.path) == (["pick", "call", "check", "pause"] if events else ["pick", "check", "pause"])
