"""Calls that a person is asked about: when, with what, in which order, and what comes of the answers."""

from typing import Any

import pytest

from flowrun.core.events import (
    Answered,
    AskModel,
    CallFunction,
    Event,
    Failed,
    Outcome,
    Replied,
    RequestInput,
    Returned,
    Sleep,
    Slept,
    Started,
    TimedOut,
)
from flowrun.core.graph import Graph
from flowrun.core.machine import fold
from flowrun.core.messages import Reply, ToolCall
from flowrun.core.recovery import recover
from flowrun.core.run import Run
from flowrun.errors import Failure
from tests.flows import graph_of

TOOLS = """\
inputs: {customer: {type: string}}
tools:
  refund:
    entrypoint: shop:refund
    parameters:
      type: object
      properties: {amount: {type: number, exclusiveMinimum: 0}, customer: {type: string}}
      required: [amount, customer]
      additionalProperties: false
    with: {customer: "{{ inputs.customer }}"}
    approve:
      when: call.arguments.amount > 100
      prompt: "Refund {{ call.arguments.amount }} to {{ call.arguments.customer }}?"
      timeout: 7d
  look: {entrypoint: "shop:look", parameters: {type: object}}
"""
FLOW = """\
messages: [{role: user, content: hi}]
states:
  ask: {type: chat, routes: [{when: reply.tool_calls, to: act}, {to: done}]}
  act: {type: tools, next: ask}
  done: {type: end, output: "{{ results }}"}
"""
RAISING = FLOW.replace("type: tools,", "type: tools, on_error: raise, retry: {max_attempts: 2},")
IN_ORDER = FLOW.replace("type: tools,", "type: tools, max_concurrency: 1,")
GRAPH = graph_of(TOOLS, FLOW)
BEGIN = Started(run="r", inputs={"customer": "c7"})
NO = Failure(name="tool.failed", message="no")
OVER = Failure(name="wait.timeout", message="nobody answered within 7 d")


def called(*calls: float | str) -> Replied:
    """Reply with calls: a number is a refund of this amount, a text the look with these arguments."""
    written = [("look", call) if isinstance(call, str) else ("refund", f'{{"amount": {call}}}') for call in calls]
    made = tuple(ToolCall(id=f"c{index}", name=name, arguments=text) for index, (name, text) in enumerate(written))
    return Replied(step=1, reply=Reply(tool_calls=made))


def yes(index: int = 0, step: int = 2, **arguments: Any) -> Answered:
    return Answered(step=step, index=index, value={"ok": True, **({"arguments": arguments} if arguments else {})})


def no(index: int = 0, **more: Any) -> Answered:
    return Answered(step=2, index=index, value={"ok": False, **more})


def returned(index: int = 0, step: int = 2) -> Returned:
    return Returned(step=step, index=index, value="done")


def effects_of(graph: Graph, *events: Event) -> list[tuple[str, int]]:
    """Return the questions and calls that the last event requests, each with its index."""
    kinds = {RequestInput: "question", CallFunction: "call"}
    found = fold(graph, [BEGIN, *events]).effects
    return [(kinds[type(one)], one.index) for one in found if isinstance(one, RequestInput | CallFunction)]


def messages_of(run: Run) -> list[str | None]:
    return [message.content for message in run.threads["main"] if message.role == "tool"]


def results_of(run: Run) -> list[Any]:
    assert run.results is not None
    return run.results.data()


# --- questions ----------------------------------------------------------------------------------------------------


def test_a_question_shows_the_whole_call_and_its_answer_may_edit_what_the_model_gave() -> None:
    run, effects, _ = fold(GRAPH, [BEGIN, called(500)])
    assert run.status == "waiting"
    assert effects == (
        RequestInput(
            step=2,
            index=0,
            state="act",
            run="r",
            prompt="Refund 500 to c7?",
            timeout=7 * 86400.0,
            call={"id": "c0", "name": "refund", "arguments": {"amount": 500}, "hidden": {"customer": "c7"}},
            schema={
                "type": "object",
                "properties": {"ok": {"type": "boolean", "description": "whether the call is made"}},
                "required": ["ok"],
                "propertyNames": {"enum": ["ok", "arguments", "reason"]},
                "if": {"properties": {"ok": {"const": True}}, "required": ["ok"]},
                "then": {
                    "properties": {
                        "arguments": {
                            "type": "object",
                            "properties": {"amount": {"type": "number", "exclusiveMinimum": 0}},
                            "required": ["amount"],
                            "additionalProperties": False,
                            "default": {"amount": 500},
                        }
                    }
                },
                "else": {"properties": {"reason": {"type": "string", "description": "what the model is told"}}},
            },
        ),
    )


def test_a_call_for_which_the_condition_does_not_hold_needs_nobody() -> None:
    assert effects_of(GRAPH, called(50)) == [("call", 0)]


def test_all_questions_are_asked_at_once_and_the_other_calls_run_meanwhile() -> None:
    assert effects_of(GRAPH, called(500, "{}", 50, 600)) == [("question", 0), ("question", 3), ("call", 1), ("call", 2)]


def test_nobody_is_asked_about_an_invalid_call() -> None:
    run, effects, _ = fold(GRAPH, [BEGIN, called(-500)])
    assert [type(effect) for effect in effects] == [AskModel]
    assert results_of(run)[0]["error"]["name"] == "tool.invalid_arguments"


def test_the_run_waits_while_a_question_is_open_and_no_call_is_under_way() -> None:
    events: list[Event] = [BEGIN, called(500, "{}", 600), returned(1), no(0), yes(2), returned(2)]
    statuses = [fold(GRAPH, events[:count]).run.status for count in range(2, len(events) + 1)]
    assert statuses == ["running", "waiting", "waiting", "running", "running"]


def test_without_more_words_every_call_is_asked_about() -> None:
    graph = graph_of(TOOLS.replace("parameters: {type: object}}", "parameters: {type: object}, approve: true}"), FLOW)
    (question,) = fold(graph, [BEGIN, called("{}")]).effects
    assert isinstance(question, RequestInput)
    assert (question.prompt, question.timeout) == ("Make this call of look?", None)


def test_a_condition_that_cannot_be_evaluated_fails_the_state() -> None:
    run = fold(graph_of(TOOLS.replace("> 100", "+ 100"), FLOW), [BEGIN, called(500)]).run
    assert run.outcome is not None
    assert run.outcome.error is not None
    assert (run.outcome.error.name, run.outcome.error.state) == ("template.failed", "act")


# --- answers ------------------------------------------------------------------------------------------------------


def test_an_approved_call_is_made() -> None:
    (call,) = fold(GRAPH, [BEGIN, called(500), yes()]).effects
    assert isinstance(call, CallFunction)
    assert (call.arguments, call.index, call.call_id) == ({"amount": 500, "customer": "c7"}, 0, "c0")
    run = fold(GRAPH, [BEGIN, called(500), yes(), returned()]).run
    assert messages_of(run) == ["done"]


def test_an_edited_call_is_made_as_edited_and_the_model_learns_how() -> None:
    events: list[Event] = [BEGIN, called(500), yes(amount=50), returned()]
    (call,) = fold(GRAPH, events[:-1]).effects
    assert isinstance(call, CallFunction)
    assert call.arguments == {"amount": 50, "customer": "c7"}
    run = fold(GRAPH, events).run
    assert messages_of(run) == ['arguments used: {"amount": 50}\ndone']
    assert [call.arguments for call in run.threads["main"][1].tool_calls] == [
        '{"amount": 500}'
    ]  # the model's own words
    assert results_of(run)[0] | {"id": ""} == {
        "id": "",
        "name": "refund",
        "arguments": {"amount": 50},
        "value": "done",
        "error": None,
    }


def test_an_edit_that_changes_nothing_is_none() -> None:
    assert messages_of(fold(GRAPH, [BEGIN, called(500), yes(amount=500), returned()]).run) == ["done"]


def test_the_model_learns_the_arguments_of_an_edited_call_that_failed() -> None:
    run = fold(GRAPH, [BEGIN, called(500), yes(amount=50), Failed(step=2, failure=NO)]).run
    assert messages_of(run) == ['arguments used: {"amount": 50}\nerror: tool.failed: no']


@pytest.mark.parametrize(
    ("more", "message"),
    [
        pytest.param({"reason": "not twice"}, "not twice", id="with a reason"),
        pytest.param({}, "a person did not approve the call", id="without"),
        pytest.param({"reason": ""}, "a person did not approve the call", id="an empty one"),
    ],
)
def test_a_refused_call_fails(more: dict[str, Any], message: str) -> None:
    run = fold(GRAPH, [BEGIN, called(500), no(**more)]).run
    assert messages_of(run) == [f"error: tool.refused: {message}"]


def test_a_question_that_nobody_answers_in_time_fails_its_call() -> None:
    run = fold(GRAPH, [BEGIN, called(500), Failed(step=2, failure=OVER)]).run
    assert messages_of(run) == ["error: wait.timeout: nobody answered within 7 d"]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(True, id="no mapping"),
        pytest.param({}, id="nothing is said"),
        pytest.param({"ok": "yes"}, id="another type"),
        pytest.param({"ok": True, "arguments": {}}, id="an argument is missing"),
        pytest.param({"ok": True, "arguments": {"amount": -1}}, id="an argument that the tool does not take"),
        pytest.param({"ok": True, "arguments": {"amount": 1, "customer": "c8"}}, id="a hidden argument"),
        pytest.param({"ok": True, "argument": {"amount": 1}}, id="a misspelt key"),
        pytest.param({"ok": False, "reason": 5}, id="a reason that is no text"),
        pytest.param({"ok": False, "reason": "\ud800"}, id="no Unicode"),
    ],
)
def test_an_answer_that_does_not_match_changes_nothing(value: Any) -> None:
    before = fold(GRAPH, [BEGIN, called(500)]).run
    assert fold(GRAPH, [BEGIN, called(500), Answered(step=2, value=value)]).run == before


def test_hidden_arguments_cannot_be_answered_where_the_tool_takes_any() -> None:
    graph = graph_of(TOOLS.replace("      additionalProperties: false\n", ""), FLOW)
    before = fold(graph, [BEGIN, called(500)]).run
    assert fold(graph, [BEGIN, called(500), yes(amount=1, customer="c8")]).run == before
    (call,) = fold(graph, [BEGIN, called(500), yes(amount=1, note="x")]).effects
    assert isinstance(call, CallFunction)
    assert call.arguments == {"amount": 1, "note": "x", "customer": "c7"}


def test_late_and_doubled_answers_change_nothing() -> None:
    run = fold(GRAPH, [BEGIN, called(500, 600), yes()]).run
    assert fold(GRAPH, [BEGIN, called(500, 600), yes(), no()]).run == run
    assert fold(GRAPH, [BEGIN, called(500, 600), yes(), yes(2)]).run == run


# --- order --------------------------------------------------------------------------------------------------------


def test_a_waiting_call_holds_those_behind_it() -> None:
    graph = graph_of(TOOLS, IN_ORDER)
    assert effects_of(graph, called(500, "{}", 600, "{}")) == [("question", 0), ("question", 2)]
    assert effects_of(graph, called(500, "{}", 600, "{}"), yes(2)) == []
    assert effects_of(graph, called(500, "{}", 600, "{}"), yes(2), yes(0)) == [("call", 0)]
    assert effects_of(graph, called(500, "{}", 600, "{}"), yes(2), no(0)) == [("call", 1)]
    events: list[Event] = [called(500, "{}", 600, "{}"), yes(2), no(0), returned(1)]
    assert effects_of(graph, *events) == [("call", 2)]
    assert effects_of(graph, *events, returned(2)) == [("call", 3)]


def test_a_question_out_of_its_turn_may_be_refused() -> None:
    graph = graph_of(TOOLS, IN_ORDER)
    events: list[Event] = [called("{}", 500, "{}"), no(1), returned(0)]
    assert effects_of(graph, *events) == [("call", 2)]
    assert messages_of(fold(graph, [BEGIN, *events, returned(2)]).run) == [
        "done",
        "error: tool.refused: a person did not approve the call",
        "done",
    ]


# --- failures and other attempts ----------------------------------------------------------------------------------


def test_an_approved_call_is_not_asked_about_again() -> None:
    graph = graph_of(TOOLS, RAISING)
    events: list[Event] = [
        called(500, 600),
        yes(amount=50),
        yes(1),
        returned(1),
        Failed(step=2, failure=NO),
        Slept(step=3),
    ]
    (call,) = fold(graph, [BEGIN, *events]).effects
    assert isinstance(call, CallFunction)
    assert (call.index, call.arguments, call.key) == (0, {"amount": 50, "customer": "c7"}, "r/2/0")
    run = fold(graph, [BEGIN, *events, returned(0, step=3)]).run
    assert messages_of(run) == ['arguments used: {"amount": 50}\ndone', "done"]


def test_a_state_that_is_to_fail_waits_for_calls_under_way_and_for_nobody() -> None:
    graph = graph_of(TOOLS, RAISING)
    run, effects, _ = fold(graph, [BEGIN, called(500, "{}"), Failed(step=2, index=1, failure=NO)])
    assert [type(effect) for effect in effects] == [Sleep]
    assert run.status == "running"
    events: list[Event] = [called(500, "{}", 600, "{}"), Failed(step=2, index=1, failure=NO)]
    assert effects_of(graph, *events, yes()) == []
    assert fold(graph, [BEGIN, *events, yes()]).run.status == "running"
    assert effects_of(graph, *events, yes(), returned(3), Slept(step=3)) == [("question", 2), ("call", 0), ("call", 1)]


def test_a_refusal_is_asked_again_by_another_attempt() -> None:
    assert effects_of(graph_of(TOOLS, RAISING), called(500), no(), Slept(step=3)) == [("question", 0)]


def test_the_timeout_of_the_state_counts_the_waiting() -> None:
    graph = graph_of(TOOLS, FLOW.replace("type: tools,", "type: tools, timeout: 1h,"))
    failures = {}
    for what, calls in {"waiting": called(500), "under way": called(500, "{}")}.items():
        run = fold(graph, [BEGIN, calls, TimedOut(step=2)]).run
        assert run.outcome is not None
        failures[what] = run.outcome.error and run.outcome.error.name
    assert failures == {"waiting": "wait.timeout", "under way": "state.timeout"}


def test_a_caught_failure_leaves_a_run_that_does_not_wait() -> None:
    graph = graph_of(TOOLS, FLOW.replace("next: ask}", "timeout: 1h, catch: [{to: done}], next: ask}"))
    run, effects, _ = fold(graph, [BEGIN, called(500), TimedOut(step=2)])
    assert [type(effect) for effect in effects] == [Outcome]
    run = fold(graph_of(TOOLS, FLOW), [BEGIN, called(500), no()]).run
    assert run.status == "running"


# --- recovery -----------------------------------------------------------------------------------------------------


def test_open_questions_and_calls_are_recovered() -> None:
    events: list[Event] = [BEGIN, called(500, "{}", 600, 700), yes(2), no(3)]
    found = recover(GRAPH, events, [1.0, 2.0, 3.0, 4.0])
    assert [(type(effect), getattr(effect, "index", 0)) for effect in found.effects] == [
        (RequestInput, 0),
        (CallFunction, 1),
        (CallFunction, 2),
    ]
    assert found.requested == {0: 2.0, 1: 2.0, 2: 3.0}


# --- the schema of the answer -------------------------------------------------------------------------------------


def test_references_and_defaults_of_the_tool_mean_the_same_in_the_answer() -> None:
    tool = """\
tools:
  move:
    entrypoint: shop:move
    parameters:
      type: object
      properties:
        place: {$ref: "#/$defs/place"}
        then: {$ref: "#/properties/place"}
        default: {type: string, default: x}
      required: [place]
      $defs: {place: {type: object, properties: {x: {type: integer, default: 7}}, required: [x]}}
    approve: true
"""
    graph = graph_of(tool, FLOW)
    call = ToolCall(id="c", name="move", arguments='{"place": {"x": 1}}')
    begin = Started(run="r", inputs={})
    (question,) = fold(graph, [begin, Replied(step=1, reply=Reply(tool_calls=(call,)))]).effects
    assert isinstance(question, RequestInput)
    assert question.schema["then"]["properties"]["arguments"] == {
        "type": "object",
        "properties": {
            "place": {"$ref": "#/$defs/place"},
            "then": {"$ref": "#/then/properties/arguments/properties/place"},
            "default": {"type": "string"},
        },
        "required": ["place"],
        "default": {"place": {"x": 1}},
    }
    assert question.schema["$defs"] == {
        "place": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
    }
    answer = {"ok": True, "arguments": {"place": {"x": 2}, "then": {"x": 3}}}
    events: list[Event] = [begin, Replied(step=1, reply=Reply(tool_calls=(call,))), Answered(step=2, value=answer)]
    (made,) = fold(graph, events).effects
    assert isinstance(made, CallFunction)
    assert made.arguments == answer["arguments"]
