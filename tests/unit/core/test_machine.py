"""The machine: rows of a flow, the events fed to it, and what must come of them."""

from collections.abc import Sequence
from typing import Any

import pytest
from msgspec import structs

from flowrun.core.events import (
    Answered,
    AskModel,
    CallFunction,
    Cancelled,
    Event,
    Failed,
    Outcome,
    Replied,
    Returned,
    Sleep,
    Slept,
    Started,
    TimedOut,
)
from flowrun.core.machine import Run, advance, fold
from flowrun.core.messages import Message, Reply, Tokens, ToolCall, Usage
from flowrun.errors import Failure
from tests.flows import ADD, AGENT, graph_of

START = Started(run="r1", inputs={"question": "2 + 3?"})


def calls(*arguments: str, name: str = "add") -> Reply:
    return Reply(
        tool_calls=tuple(ToolCall(id="", name=name, arguments=text) for text in arguments), finish_reason="tool_calls"
    )


def outcome_of(text: str | tuple[str, ...], events: Sequence[Event]) -> Outcome | None:
    parts = (text,) if isinstance(text, str) else text
    return fold(graph_of(*parts), events).run.outcome


def failed(name: str, message: str, state: str = "ask") -> Outcome:
    return Outcome(status="failed", error=Failure(name=name, message=message, state=state))


def test_a_conversation_with_one_call() -> None:
    graph = graph_of(ADD, AGENT)
    user = Message(role="user", content="2 + 3?")
    call = ToolCall(id="call00001", name="add", arguments='{"a": 2, "b": 3}')

    run, effects, _ = advance(graph, Run(), START)
    assert effects == (
        AskModel(
            step=1,
            state="ask",
            run="r1",
            flow=graph.spec.name,
            thread="main",
            model="default",
            messages=run.threads["main"],
            tools=(graph.tools["add"].declaration,),
        ),
    )
    assert list(run.threads["main"]) == [user]

    run, effects, _ = advance(graph, run, Replied(step=1, reply=calls('{"a": 2, "b": 3}')))
    assert effects == (
        CallFunction(
            step=2,
            state="act",
            run="r1",
            entrypoint="tools.numbers:add",
            arguments={"a": 2, "b": 3},
            timeout=5.0,
            tool="add",
            call_id="call00001",
        ),
    )

    run, effects, _ = advance(graph, run, Returned(step=2, value=5))
    assert [type(effect) for effect in effects] == [AskModel]
    tokens = Tokens(vocabulary=1, ids=b"\5\0\0\0", end=13, digest=7)
    usage = Usage(prompt_tokens=9, completion_tokens=4, rerendered=1)
    answer = Reply(content="It is 5.", usage=usage, tokens=tokens)
    run, effects, _ = advance(graph, run, Replied(step=3, reply=answer))
    assert effects == (Outcome(status="succeeded", output={"answer": "It is 5."}),)
    assert list(run.path) == ["ask", "act", "ask", "done"]
    assert run.usage == usage
    assert list(run.threads["main"]) == [
        user,
        Message(role="assistant", tool_calls=(call,)),
        Message(role="tool", content="5", tool_call_id="call00001", name="add"),
        Message(role="assistant", content="It is 5.", tokens=tokens),
    ]


def test_results_are_in_the_order_of_the_calls() -> None:
    graph = graph_of(ADD, AGENT)
    both = calls('{"a": 1, "b": 1}', '{"a": 2, "b": 2}')
    run, effects, _ = fold(graph, [START, Replied(step=1, reply=both)])
    assert [effect.index for effect in effects if isinstance(effect, CallFunction)] == [0, 1]
    run, effects, _ = advance(graph, run, Returned(step=2, index=1, value=4))
    assert effects == ()
    run, _, _ = advance(graph, run, Returned(step=2, index=0, value=2))
    assert [message.content for message in run.threads["main"][2:]] == ["2", "4"]
    assert run.results is not None
    assert [(result["value"], result["error"]) for result in run.results.data()] == [(2, None), (4, None)]


@pytest.mark.parametrize(
    ("call", "told"),
    [
        pytest.param(
            calls('{"a": 1}'), 'error: tool.invalid_arguments: "b" is a required property', id="missing argument"
        ),
        pytest.param(
            calls('{"a": 1, "b": "2"}'),
            'error: tool.invalid_arguments: b: "2" is not of type "integer"',
            id="wrong type",
        ),
        pytest.param(
            calls("[1, 2]"), "error: tool.invalid_arguments: the arguments must be a JSON object", id="no object"
        ),
        pytest.param(
            calls('{"a": 1, "b": 2, "a": 3}'),
            "error: tool.invalid_arguments: the arguments are no JSON: the key 'a' is there twice",
            id="a key twice",
        ),
        pytest.param(
            calls('{"a": 1, "b": {"c": 1, "c": 2}}'),
            "error: tool.invalid_arguments: the arguments are no JSON: the key 'c' is there twice",
            id="a key twice, further in",
        ),
        pytest.param(
            calls('{"a": NaN, "b": 2}'),
            "error: tool.invalid_arguments: the arguments are no JSON: NaN is no JSON number",
            id="NaN",
        ),
        pytest.param(
            calls('{"a": 1, "b": ' + "[" * 100_000),
            "error: tool.invalid_arguments: the arguments are no JSON: it is nested too deeply",
            id="deep nesting",
        ),
        pytest.param(
            calls("{}", name="subtract"),
            "error: tool.unknown: there is no tool 'subtract'; there are: add",
            id="unknown tool",
        ),
    ],
)
def test_a_bad_call_goes_back_to_the_model(call: Reply, told: str) -> None:
    run, effects, _ = fold(graph_of(ADD, AGENT), [START, Replied(step=1, reply=call)])
    assert run.threads["main"][-1].content == told
    assert [type(effect) for effect in effects] == [AskModel]


def test_a_tools_failure_goes_back_to_the_model() -> None:
    failure = Failure(name="tool.failed", message="ValueError: no")
    events: list[Event] = [START, Replied(step=1, reply=calls('{"a": 1, "b": 2}')), Failed(step=2, failure=failure)]
    run, _, _ = fold(graph_of(ADD, AGENT), events)
    assert run.threads["main"][-1].content == "error: tool.failed: ValueError: no"
    assert run.results is not None
    assert run.results.data()[0]["error"] == {"name": "tool.failed", "message": "ValueError: no", "type": None}


def test_a_tools_failure_ends_the_run_where_the_state_says_so() -> None:
    flow = AGENT.replace("{type: tools, next: ask}", "{type: tools, on_error: raise, next: ask}")
    failure = Failure(name="tool.failed", message="ValueError: no")
    events: list[Event] = [START, Replied(step=1, reply=calls('{"a": 1, "b": 2}')), Failed(step=2, failure=failure)]
    assert outcome_of((ADD, flow), events) == failed("tool.failed", "ValueError: no", "act")


@pytest.mark.parametrize("last", [0, 1], ids=["the first came last", "the second came last"])
@pytest.mark.parametrize("bad", [0, 1], ids=["the first fails", "the second fails"])
def test_any_calls_failure_ends_the_run_where_the_state_says_so(bad: int, last: int) -> None:
    flow = AGENT.replace("{type: tools, next: ask}", "{type: tools, on_error: raise, next: ask}")
    failure = Failure(name="tool.failed", message="ValueError: no")
    events: list[Event] = [START, Replied(step=1, reply=calls('{"a": 1, "b": 2}', '{"a": 3, "b": 4}'))]
    for index in (1 - last, last):
        failing = Failed(step=2, index=index, failure=failure)
        events.append(failing if index == bad else Returned(step=2, index=index, value=3))
    assert outcome_of((ADD, flow), events[:-1]) is None
    assert outcome_of((ADD, flow), events) == failed("tool.failed", "ValueError: no", "act")


OFFERS = """\
  twice: {entrypoint: "tools.numbers:twice", parameters: {type: object}}
states:
  ask: {type: chat, tools: [add], routes: [{when: reply.tool_calls, to: act}, {to: done}]}
  act: {type: tools, next: again}
  again: {type: chat, tools: [twice], routes: [{when: reply.tool_calls, to: act}, {to: done}]}
  done: {type: end}
"""


def test_a_tool_that_the_state_does_not_offer_is_not_called() -> None:
    graph = graph_of(ADD, OFFERS)
    both = Reply(tool_calls=(ToolCall(id="", name="twice", arguments="{}"), *calls('{"a": 1, "b": 2}').tool_calls))
    run, effects, _ = fold(graph, [BEGIN, Replied(step=1, reply=both)])
    assert [effect.tool for effect in effects if isinstance(effect, CallFunction)] == ["add"]
    run = advance(graph, run, Returned(step=2, index=1, value=3)).run
    told = "error: tool.unknown: there is no tool 'twice'; there are: add"
    assert [message.content for message in run.threads["main"][-2:]] == [told, "3"]
    run, effects, _ = advance(graph, run, Replied(step=3, reply=both))
    assert [effect.tool for effect in effects if isinstance(effect, CallFunction)] == ["twice"]


def test_a_call_where_no_tool_is_offered_is_told_so() -> None:
    flow = AGENT.replace("type: chat\n", "type: chat\n    tools: []\n")
    run = fold(graph_of(ADD, flow), [START, Replied(step=1, reply=calls('{"a": 1, "b": 2}'))]).run
    assert run.threads["main"][-1].content == "error: tool.unknown: there is no tool 'add'; there are: none"


def test_usage_is_summed_over_rounds_also_those_that_failed() -> None:
    flow = AGENT.replace("type: chat\n", "type: chat\n    retry: {max_attempts: 2}\n")
    used = Usage(prompt_tokens=100, completion_tokens=10, cached_tokens=1, rerendered=1)
    more = Usage(prompt_tokens=200, completion_tokens=20, cached_tokens=2)
    most = Usage(prompt_tokens=400, completion_tokens=40, cached_tokens=4)
    cut_off = Reply(content="It", finish_reason="length", usage=used)
    call = structs.replace(calls('{"a": 1, "b": 2}'), usage=more)
    events: list[Event] = [START, Replied(step=1, reply=cut_off), Slept(step=2), Replied(step=2, reply=call)]
    events += [Returned(step=3, value=3), Replied(step=4, reply=Reply(content="3", usage=most))]
    run = fold(graph_of(ADD, flow), events).run
    assert run.status == "succeeded"
    assert run.usage == Usage(prompt_tokens=700, completion_tokens=70, cached_tokens=7, rerendered=1)


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        pytest.param(
            Replied(
                step=1,
                reply=Reply(content="It is", finish_reason="length", usage=Usage(completion_tokens=2)),
            ),
            failed(
                "model.truncated",
                "the reply reached max_tokens after 2 tokens, in the middle of an answer; it ends in 'It is': "
                "raise sampling.max_tokens or ask for less",
            ),
            id="truncated",
        ),
        pytest.param(
            Replied(step=1, reply=Reply(content="<tool_call>{", invalid_call="no JSON after <tool_call>")),
            failed("model.invalid_call", "no JSON after <tool_call>"),
            id="invalid call",
        ),
        pytest.param(
            Failed(step=1, failure=Failure(name="backend.unavailable", message="the engine died")),
            failed("backend.unavailable", "the engine died"),
            id="backend",
        ),
        pytest.param(
            Cancelled(reason="not wanted any more"),
            Outcome(
                status="cancelled", error=Failure(name="run.cancelled", message="not wanted any more", state="ask")
            ),
            id="cancelled",
        ),
    ],
)
def test_what_ends_a_run(event: Event, expected: Outcome) -> None:
    assert outcome_of((ADD, AGENT), [START, event]) == expected


def test_rounds_are_limited() -> None:
    events: list[Event] = [START]
    for step in (1, 3, 5):
        events += [Replied(step=step, reply=calls('{"a": 1, "b": 2}')), Returned(step=step + 1, value=3)]
    expected = failed("limit.rounds", "the run asked the model 3 times, which is limits.max_rounds")
    assert outcome_of((ADD, AGENT), events) == expected


def test_steps_are_limited() -> None:
    flow = """\
        states:
          spin: {type: route, routes: [{when: "inputs", to: done}, {to: spin}]}
          done: {type: end}
        limits: {max_steps: 7}
        """
    message = "the run entered 7 states, which is limits.max_steps: is there a loop without an end?"
    assert outcome_of(flow, [Started(run="r", inputs={})]) == failed("limit.steps", message, "spin")


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        pytest.param({}, '"question" is a required property', id="missing"),
        pytest.param({"question": 1}, 'question: 1 is not of type "string"', id="wrong type"),
        pytest.param(
            {"question": "?", "other": 1},
            "Additional properties are not allowed ('other' was unexpected)",
            id="unknown",
        ),
    ],
)
def test_inputs_are_checked(inputs: dict[str, Any], message: str) -> None:
    assert outcome_of((ADD, AGENT), [Started(run="r", inputs=inputs)]) == failed("input.invalid", message, "")


def test_all_inputs_that_are_wrong_are_named() -> None:
    flow = "inputs: {a: {type: integer}, b: {type: string, default: x}}\nstates: {e: {type: end}}\n"
    message = 'a: "1" is not of type "integer"; b: 2 is not of type "string"'
    assert outcome_of(flow, [Started(run="r", inputs={"a": "1", "b": 2})]) == failed("input.invalid", message, "")
    assert outcome_of(flow, [Started(run="r", inputs={"a": 1})]) == Outcome(status="succeeded")


def test_the_runs_time_is_limited_and_no_catch_takes_that() -> None:
    flow = AGENT.replace("max_rounds: 3", "timeout: 1m").replace(
        "type: chat\n", "type: chat\n    catch: [{to: done}]\n"
    )
    assert outcome_of((ADD, flow), [START, TimedOut()]) == failed(
        "limit.timeout", "the run took longer than limits.timeout, 60 s"
    )


def test_a_state_without_a_matching_route_fails() -> None:
    flow = 'states: {a: {type: route, routes: [{when: "false", to: b}]}, b: {type: end}}\n'
    expected = failed("route.unmatched", "no route of state 'a' matched: give it a last route without when", "a")
    assert outcome_of(flow, [Started(run="r", inputs={})]) == expected


@pytest.mark.parametrize(
    ("template", "message"),
    [
        pytest.param("{{ reply.content }}", "in 'reply.content': 'reply' is undefined", id="not yet there"),
        pytest.param(
            "a {{ inputs.nothing }}",
            "in 'a {{ inputs.nothing }}': there is no member 'nothing'; there are: none",
            id="not there at all",
        ),
        pytest.param("{{ 1 // 0 }}", "in '{{ 1 // 0 }}': integer division or modulo by zero", id="raises"),
    ],
)
def test_a_template_that_fails_ends_the_run(template: str, message: str) -> None:
    flow = f'states: {{a: {{type: end, output: "{template}"}}}}\n'
    assert outcome_of(flow, [Started(run="r", inputs={})]) == failed("template.failed", message, "a")


CATCHING = """\
    states:
      fetch:
        type: call
        entrypoint: tools.web:fetch
        with: {url: "https://{{ inputs }}", depth: "{{ 1 + 1 }}"}
        retry: {max_attempts: 2, errors: [tool.timeout], delay: 2s, jitter: 0}
        catch: [{errors: [tool.*], to: sorry}]
        set: {page: "{{ outputs.fetch.text }}", twice: "{{ vars.page * 2 }}"}
        next: done
      sorry: {type: end, status: failed, output: "{{ error.name }} in {{ error.state }}"}
      done: {type: end, output: "{{ vars }}"}
    """
BEGIN = Started(run="r", inputs={})


def test_a_call_sets_variables_in_their_order() -> None:
    step = fold(graph_of(CATCHING), [BEGIN])
    assert [e.arguments for e in step.effects if isinstance(e, CallFunction)] == [{"url": "https://{}", "depth": 2}]
    outcome = outcome_of(CATCHING, [BEGIN, Returned(step=1, value={"text": "ab"})])
    assert outcome == Outcome(status="succeeded", output={"page": "ab", "twice": "abab"})


def test_retry_then_catch() -> None:
    graph = graph_of(CATCHING)
    timeout = Failure(name="tool.timeout", message="too slow")
    run, effects, _ = fold(graph, [BEGIN, Failed(step=1, failure=timeout)])
    assert effects == (Sleep(step=2, seconds=2.0),)
    assert advance(graph, run, Returned(step=1, value={"text": "late"})).run == run
    run, effects, _ = advance(graph, run, Slept(step=2))
    assert [type(effect) for effect in effects] == [CallFunction]
    assert advance(graph, run, Slept(step=2)).effects == ()
    run, effects, _ = advance(graph, run, Failed(step=2, failure=timeout))
    error = Failure(
        name="flow.failed", message="the flow ended in state 'sorry', whose status is failed", state="sorry"
    )
    assert effects == (Outcome(status="failed", output="tool.timeout in fetch", error=error),)


ASK_TIMED = AGENT.replace("type: chat\n", "type: chat\n    timeout: 3s\n")
STATES_TIMED = ASK_TIMED.replace("{type: tools, next: ask}", "{type: tools, timeout: 4s, next: ask}")
RUN_TIMED = ASK_TIMED.replace("max_steps: 20", "max_steps: 20, timeout: 1m")
ALL_TIMED = STATES_TIMED.replace("max_steps: 20", "max_steps: 20, timeout: 1m")


@pytest.mark.parametrize(
    ("flow", "late"),
    [
        pytest.param(ALL_TIMED, Replied(step=1, reply=Reply(content="again")), id="a reply twice"),
        pytest.param(ALL_TIMED, Replied(step=2, reply=Reply(content="again")), id="a reply to a call"),
        pytest.param(ALL_TIMED, Returned(step=2, index=7, value=1), id="no such call"),
        pytest.param(ALL_TIMED, Returned(step=2, index=-1, value=1), id="a call before the first"),
        pytest.param(ALL_TIMED, Returned(step=2, index=0, value=1), id="a value twice"),
        pytest.param(ALL_TIMED, Returned(step=9, value=1), id="a step to come"),
        pytest.param(ALL_TIMED, Slept(step=2), id="nobody sleeps"),
        pytest.param(ALL_TIMED, START, id="a second start"),
        pytest.param(ALL_TIMED, TimedOut(step=1), id="a timer of a state left"),
        pytest.param(ALL_TIMED, TimedOut(step=3), id="a timer of a state to come"),
        pytest.param(RUN_TIMED, TimedOut(step=2), id="the state has no timeout"),
        pytest.param(STATES_TIMED, TimedOut(), id="the run has no timeout"),
    ],
)
def test_what_is_not_awaited_changes_nothing(flow: str, late: Event) -> None:
    graph = graph_of(ADD, flow)
    both = calls('{"a": 1, "b": 2}', '{"a": 3, "b": 4}')
    run = fold(graph, [START, Replied(step=1, reply=both), Returned(step=2, index=0, value=3)]).run
    after, effects, moves = advance(graph, run, late)
    assert after is run
    assert (effects, moves) == ((), ())


def test_a_timer_of_the_state_that_the_run_is_in_fails_it() -> None:
    events: list[Event] = [START, Replied(step=1, reply=calls('{"a": 1, "b": 2}')), TimedOut(step=2)]
    expected = failed("state.timeout", "state 'act' took longer than its timeout, 4 s", "act")
    assert outcome_of((ADD, ALL_TIMED), events) == expected


ANY_TIMED = """\
inputs: {question: {type: string}}
states:
  ask: {type: wait, prompt: Well?, timeout: 3s, routes: [{when: 1 // outputs.ask == 1, to: ask}, {to: done}],
    retry: {max_attempts: 9}}
  done: {type: end}
limits: {timeout: 1m}
"""


@pytest.mark.parametrize(
    ("status", "awaiting", "events"),
    [
        pytest.param("waiting", "effect", [START], id="waiting"),
        pytest.param("waiting", "effect", [START, Answered(step=1, value=1)], id="waiting again"),
        pytest.param("running", "sleep", [START, Answered(step=1, value=0)], id="before another attempt"),
        pytest.param("succeeded", "", [START, Answered(step=1, value=2)], id="succeeded"),
        pytest.param("failed", "", [START, TimedOut()], id="failed"),
        pytest.param("cancelled", "", [START, Cancelled()], id="cancelled"),
    ],
)
def test_a_run_starts_once(status: str, awaiting: str, events: list[Event]) -> None:
    graph = graph_of(ANY_TIMED)
    run = fold(graph, events).run
    assert (run.status, run.awaiting) == (status, awaiting)
    after, effects, moves = advance(graph, run, START)
    assert after is run
    assert (effects, moves) == ((), ())


@pytest.mark.parametrize(
    "late",
    [
        pytest.param(TimedOut(), id="the run's timer"),
        pytest.param(TimedOut(step=1), id="the state's timer"),
        pytest.param(Answered(step=1, value=1), id="an answer twice"),
        pytest.param(Cancelled(), id="cancelled"),
    ],
)
def test_a_run_ends_once(late: Event) -> None:
    graph = graph_of(ANY_TIMED)
    run = fold(graph, [START, Answered(step=1, value=2)]).run
    assert run.status == "succeeded"
    after, effects, moves = advance(graph, run, late)
    assert after is run
    assert (effects, moves) == ((), ())


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param('{"city": "Paris"}', Outcome(status="succeeded", output="Paris"), id="matches"),
        pytest.param(
            '{"city": 1}',
            failed("model.invalid_output", 'the reply does not match response_format: city: 1 is not of type "string"'),
            id="does not match",
        ),
        pytest.param(
            "Paris",
            failed("model.invalid_output", "the reply is no JSON: Expecting value: line 1 column 1 (char 0)"),
            id="no JSON",
        ),
    ],
)
def test_response_format(content: str, expected: Outcome) -> None:
    flow = """\
        states:
          ask:
            type: chat
            response_format: {schema: {type: object, properties: {city: {type: string}}, required: [city]}}
            next: done
          done: {type: end, output: "{{ reply.parsed.city }}"}
        """
    assert outcome_of(flow, [BEGIN, Replied(step=1, reply=Reply(content=content))]) == expected


def test_examples_in_messages_get_ids_and_answers() -> None:
    flow = """\
        messages:
          - {role: assistant, tool_calls: [{name: add, arguments: {a: 1, b: 2}}, {name: add, arguments: {a: 3, b: 4}}]}
          - {role: tool, content: "3"}
          - {role: tool, content: "7"}
        states: {ask: {type: chat, next: done}, done: {type: end}}
        """
    run = fold(graph_of(ADD, flow), [BEGIN]).run
    assert [(m.tool_call_id, m.name, [c.id for c in m.tool_calls]) for m in run.threads["main"]] == [
        (None, None, ["call00001", "call00002"]),
        ("call00001", "add", []),
        ("call00002", "add", []),
    ]


def test_messages_are_made_of_templates_in_lists_and_keep_their_names_and_letters() -> None:
    flow = """\
        inputs: {question: {type: string}}
        messages:
          - role: assistant
            tool_calls:
              - {id: own, name: add, arguments: {a: ["{{ inputs.question }}", é]}}
              - {name: add, arguments: {b: ü}}
          - {role: tool, name: sum, tool_call_id: own, content: "3"}
          - {role: tool, content: "7"}
        states: {ask: {type: chat, next: done}, done: {type: end}}
        """
    run = fold(graph_of(ADD, flow), [START]).run
    assert list(run.threads["main"]) == [
        Message(
            role="assistant",
            tool_calls=(
                ToolCall(id="own", name="add", arguments='{"a": ["2 + 3?", "é"]}'),
                ToolCall(id="call00002", name="add", arguments='{"b": "ü"}'),
            ),
        ),
        Message(role="tool", name="sum", content="3", tool_call_id="own"),
        Message(role="tool", name="add", content="7", tool_call_id="call00002"),
    ]


EXAMPLES = """\
threads:
  main:
    - {role: assistant, tool_calls: [{name: add, arguments: {a: 1, b: 2}}, {name: add, arguments: {a: 3, b: 4}}]}
    - {role: tool, content: "3"}
    - {role: tool, content: "{{ inputs.question }}"}
    - {role: assistant, tool_calls: [{name: add, arguments: {a: 5, b: "{{ inputs.question | length }}"}}]}
  other:
    - {role: assistant, tool_calls: [{name: add, arguments: {a: 7, b: 8}}]}
    - {role: tool, content: "15"}
  third: [{role: assistant, tool_calls: [{name: add, arguments: {a: 1, b: 1}}]}, {role: tool, content: "2"}]
inputs: {question: {type: string}}
states:
  ask:
    type: chat
    messages:
      - {role: tool, content: "11"}
      - {role: assistant, tool_calls: [{name: add, arguments: {a: 9, b: 10}}]}
      - {role: tool, content: "19"}
    next: done
  done: {type: end}
"""


def test_calls_are_counted_through_messages_that_are_the_same_in_every_run_and_others() -> None:
    def asks(number: int, a: int, b: int) -> ToolCall:
        return ToolCall(id=f"call{number:05d}", name="add", arguments=f'{{"a": {a}, "b": {b}}}')

    def tells(number: int, content: str) -> Message:
        return Message(role="tool", content=content, tool_call_id=f"call{number:05d}", name="add")

    run = fold(graph_of(ADD, EXAMPLES), [START]).run
    assert run.call_count == 6
    assert {thread: list(log) for thread, log in run.threads.items()} == {
        "main": [
            Message(role="assistant", tool_calls=(asks(1, 1, 2), asks(2, 3, 4))),
            tells(1, "3"),
            tells(2, "2 + 3?"),
            Message(role="assistant", tool_calls=(asks(3, 5, 6),)),
            tells(3, "11"),
            Message(role="assistant", tool_calls=(asks(6, 9, 10),)),
            tells(6, "19"),
        ],
        "other": [Message(role="assistant", tool_calls=(asks(4, 7, 8),)), tells(4, "15")],
        "third": [Message(role="assistant", tool_calls=(asks(5, 1, 1),)), tells(5, "2")],
    }


def test_runs_share_the_first_messages_that_are_the_same_in_all_of_them() -> None:
    graph = graph_of(ADD, EXAMPLES)
    one, other = (
        fold(graph, [Started(run=name, inputs={"question": name}), Replied(step=1, reply=Reply(content=name))]).run
        for name in ("one", "other")
    )
    told = [message.content for message in other.threads["main"]]
    assert told == [None, "3", "other", None, "11", None, "19", "other"]
    shared = [a is b for a, b in zip(one.threads["main"], other.threads["main"], strict=True)]
    assert shared == [True, True, False, False, False, False, False, False]
    assert one.threads["other"][0] is other.threads["other"][0]


def test_half_a_surrogate_pair_in_a_call_is_the_models_mistake() -> None:
    graph = graph_of(ADD, AGENT)
    call = ToolCall(id="", name="add", arguments='{"a": 1, "b": "\ud800"}')
    run = fold(
        graph, [Started(run="r", inputs={"question": "?"}), Replied(step=1, reply=Reply(tool_calls=(call,)))]
    ).run
    assert str(run.threads["main"][-1].content).startswith("error: tool.invalid_arguments: ")
