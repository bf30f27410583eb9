"""What each kind of state asks for, in full, and what it leaves behind for templates."""

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
    Slept,
    Started,
)
from flowrun.core.machine import advance, fold
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
sampling: {temperature: 0, seed: 1, top_k: 1}
models: {other: {backend: scripted, name: replies.yaml, sampling: {seed: 3, top_k: 2}}}
messages: [{role: user, content: Go.}]
states:
  ask:
    type: chat
    model: other
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
    assert (effect.tool_choice, effect.sampling) == ("required", {"temperature": 0, "seed": 2, "top_k": 2})
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
    graph = graph_of(CHAT.replace("to: act}, {to: done}", "to: act}").replace("tools, next: done", "tools, next: ask"))
    run = fold(graph, [BEGIN]).run
    for ids in (["", ""], ["own", ""], ["mine"], [""]):
        calls = tuple(ToolCall(id=one, name="add", arguments='{"a": 1, "b": 2}') for one in ids)
        run = advance(graph, run, Replied(step=run.step, reply=Reply(tool_calls=calls))).run
        for index in range(len(ids)):
            run = advance(graph, run, Returned(step=run.step, index=index, value=3)).run
    asked = [message for message in run.threads["main"] if message.tool_calls]
    assert [[call.id for call in message.tool_calls] for message in asked] == [
        ["call00001", "call00002"],
        ["own", "call00004"],
        ["mine"],
        ["call00006"],
    ]


def test_what_results_leave() -> None:
    arguments = '{"a": 1, "b": 2}', '{"a": 1}', "{"
    calls = tuple(ToolCall(id=f"c{number}", name="add", arguments=text) for number, text in enumerate(arguments))
    flow = CHAT.replace("calls: ", 'results: "{{ results }}", outputs: "{{ outputs.act }}", calls: ')
    run = fold(graph_of(flow), [BEGIN, Replied(step=1, reply=Reply(tool_calls=calls)), Returned(step=2, value=[3])]).run
    short = {"name": "tool.invalid_arguments", "message": '"b" is a required property', "type": None}
    broken = {
        "name": "tool.invalid_arguments",
        "message": "the arguments are no JSON: "
        "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        "type": None,
    }
    results = [
        {"id": "c0", "name": "add", "arguments": {"a": 1, "b": 2}, "value": [3], "error": None},
        {"id": "c1", "name": "add", "arguments": {"a": 1}, "value": None, "error": short},
        {"id": "c2", "name": "add", "arguments": "{", "value": None, "error": broken},
    ]
    assert run.outcome is not None
    assert (run.outcome.output["results"], run.outcome.output["outputs"]) == (results, results)


def test_a_route_state_leaves_null() -> None:
    flow = 'states: {go: {type: route, next: e}, e: {type: end, output: "{{ outputs.go is none }}"}}\n'
    assert fold(graph_of(flow), [BEGIN]).run.outcome == Outcome(status="succeeded", output=True)


LOOSE = """\
tools: {note: {entrypoint: "tools.a:note", parameters: {type: object}}}
states:
  ask: {type: chat, routes: [{when: reply.tool_calls, to: act}]}
  act: {type: tools, next: pause}
  pause: {type: wait, prompt: Well?, next: go}
  go: {type: call, entrypoint: "tools.a:f", next: e}
  e: {type: end}
"""


def noted(*arguments: str) -> Replied:
    calls = tuple(ToolCall(id=f"c{number}", name="note", arguments=text) for number, text in enumerate(arguments))
    return Replied(step=1, reply=Reply(tool_calls=calls))


@pytest.mark.parametrize("text", ["", " \n", "{}"], ids=["none", "blanks", "an empty object"])
def test_a_call_may_have_no_arguments(text: str) -> None:
    (effect,) = fold(graph_of(LOOSE), [BEGIN, noted(text)]).effects
    assert isinstance(effect, CallFunction)
    assert effect.arguments == {}


def test_results_are_told_as_they_are_or_as_json() -> None:
    values = ["café \n", "", 3, 0.1, True, None, ["é", {"a": None}], {"ü": [1.5]}]
    events: list[Event] = [BEGIN, noted(*("{}" for _ in values))]
    events += (Returned(step=2, index=index, value=value) for index, value in enumerate(values))
    told = [message.content for message in fold(graph_of(LOOSE), events).run.threads["main"][1:]]
    assert told == ["café \n", "", "3", "0.1", "true", "null", '["é", {"a": null}]', '{"ü": [1.5]}']


ANSWER = Answered(step=3, value="yes")


def test_a_run_waits_only_in_its_wait_state() -> None:
    events: list[Event] = [BEGIN, noted("{}"), Returned(step=2), ANSWER, Returned(step=4)]
    made = [fold(graph_of(LOOSE), events[:count]).run.status for count in range(1, 6)]
    assert made == ["running", "running", "waiting", "running", "succeeded"]


@pytest.mark.parametrize("count", range(1, 5), ids=["chat", "tools", "wait", "call"])
def test_a_state_takes_no_event_of_another_kind_nor_of_another_effect(count: int) -> None:
    graph = graph_of(LOOSE)
    events: list[Event] = [BEGIN, noted("{}"), Returned(step=2), ANSWER]
    run = fold(graph, events[:count]).run
    step = run.step
    assert step == count
    taken = {
        type(event).__name__
        for event in (
            Replied(step=step, reply=Reply(content="x")),
            Returned(step=step, value=1),
            Failed(step=step, failure=NO),
            ChildEnded(step=step, outcome=Outcome(status="succeeded")),
            Answered(step=step, value=1),
            Slept(step=step),
        )
        if advance(graph, run, event).run is not run
    }
    assert taken == [{"Replied", "Failed"}, {"Returned", "Failed"}, {"Answered"}, {"Returned", "Failed"}][count - 1]
    for event in (Returned(step=step, index=1), Failed(step=step, index=1, failure=NO)):
        assert advance(graph, run, event).run is run
