"""A tool without a function: its checked arguments are the value of a call, and no effect is requested."""

from flowrun.core.events import AskModel, CallFunction, Event, Failed, Replied, Slept, Started
from flowrun.core.machine import fold
from flowrun.core.messages import Reply, ToolCall, as_openai
from flowrun.errors import Failure
from tests.flows import graph_of

TOOLS = """\
tools:
  note:
    parameters: {type: object, properties: {text: {type: string}}, required: [text], additionalProperties: false}
    result: "Noted in {{ inputs.book }}: {{ call.arguments.text }} ({{ call.name }}, {{ call.id }})"
  add:
    entrypoint: tools.numbers:add
    parameters: {type: object}
"""
FLOW = """\
inputs: {book: {type: string}}
messages: [{role: user, content: hi}]
states:
  ask: {type: chat, routes: [{when: reply.tool_calls, to: act}, {to: done}]}
  act: {type: tools, next: ask}
  done: {type: end, output: "{{ results }}"}
"""
RAISING = FLOW.replace("next: ask}\n  done", "on_error: raise, retry: {max_attempts: 2}, next: ask}\n  done")
BEGIN = Started(run="r", inputs={"book": "B"})


def called(*calls: tuple[str, str]) -> Replied:
    written = tuple(ToolCall(id=f"c{index}", name=name, arguments=text) for index, (name, text) in enumerate(calls))
    return Replied(step=1, reply=Reply(tool_calls=written))


def test_its_value_is_its_arguments_and_the_model_gets_the_rendered_result() -> None:
    run, effects, _ = fold(graph_of(TOOLS, FLOW), [BEGIN, called(("note", '{"text": "x"}'))])
    assert [type(effect) for effect in effects] == [AskModel]
    assert as_openai(run.threads["main"][-1]) == {
        "role": "tool",
        "content": "Noted in B: x (note, c0)",
        "tool_call_id": "c0",
        "name": "note",
    }
    assert run.results is not None
    assert run.results.data() == [
        {"id": "c0", "name": "note", "arguments": {"text": "x"}, "value": {"text": "x"}, "error": None}
    ]


def test_arguments_that_do_not_match_are_a_failure_of_the_call() -> None:
    run = fold(graph_of(TOOLS, FLOW), [BEGIN, called(("note", '{"txt": 1}'))]).run
    assert run.results is not None
    assert [result["error"] and result["error"]["name"] for result in run.results.data()] == ["tool.invalid_arguments"]


def test_it_needs_no_effect_beside_calls_that_do() -> None:
    _, effects, _ = fold(graph_of(TOOLS, FLOW), [BEGIN, called(("note", '{"text": "x"}'), ("add", "{}"))])
    assert [(effect.tool, effect.index) for effect in effects if isinstance(effect, CallFunction)] == [("add", 1)]


def test_a_result_is_not_rendered_again_by_a_retry() -> None:
    failed = Failed(step=2, index=1, failure=Failure(name="tool.failed", message="no"))
    events: list[Event] = [BEGIN, called(("note", '{"text": "x"}'), ("add", "{}")), failed, Slept(step=3)]
    run, effects, _ = fold(graph_of(TOOLS, RAISING), events)
    assert [(effect.tool, effect.index) for effect in effects if isinstance(effect, CallFunction)] == [("add", 1)]
    assert run.calls is not None
    assert run.calls[0] == run.made["main"].values[0]


def test_a_result_that_cannot_be_rendered_fails_the_state() -> None:
    graph = graph_of(TOOLS.replace("call.arguments.text", "call.arguments.text + 1"), FLOW)
    run = fold(graph, [BEGIN, called(("note", '{"text": "x"}'))]).run
    assert run.outcome is not None
    assert run.outcome.error is not None
    assert (run.outcome.error.name, run.outcome.error.state) == ("template.failed", "act")
