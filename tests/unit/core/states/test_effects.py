"""What each kind of state asks for, in full, and what it leaves behind for templates."""

from flowrun.core.events import AskModel, CallFunction, Event, Failed, Outcome, Replied, Returned, Slept, Started
from flowrun.core.machine import fold
from flowrun.core.messages import Reply, ToolCall
from flowrun.errors import Failure
from tests.flows import ADD, graph_of

BEGIN = Started(run="r", inputs={})
NO = Failure(name="tool.failed", message="no")

CALL = """\
states:
  go:
    type: call
    entrypoint: "tools.a:f"
    with: {x: "{{ 1 + 1 }}"}
    idempotent: true
    retry: {max_attempts: 2}
    next: e
  e: {type: end, output: "{{ outputs.go }}"}
"""


def test_a_call_state_asks_for_its_function() -> None:
    effect = CallFunction(step=1, state="go", run="r", entrypoint="tools.a:f", arguments={"x": 2}, idempotent=True)
    assert fold(graph_of(CALL), [BEGIN]).effects == (effect,)
    again = CallFunction(
        step=2, state="go", run="r", entrypoint="tools.a:f", arguments={"x": 2}, idempotent=True, attempt=2
    )
    _, effects, _ = fold(graph_of(CALL), [BEGIN, Failed(step=1, failure=NO), Slept(step=2)])
    assert effects == (again,)
    assert again.key == effect.key


def test_a_call_state_takes_one_answer() -> None:
    flow = CALL.replace("next: e\n", "next: pause\n").replace("  e:", "  pause: {type: wait, prompt: a, next: e}\n  e:")
    graph = graph_of(flow)
    run = fold(graph, [BEGIN, Returned(step=1, value=1)]).run
    assert fold(graph, [BEGIN, Returned(step=1, value=1), Returned(step=1, value=2)]).run.outputs == run.outputs
    assert fold(graph, [BEGIN, Returned(step=1, index=1, value=1)]).run.state == "go"


CHAT = (
    ADD
    + """\
sampling: {temperature: 0, seed: 1}
messages: [{role: user, content: Go.}]
states:
  ask:
    type: chat
    tool_choice: required
    sampling: {seed: 2}
    response_format: {schema: {type: object}}
    routes: [{when: reply.tool_calls, to: act}, {to: done}]
  act: {type: tools, next: done}
  done:
    type: end
    output: {parsed: "{{ reply.parsed }}", why: "{{ reply.reasoning }}", calls: "{{ reply.tool_calls }}"}
"""
)


def test_a_chat_state_asks_its_model() -> None:
    graph = graph_of(CHAT)
    (effect,) = fold(graph, [BEGIN]).effects
    assert isinstance(effect, AskModel)
    assert (effect.tool_choice, effect.sampling) == ("required", {"temperature": 0, "seed": 2})
    assert effect.response_format is not None
    assert effect.response_format.schema == {"type": "object"}
    assert [tool.name for tool in effect.tools] == ["add"]


def test_what_a_reply_leaves() -> None:
    call = ToolCall(id="c9", name="add", arguments='{"a": 1, "b": 2}')
    reply = Reply(content='{"n": 1}', reasoning="Because.", tool_calls=(call,), finish_reason="tool_calls")
    events: list[Event] = [BEGIN, Replied(step=1, reply=reply), Returned(step=2, value=3)]
    run = fold(graph_of(CHAT), events).run
    seen = {"id": "c9", "name": "add", "arguments": {"a": 1, "b": 2}}
    assert run.outcome == Outcome(
        status="succeeded", output={"parsed": None, "why": "Because.", "calls": [seen]}
    )  # a reply with calls is not parsed
    assert run.threads["main"][1].reasoning == "Because."


def test_calls_without_an_id_are_numbered_through_the_run() -> None:
    calls = tuple(ToolCall(id="", name="add", arguments='{"a": 1, "b": 2}') for _ in range(2))
    reply = Reply(tool_calls=calls, finish_reason="tool_calls")
    run = fold(graph_of(CHAT), [BEGIN, Replied(step=1, reply=reply)]).run
    assert [call.id for call in run.threads["main"][1].tool_calls] == ["call00001", "call00002"]


def test_a_route_state_leaves_null() -> None:
    flow = 'states: {go: {type: route, next: e}, e: {type: end, output: "{{ outputs.go is none }}"}}\n'
    assert fold(graph_of(flow), [BEGIN]).run.outcome == Outcome(status="succeeded", output=True)
