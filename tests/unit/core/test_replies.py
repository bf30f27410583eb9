"""The gate for replies, and what becomes of tool calls: rows of a flow, a reply, and how the run ends."""

import pytest
from msgspec import structs

from flowrun.core.call_handling import find_call_handling
from flowrun.core.events import AskModel, CallFunction, Event, Outcome, Replied, Returned, Started
from flowrun.core.machine import Run, fold
from flowrun.core.messages import Message, Reply, Tokens, ToolCall, Usage
from flowrun.errors import Failure
from flowrun.spec import parse_text
from tests.flows import ADD, HEADER, compile_spec, graph_of, spec_of

BEGIN = Started(run="r", inputs={})
TWICE = (
    ADD
    + """\
  twice: {entrypoint: "tools.numbers:twice", parameters: {type: object}}
messages: [{role: user, content: Go.}]
"""
)
FLOW = (
    TWICE
    + """\
states:
  ask: {type: chat, CHOICE, routes: [{when: reply.tool_calls, to: act}, {to: done}]}
  act: {type: tools, next: done}
  done: {type: end, output: "{{ reply.content }}"}
"""
)


def call(name: str = "add", call_id: str = "") -> ToolCall:
    return ToolCall(id=call_id, name=name, arguments='{"a": 1, "b": 2}')


def run_of(flow: str, *replies: Reply) -> Run:
    """Feed replies to a flow; its tools return 3."""
    graph = graph_of(flow)
    events: list[Event] = [BEGIN]
    left = list(replies)
    run, effects, _ = fold(graph, events)
    while effects and run.outcome is None:
        if isinstance(effects[0], AskModel):
            if not left:
                break
            events.append(Replied(step=run.step, reply=left.pop(0)))
        else:
            events += (Returned(step=run.step, index=getattr(effect, "index", 0), value=3) for effect in effects)
        run, effects, _ = fold(graph, events)
    return run


def name_of(run: Run) -> str:
    assert run.outcome is not None
    return run.outcome.status if run.outcome.error is None else run.outcome.error.name


@pytest.mark.parametrize(
    ("reason", "ends"),
    [
        *((reason, "succeeded") for reason in ("stop", "STOP", "tool_calls", "function_call", "eos_token", "end_turn")),
        *((reason, "model.truncated") for reason in ("length", "MAX_TOKENS", "model_length", "repetition")),
        *((reason, "model.declined") for reason in ("content_filter", "refusal", "SAFETY")),
        *((reason, "backend.unavailable") for reason in ("abort", "error", "", "pause", "odd")),
    ],
)
def test_a_reply_is_an_answer_only_if_the_model_ended_it(reason: str, ends: str) -> None:
    flow = FLOW.replace("CHOICE", "tools: []")
    assert name_of(run_of(flow, Reply(content="The safe dose is 10", finish_reason=reason))) == ends


@pytest.mark.parametrize(
    ("choice", "reply", "ends"),
    [
        pytest.param("tools: []", Reply(), "model.invalid_output", id="empty"),
        pytest.param("tools: []", Reply(reasoning="Hm."), "model.invalid_output", id="thought and nothing said"),
        pytest.param("tools: []", Reply(content=""), "succeeded", id="an empty text"),
        pytest.param("tools: []", Reply(refusal="I will not."), "model.declined", id="refused"),
        pytest.param("tools: []", Reply(content="x", refusal="No."), "model.declined", id="refused with a text"),
        pytest.param("tool_choice: none", Reply(tool_calls=(call(),)), "model.invalid_call", id="none, and a call"),
        pytest.param("tool_choice: none", Reply(content="x"), "succeeded", id="none"),
        pytest.param("tool_choice: required", Reply(content="x"), "model.invalid_call", id="required, and none"),
        pytest.param("tool_choice: required", Reply(tool_calls=(call(),)), "succeeded", id="required"),
        pytest.param("tool_choice: required", Reply(tool_calls=(call("odd"),)), "succeeded", id="required, unknown"),
        pytest.param("tool_choice: twice", Reply(tool_calls=(call(),)), "model.invalid_call", id="named, and another"),
        pytest.param(
            "tool_choice: add",
            Reply(tool_calls=(call(), call("twice"))),
            "model.invalid_call",
            id="named, and one more",
        ),
        pytest.param("tool_choice: add", Reply(tool_calls=(call(),)), "succeeded", id="named"),
        pytest.param("tool_choice: add", Reply(content="add()"), "model.invalid_call", id="named, and words"),
    ],
)
def test_a_reply_must_be_what_the_state_asked_for(choice: str, reply: Reply, ends: str) -> None:
    run = run_of(FLOW.replace("CHOICE", choice), reply)
    assert name_of(run) == ends


LONG = "x" * 500


@pytest.mark.parametrize(
    ("reply", "name", "message"),
    [
        pytest.param(
            Reply(content="I will not.", refusal="Against the rules."),
            "model.declined",
            "the model declined to reply: Against the rules.",
            id="refused, with a reason",
        ),
        pytest.param(
            Reply(content="I will not.", finish_reason="content_filter"),
            "model.declined",
            "the model declined to reply: I will not.",
            id="refused, with a text",
        ),
        pytest.param(
            Reply(finish_reason="Safety"),
            "model.declined",
            "the model declined to reply: the finish reason is Safety",
            id="refused, without a word",
        ),
        pytest.param(
            Reply(refusal=LONG), "model.declined", f"the model declined to reply: {LONG[:400]}", id="refused at length"
        ),
        pytest.param(
            Reply(content=LONG + "end", finish_reason="length", usage=Usage(completion_tokens=9)),
            "model.truncated",
            f"the reply reached max_tokens after 9 tokens, in the middle of an answer; it ends in "
            f"{LONG[:77] + 'end'!r}: raise sampling.max_tokens or ask for less",
            id="cut off",
        ),
        pytest.param(
            Reply(tool_calls=(call(),), text="add(", finish_reason="length"),
            "model.truncated",
            "the reply reached max_tokens after 0 tokens, in the middle of a tool call; it ends in 'add(': "
            "raise sampling.max_tokens or ask for less",
            id="cut off in a call",
        ),
        pytest.param(
            Reply(content="<tool_call>", invalid_call="no end", finish_reason="abort"),
            "backend.unavailable",
            "the backend ended the reply in the middle of a tool call, with the finish reason 'abort'; "
            "it ends in '<tool_call>'",
            id="ended by the backend in a call",
        ),
        pytest.param(
            Reply(finish_reason="abort"),
            "backend.unavailable",
            "the backend ended the reply in the middle of an answer, with the finish reason 'abort'; it ends in ''",
            id="ended by the backend at once",
        ),
        pytest.param(
            Reply(content="so so so", finish_reason="repetition"),
            "model.truncated",
            "the reply was ended because it repeats itself; it ends in 'so so so'",
            id="repeats itself",
        ),
        pytest.param(
            Reply(tool_calls=(call(), call("twice"), call(LONG), call())),
            "model.unhandled_call",
            f"the reply calls add, twice, {LONG[:80]}, and no state handles that: add a route for reply.tool_calls "
            "that leads to a tools state, or offer no tools (tools: [])",
            id="calls that no state handles",
        ),
    ],
)
def test_a_failure_quotes_the_reply(reply: Reply, name: str, message: str) -> None:
    run = run_of(TWICE + "states: {ask: {type: chat, next: done}, done: {type: end}}\n", reply)
    assert run.outcome == Outcome(status="failed", error=Failure(name=name, message=message, state="ask"))


@pytest.mark.parametrize(
    ("choice", "reply", "message"),
    [
        pytest.param(
            "required", Reply(), "tool_choice is required, but the reply calls no tool: ''", id="required, and nothing"
        ),
        pytest.param("none", Reply(tool_calls=(call(),)), "tool_choice is none, but the reply calls add", id="none"),
        pytest.param(
            "required",
            Reply(content=LONG),
            f"tool_choice is required, but the reply calls no tool: {LONG[:80]!r}",
            id="required",
        ),
        pytest.param(
            "add", Reply(content=""), "tool_choice is add, but the reply calls no tool: ''", id="named, silent"
        ),
        pytest.param(
            "add",
            Reply(tool_calls=(call("twice"), call())),
            "tool_choice is add, but the reply calls twice, add",
            id="named, and another",
        ),
    ],
)
def test_a_failure_says_which_choice_was_not_obeyed(choice: str, reply: Reply, message: str) -> None:
    run = run_of(FLOW.replace("CHOICE", f"tool_choice: {choice}"), reply)
    failure = Failure(name="model.invalid_call", message=message, state="ask")
    assert run.outcome == Outcome(status="failed", error=failure)


def test_a_choice_of_tools_asks_nothing_of_a_state_that_offers_none() -> None:
    run = run_of(FLOW.replace("CHOICE", "tools: [], tool_choice: required"), Reply(content="x"))
    assert name_of(run) == "succeeded"


def test_a_call_in_place_of_the_format_is_no_output() -> None:
    flow = FLOW.replace("CHOICE", "response_format: {type: json_object}").replace(
        "when: reply.tool_calls", "when: inputs"
    )
    assert name_of(run_of(flow, Reply(tool_calls=(call(),)))) == "model.invalid_output"
    handled = FLOW.replace("CHOICE", "response_format: {type: json_object}")
    assert list(run_of(handled, Reply(tool_calls=(call(),))).path) == ["ask", "act", "done"]


NO_LABEL = 'the reply does not match response_format: "maybe" is not one of "yes" or "no"'
NO_MATCH = 'the reply does not match response_format: "ab-1x" does not match "^(?:[a-z]{2}-[0-9])$"'


@pytest.mark.parametrize(
    ("form", "content", "expected"),
    [
        pytest.param("{type: choice, choices: ['yes', 'no']}", "no", "no", id="choice"),
        pytest.param("{type: choice, choices: ['yes', 'no']}", "maybe", NO_LABEL, id="another choice"),
        pytest.param("{type: choice, choices: ['yes', '{{ inputs.other }}']}", "no", "no", id="a label by a template"),
        pytest.param("{type: choice, choices: ['yes', '{{ inputs.other }}']}", "maybe", NO_LABEL, id="another label"),
        pytest.param("{type: choice, choices: '{{ inputs.labels }}'}", "no", "no", id="all labels by a template"),
        pytest.param("{type: regex, pattern: '[a-z]{2}-[0-9]'}", "ab-1", "ab-1", id="regex"),
        pytest.param("{type: regex, pattern: '[a-z]{2}-[0-9]'}", "ab-1x", NO_MATCH, id="all of the text matches"),
        pytest.param("{type: regex, pattern: 'a|b'}", "b", "b", id="an alternative"),
    ],
)
def test_texts_of_a_form(form: str, content: str, expected: str) -> None:
    graph = graph_of(
        "inputs: {other: {type: string}, labels: {type: array}}\nstates:\n"
        f"  ask: {{type: chat, response_format: {form}, next: done}}\n"
        '  done: {type: end, output: "{{ reply.parsed }}"}\n'
    )
    events: list[Event] = [
        Started(run="r", inputs={"other": "no", "labels": ["yes", "no"]}),
        Replied(step=1, reply=Reply(content=content)),
    ]
    outcome = fold(graph, events).run.outcome
    assert outcome is not None
    assert (outcome.error.message if outcome.error else outcome.output) == expected


@pytest.mark.parametrize("labels", [[], ["a", "a"], ["a", 1], ["a", ""], "a", 5, {"a": 1}], ids=repr)
def test_labels_that_are_no_different_texts(labels: object) -> None:
    graph = graph_of(
        "inputs: {labels: {}}\nstates:\n"
        "  ask: {type: chat, response_format: {type: choice, choices: '{{ inputs.labels }}'}, next: done}\n"
        "  done: {type: end}\n"
    )
    outcome = fold(graph, [Started(run="r", inputs={"labels": labels})]).run.outcome
    assert outcome is not None
    assert outcome.error == Failure(
        name="template.failed", message=f"choices gave {labels!r}, which is no list of different texts", state="ask"
    )


TOKENS = Tokens(vocabulary=1, ids=b"1234", end=9, digest=5)


@pytest.mark.parametrize(
    ("setting", "kept"),
    [
        pytest.param("", Message(role="assistant", content="4", reasoning="2 + 2", tokens=TOKENS), id="keep"),
        pytest.param(
            ", reasoning: drop",
            Message(role="assistant", content="4", tokens=structs.replace(TOKENS, ids=b"")),
            id="drop: neither its text nor its tokens",
        ),
    ],
)
def test_reasoning_in_the_thread(setting: str, kept: Message) -> None:
    spec = HEADER.replace("name: replies.yaml", f"name: replies.yaml{setting}") + (
        'states:\n  ask: {type: chat, next: done}\n  done: {type: end, output: "{{ reply.reasoning }}"}\n'
    )
    reply = Reply(content="4", reasoning="2 + 2", tokens=TOKENS)
    run = fold(compile_spec(parse_text(spec).spec), [BEGIN, Replied(step=1, reply=reply)]).run
    assert list(run.threads["main"]) == [kept]
    assert run.outcome == Outcome(status="succeeded", output="2 + 2")


def test_no_tool_runs_when_the_choice_is_not_obeyed() -> None:
    run = run_of(FLOW.replace("CHOICE", "tool_choice: none"), Reply(tool_calls=(call(),)))
    assert list(run.path) == ["ask"]


HANDLED = [
    pytest.param(
        "ask: {type: chat, routes: [{when: reply.tool_calls, to: done}, {to: done}]}", id="a route reads them"
    ),
    pytest.param(
        "ask: {type: chat, next: look}\n"
        "  look: {type: route, routes: [{when: reply.tool_calls, to: done}, {to: done}]}",
        id="a route of the next state reads them",
    ),
    pytest.param('ask: {type: chat, set: {n: "{{ reply | tojson }}"}, next: done}', id="set reads all of the reply"),
    pytest.param("ask: {type: chat, next: act}\n  act: {type: tools, next: done}", id="a tools state follows"),
    pytest.param(
        "ask: {type: chat, next: look}\n"
        "  look: {type: route, routes: [{when: inputs, to: act}, {to: ok}]}\n"
        "  ok: {type: wait, prompt: Well?, next: act}\n"
        "  act: {type: tools, next: done}",
        id="each way leads to a tools state",
    ),
    pytest.param(
        "ask: {type: chat, next: ok}\n"
        "  ok: {type: wait, prompt: Well?, next: told}\n"
        '  told: {type: chat, tools: [], messages: [{role: tool, content: "{{ outputs.ok }}"}], next: done}',
        id="a message of role tool answers",
    ),
    pytest.param(
        "ask: {type: chat, next: other}\n"
        "  other: {type: chat, tools: [], thread: side, next: act}\n"
        "  act: {type: tools, next: done}",
        id="over a chat on another thread",
    ),
    pytest.param(
        "ask: {type: chat, next: sum}\n"
        '  sum: {type: chat, tools: [], thread: side, messages: [{role: user, content: "{{ reply.tool_calls }}"}], '
        "next: done}",
        id="the next chat's messages read them",
    ),
    pytest.param(
        'ask: {type: chat, next: last}\n  last: {type: end, output: "{{ outputs.ask.tool_calls }}"}', id="the end reads"
    ),
]
UNHANDLED = [
    pytest.param("ask: {type: chat, next: done}", id="an end that reads the content"),
    pytest.param("ask: {type: chat, routes: [{when: reply.content, to: done}, {to: done}]}", id="another condition"),
    pytest.param("ask: {type: chat, next: act}\n  act: {type: tools, thread: side, next: done}", id="another thread"),
    pytest.param(
        "ask: {type: chat, routes: [{when: inputs, to: act}, {to: done}]}\n  act: {type: tools, next: done}",
        id="one way avoids the tools state",
    ),
    pytest.param(
        "ask: {type: chat, next: sum}\n"
        "  sum: {type: chat, tools: [], routes: [{when: reply.tool_calls, to: done}, {to: done}]}",
        id="the next chat reads its own",
    ),
    pytest.param("ask: {type: chat, next: ask}\n  never: {type: tools, next: done}", id="a loop of its own"),
    pytest.param("ask: {type: chat, next: spin}\n  spin: {type: route, next: spin}", id="a loop that nothing leaves"),
    pytest.param(
        "ask: {type: chat, next: a}\n  a: {type: route, routes: [{when: inputs, to: b}, {to: done}]}\n"
        "  b: {type: route, next: a}\n  act: {type: tools, next: done}",
        id="a loop that an end leaves",
    ),
]
AROUND = TWICE + "threads: {side: [{role: user, content: Hm.}]}\nstates:\n  STATES\n  done: {type: end, output: 1}\n"


@pytest.mark.parametrize("states", HANDLED)
def test_a_chat_handles_calls(states: str) -> None:
    assert "ask" in find_call_handling(spec_of(AROUND.replace("STATES", states))).chats


@pytest.mark.parametrize("states", UNHANDLED)
def test_a_call_that_nothing_handles_is_a_failure(states: str) -> None:
    flow = AROUND.replace("STATES", states)
    assert "ask" not in find_call_handling(spec_of(flow)).chats
    assert name_of(run_of(flow, Reply(tool_calls=(call(),)))) == "model.unhandled_call"


def test_a_call_that_the_path_taken_did_not_look_at_is_not_dropped() -> None:
    states = (
        "ask: {type: chat, routes: [{when: inputs, to: act}, {when: not inputs, to: done}, {when: reply.tool_calls, "
        "to: act}]}\n  act: {type: tools, next: done}"
    )
    run = run_of(AROUND.replace("STATES", states), Reply(tool_calls=(call(),)))
    assert (name_of(run), list(run.path)) == ("model.unhandled_call", ["ask", "done"])


def test_a_call_that_was_looked_at_may_stay_open() -> None:
    states = "ask: {type: chat, routes: [{when: reply.tool_calls, to: done}, {to: done}]}"
    assert name_of(run_of(AROUND.replace("STATES", states), Reply(tool_calls=(call(),)))) == "succeeded"


TWO_THREADS = """\
ask: {type: chat, routes: [{when: not inputs, to: other}, {when: reply.tool_calls, to: act}]}
  other: {type: chat, thread: side, ROUTES}
  act: {type: tools, next: done}
  side_act: {type: tools, thread: side, NEXT}
"""
"""The calls of ``ask`` are handled on one way from it; the run takes the other, over a chat on another thread."""
READ_OWN = "routes: [{when: reply.tool_calls, to: side_act}, {to: done}]"
CALLS = Reply(tool_calls=(call(),))


@pytest.mark.parametrize(
    ("routes", "after", "other", "path"),
    [
        pytest.param(READ_OWN, "next: done", Reply(content="x"), [], id="another chat's route reads its own reply"),
        pytest.param(READ_OWN, "next: done", CALLS, ["side_act"], id="another thread's tools state"),
        pytest.param(
            "next: side_act",
            "routes: [{when: outputs.other.tool_calls, to: done}, {to: done}]",
            CALLS,
            ["side_act"],
            id="a template reads another chat's output",
        ),
        pytest.param(
            "next: side_act",
            'set: {n: "{{ reply.tool_calls | length }}"}, next: done',
            CALLS,
            ["side_act"],
            id="a set reads another chat's reply",
        ),
        pytest.param(
            "next: side_act",
            "routes: [{when: outputs.ask.content, to: done}, {to: done}]",
            CALLS,
            ["side_act"],
            id="a template reads something else of it",
        ),
        pytest.param(
            "routes: [{when: not inputs, to: done}, {when: outputs.ask.tool_calls, to: done}]",
            "next: done",
            Reply(content="x"),
            [],
            id="a condition after the route that was taken",
        ),
    ],
)
def test_a_call_on_a_thread_is_not_handled_on_another(routes: str, after: str, other: Reply, path: list[str]) -> None:
    flow = AROUND.replace("STATES", TWO_THREADS.replace("ROUTES", routes).replace("NEXT", after))
    run = run_of(flow, CALLS, other)
    assert list(run.path) == ["ask", "other", *path, "done"]
    message = "the run would end in state 'done' although no state handled the calls add"
    error = Failure(name="model.unhandled_call", message=message, state="ask")
    assert run.outcome == Outcome(status="failed", error=error)


@pytest.mark.parametrize(
    ("routes", "after", "path"),
    [
        pytest.param(READ_OWN, "next: act", ["side_act", "act", "done"], id="a tools state of its thread"),
        pytest.param(
            READ_OWN,
            "routes: [{when: outputs.ask.tool_calls, to: done}, {to: done}]",
            ["side_act", "done"],
            id="a condition reads its chat's output",
        ),
        pytest.param(
            READ_OWN,
            'set: {n: "{{ outputs.ask.tool_calls | length }}"}, next: done',
            ["side_act", "done"],
            id="a set reads its chat's output",
        ),
        pytest.param(
            READ_OWN, 'set: {n: "{{ outputs }}"}, next: done', ["side_act", "done"], id="a set reads all outputs"
        ),
        pytest.param(
            READ_OWN + ", messages: [{role: user, content: '{{ outputs.ask.tool_calls }}'}]",
            "next: done",
            ["side_act", "done"],
            id="a message of another thread reads its chat's output",
        ),
        pytest.param(READ_OWN, "next: told", ["side_act", "told", "done"], id="a message of role tool"),
        pytest.param(READ_OWN, "next: shown", ["side_act", "shown"], id="the end reads its chat's output"),
    ],
)
def test_a_call_is_handled_on_its_own_thread_or_by_a_template(routes: str, after: str, path: list[str]) -> None:
    told = "told: {type: chat, tools: [], messages: [{role: tool, content: No.}], next: done}"
    shown = 'shown: {type: end, output: "{{ outputs.ask.tool_calls }}"}'
    states = f"{TWO_THREADS}  {told}\n  {shown}\n".replace("ROUTES", routes).replace("NEXT", after)
    run = run_of(AROUND.replace("STATES", states), CALLS, CALLS, Reply(content="x"))
    assert (name_of(run), list(run.path)) == ("succeeded", ["ask", "other", *path])


def test_reading_the_calls_of_an_earlier_reply_does_not_handle_those_of_the_last() -> None:
    routes = "routes: [{when: outputs.ask.tool_calls, to: done}, {when: reply.tool_calls, to: side_act}]"
    flow = AROUND.replace("STATES", TWO_THREADS.replace("ROUTES", routes).replace("NEXT", "next: done"))
    run = run_of(flow, CALLS, CALLS)
    message = "the run would end in state 'done' although no state handled the calls add"
    error = Failure(name="model.unhandled_call", message=message, state="other")
    assert (list(run.path), run.outcome) == (["ask", "other", "done"], Outcome(status="failed", error=error))


def test_an_end_that_fails_does_not_ask_for_calls() -> None:
    states = "ask: {type: chat, routes: [{when: not inputs, to: bad}, {when: reply.tool_calls, to: done}]}\n"
    states += "  bad: {type: end, status: failed, output: 7}\n"
    run = run_of(AROUND.replace("STATES", states), CALLS)
    assert run.outcome is not None
    assert (name_of(run), run.outcome.output) == ("flow.failed", 7)


ANSWERS = (
    TWICE
    + """\
states:
  ask: {type: chat, routes: [{when: reply.tool_calls, to: told}, {to: done}]}
  told: {type: chat, tools: [], messages: MESSAGES, next: done}
  done: {type: end, output: "{{ reply.content }}"}
"""
)
TWO = Reply(tool_calls=(call(call_id="a"), call("twice", "b")))


@pytest.mark.parametrize(
    ("messages", "answers"),
    [
        pytest.param("[{role: tool, content: x}, {role: tool, content: y}]", ["a", "b"], id="in their order"),
        pytest.param(
            '[{role: tool, content: x, tool_call_id: "{{ reply.tool_calls[1].id }}"}, {role: tool, content: y}]',
            ["b", "a"],
            id="by a template",
        ),
    ],
)
def test_messages_of_a_state_answer_the_calls_of_the_thread(messages: str, answers: list[str]) -> None:
    run = run_of(ANSWERS.replace("MESSAGES", messages), TWO)
    names = {"a": "add", "b": "twice"}
    told = [(message.tool_call_id, message.name) for message in run.threads["main"][2:]]
    assert told == [(one, names[one]) for one in answers]


LEAD = ": lead to a tools state of the thread, or answer each by a message of role tool"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        pytest.param(
            "[{role: tool, content: x}]",
            "the calls b must be answered before the model is asked" + LEAD,
            id="one is left open",
        ),
        pytest.param(
            "[{role: user, content: x}]",
            "the calls a, b must be answered before a message of role user" + LEAD,
            id="something else is said",
        ),
        pytest.param(
            "[{role: tool, content: x, tool_call_id: b}, {role: user, content: x}]",
            "the calls a must be answered before a message of role user" + LEAD,
            id="something else is said after one",
        ),
        pytest.param(
            "[{role: tool, content: x, tool_call_id: c}]",
            "a message of role tool answers 'c', but what waits for an answer is a, b: "
            "leave tool_call_id out to answer the oldest call",
            id="no such call",
        ),
        pytest.param(
            "[{role: tool, content: x}, {role: tool, content: y}, {role: tool, content: z}]",
            "a message of role tool answers no call: the thread does not end in a call that waits for an answer: "
            "put it behind the message that makes the call",
            id="too many",
        ),
    ],
)
def test_messages_of_a_state_that_do_not_fit_the_calls_of_the_thread(messages: str, message: str) -> None:
    run = run_of(ANSWERS.replace("MESSAGES", messages), TWO)
    failure = Failure(name="model.invalid_conversation", message=message, state="told")
    assert run.outcome == Outcome(status="failed", error=failure)
    assert run.rounds == 1


@pytest.mark.parametrize(
    ("ids", "made"),
    [
        pytest.param(("a", "b"), ["a", "b"], id="as they came"),
        pytest.param(("", ""), ["call00001", "call00002"], id="none"),
        pytest.param(("a", "a"), ["a", "call00002"], id="twice"),
        pytest.param(("a", "a", "a", ""), ["a", "call00002", "call00003", "call00004"], id="thrice"),
        pytest.param(("call00002", ""), ["call00002", "call00004"], id="one that would be the second's own"),
        pytest.param(("call00002", "a", "a"), ["call00002", "a", "call00003"], id="one of our form"),
    ],
)
def test_the_calls_of_a_reply_have_ids_that_differ(ids: tuple[str, ...], made: list[str]) -> None:
    run = run_of(FLOW.replace("CHOICE", "tools: [add]"), Reply(tool_calls=tuple(call(call_id=one) for one in ids)))
    called, *answers = run.threads["main"][1:]
    assert [one.id for one in called.tool_calls] == [one.tool_call_id for one in answers] == made


def test_a_tools_state_makes_the_calls_that_messages_have_not_answered() -> None:
    flow = (
        ADD
        + """\
messages:
  - {role: assistant, tool_calls: [{name: add, arguments: {a: 1, b: 2}}, {name: add, arguments: {a: 3, b: 4}}]}
  - {role: tool, content: "3"}
states: {act: {type: tools, next: done}, done: {type: end, output: "{{ results }}"}}
"""
    )
    run, effects, _ = fold(graph_of(flow), [BEGIN])
    assert [(effect.index, effect.arguments) for effect in effects if isinstance(effect, CallFunction)] == [
        (1, {"a": 3, "b": 4})
    ]
    run, _, _ = fold(graph_of(flow), [BEGIN, Returned(step=1, index=1, value=7)])
    assert [(message.content, message.tool_call_id) for message in run.threads["main"][1:]] == [
        ("3", "call00001"),
        ("7", "call00002"),
    ]
    assert run.results is not None
    assert [result["id"] for result in run.results.data()] == ["call00002"]
