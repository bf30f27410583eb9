"""Messages that are put onto threads: lists, values, answers to all calls, ``say``, threads that begin anew."""

from typing import Any

import pytest

from flowrun.core.events import AskModel, Event, Failed, Replied, Returned, Slept, Started
from flowrun.core.machine import Run, fold
from flowrun.core.messages import Image, Message, Reply, ToolCall
from flowrun.errors import Failure
from tests.flows import ADD, graph_of


def run_of(flow: str, *events: Event, inputs: dict[str, Any] | None = None) -> Run:
    """Return a run of a flow after some events."""
    return fold(graph_of(ADD, flow), [Started(run="r", inputs=inputs or {}), *events]).run


def said(run: Run, thread: str = "main") -> list[str]:
    """Return the messages of a thread, as ``role: content``; for a call, its id and arguments."""
    return [_said(message) for message in run.threads[thread]]


def _said(message: Message) -> str:
    calls = "".join(f" {call.id}{call.arguments}" for call in message.tool_calls)
    to = f" {message.tool_call_id}" if message.role == "tool" else ""
    return f"{message.role}{to}: {message.content}{calls}"


def calls(*ids: str) -> Reply:
    return Reply(tool_calls=tuple(ToolCall(id=id, name="add", arguments='{"a": 1, "b": 2}') for id in ids))


EXAMPLES = """\
inputs: {examples: {}, history: {default: []}}
messages:
  - {role: system, content: Add.}
  - for_each: inputs.examples
    as: e
    messages:
      - {role: user, content: "{{ index }}: {{ e.q }}"}
      - {role: assistant, tool_calls: [{name: add, arguments: "{{ e.a }}"}]}
      - {role: tool, content: "{{ e.r }}"}
  - {from: inputs.history}
states:
  ask: {type: chat, messages: [{role: user, content: Go.}], routes: [{when: reply.tool_calls, to: act}, {to: done}]}
  act: {type: tools, next: ask}
  done: {type: end, output: "{{ reply.content }}"}
""".replace('"{{ e.a }}"', '{a: "{{ e.a }}"}')


def test_messages_for_each_item_of_a_list() -> None:
    examples = [{"q": "one", "a": 1, "r": "uno"}, {"q": "two", "a": 2, "r": "due"}]
    assert said(run_of(EXAMPLES, inputs={"examples": examples, "history": []})) == [
        "system: Add.",
        "user: 0: one",
        'assistant: None call00001{"a": 1}',
        "tool call00001: uno",
        "user: 1: two",
        'assistant: None call00002{"a": 2}',
        "tool call00002: due",
        "user: Go.",
    ]


def test_a_list_of_none_gives_none() -> None:
    assert said(run_of(EXAMPLES, inputs={"examples": [], "history": []})) == ["system: Add.", "user: Go."]


HISTORY = [
    {"role": "user", "content": "Hi."},
    {"role": "assistant", "tool_calls": [{"id": "call00007", "name": "add", "arguments": {"a": 1}}, {"name": "add"}]},
    {"role": "tool", "content": "x", "tool_call_id": "call00007"},
    {"role": "tool", "content": "y"},
]


def test_messages_of_a_value_keep_their_ids_and_ours_skip_them() -> None:
    run = run_of(EXAMPLES, Replied(step=1, reply=calls("")), inputs={"examples": [], "history": HISTORY})
    assert said(run) == [
        "system: Add.",
        "user: Hi.",
        'assistant: None call00007{"a": 1} call00002',
        "tool call00007: x",
        "tool call00002: y",
        "user: Go.",
        'assistant: None call00008{"a": 1, "b": 2}',
    ]


@pytest.mark.parametrize(
    ("inputs", "failure"),
    [
        pytest.param(
            {"examples": 5, "history": []},
            Failure(name="template.failed", message="for_each gave 5, which is no list"),
            id="no list of items",
        ),
        pytest.param(
            {"examples": [], "history": "Hi"},
            Failure(name="input.invalid", message="the first messages: 'Hi' is no list of messages"),
            id="no list of messages",
        ),
        pytest.param(
            {
                "examples": [],
                "history": [{"role": "assistant", "tool_calls": [{"id": "c", "name": "add"}]}, HISTORY[0]],
            },
            Failure(
                name="input.invalid",
                message="the calls c must be answered before a message of role user: lead to a tools state of the "
                "thread, or answer each by a message of role tool",
            ),
            id="no conversation",
        ),
    ],
)
def test_first_messages_are_checked_when_the_run_starts(inputs: dict[str, Any], failure: Failure) -> None:
    run = run_of(EXAMPLES, inputs=inputs)
    assert run.outcome is not None
    assert (run.outcome.error, list(run.path)) == (failure, [])


def test_a_value_that_is_no_conversation_fails_the_state() -> None:
    run = run_of(
        """\
        inputs: {history: {}}
        states:
          ask: {type: chat, messages: [{from: inputs.history}], next: done, catch: [{to: caught}]}
          done: {type: end}
          caught: {type: end, output: "{{ error.name }}: {{ error.message }}; {{ threads.main | length }}"}
        """,
        inputs={"history": [{"role": "user", "content": 3}]},
    )
    assert run.outcome is not None
    assert run.outcome.output == (
        "model.invalid_conversation: message 1: content is no text and no list of parts but 3; 0"
    )


SAY = """\
inputs: {topic: {default: tea}}
threads: {critic: [{role: system, content: You judge.}]}
vars: {draft: ""}
messages: [{role: user, content: "{{ inputs.topic }}"}]
states:
  write:
    type: chat
    tools: []
    set: {draft: "{{ reply.content }}"}
    say:
      - {role: user, content: "Said {{ vars.draft }} after {{ threads.main | length }}."}
      - {thread: critic, messages: [{role: user, content: "Judge {{ threads.main[-1].content }}"}]}
      - {role: user, content: "{{ threads.critic | length }}"}
    routes: [{when: threads.main | length > 3, to: judge}]
  judge: {type: chat, thread: critic, tools: [], next: aside}
  aside: {type: route, say: [{role: user, content: "{{ reply.content }}"}], next: done}
  done: {type: end, output: "{{ threads }}"}
"""


def test_a_state_says_after_it_has_set_and_before_it_chooses() -> None:
    run = run_of(SAY, Replied(step=1, reply=Reply(content="T")), inputs={"topic": "tea"})
    assert run.state == "judge"
    assert said(run) == ["user: tea", "assistant: T", "user: Said T after 2.", "user: 2"]
    assert said(run, "critic") == ["system: You judge.", "user: Judge Said T after 2."]


def test_templates_see_threads() -> None:
    events = [Replied(step=1, reply=Reply(content="T")), Replied(step=2, reply=Reply(content="Good."))]
    run = run_of(SAY, *events, inputs={"topic": "tea"})
    assert run.outcome is not None
    empty: dict[str, Any] = {"tool_calls": [], "tool_call_id": None, "name": None}
    assert run.outcome.output["critic"][-1] == {"role": "assistant", "content": "Good.", **empty}
    assert [message["content"] for message in run.outcome.output["main"]][-1] == "Good."


def test_what_was_said_is_undone_when_no_route_matches() -> None:
    flow = SAY.replace("> 3", "> 4").replace("routes: [{when", "catch: [{to: done}]\n    routes: [{when")
    run = run_of(flow, Replied(step=1, reply=Reply(content="T")), inputs={"topic": "tea"})
    assert run.outcome is not None
    assert (len(run.outcome.output["main"]), len(run.outcome.output["critic"]), run.vars) == (1, 1, {"draft": ""})


ANSWER = """\
messages: [{role: user, content: Add.}]
states:
  ask: {type: chat, routes: [{when: reply.tool_calls, to: refuse}, {to: done}]}
  refuse:
    type: route
    say: SAY
    next: ask
  done: {type: end, output: "{{ reply.content }}"}
"""


@pytest.mark.parametrize(
    ("say", "expected"),
    [
        pytest.param(
            "[{role: tool, answers: all, content: 'No {{ run.step }}.'}, {role: user, content: Well?}]",
            ["tool a: No 2.", "tool b: No 2.", "user: Well?"],
            id="all calls",
        ),
        pytest.param(
            "[{role: tool, content: First.}, {role: tool, content: Second.}]",
            ["tool a: First.", "tool b: Second."],
            id="the oldest open one",
        ),
        pytest.param(
            "[{role: tool, content: '{{ 2 }}', tool_call_id: '{{ reply.tool_calls[1].id }}'},"
            " {role: tool, answers: all, content: rest}]",
            ["tool b: 2", "tool a: rest"],
            id="one by a template, then the rest",
        ),
        pytest.param(
            "[{for_each: reply.tool_calls, as: c, messages: [{role: tool, tool_call_id: '{{ c.id }}', content: x}]}]",
            ["tool a: x", "tool b: x"],
            id="each in a list",
        ),
        pytest.param(
            "[{from: \"[{'role': 'tool', 'content': 'x'}, {'role': 'tool', 'content': 'y', 'tool_call_id': 'b'}]\"}]",
            ["tool a: x", "tool b: y"],
            id="messages of a value",
        ),
    ],
)
def test_open_calls_are_answered(say: str, expected: list[str]) -> None:
    run = run_of(ANSWER.replace("SAY", say), Replied(step=1, reply=calls("a", "b")))
    assert (run.state, said(run)[2:]) == ("ask", expected)
    assert [message.name for message in run.threads["main"] if message.role == "tool"] == ["add", "add"]


def test_without_an_open_call_nothing_answers_all() -> None:
    flow = ANSWER.replace("SAY", "[{role: tool, answers: all, content: x}]").replace("reply.tool_calls", "'true'")
    assert said(run_of(flow, Replied(step=1, reply=Reply(content="Hm.")))) == ["user: Add.", "assistant: Hm."]


def test_only_answers_may_be_said_while_calls_are_open() -> None:
    run = run_of(ANSWER.replace("SAY", "[{role: user, content: Stop.}]"), Replied(step=1, reply=calls("a")))
    assert run.outcome is not None
    assert run.outcome.error == Failure(
        name="model.invalid_conversation",
        message="the calls a must be answered before a message of role user: lead to a tools state of the thread, or "
        "answer each by a message of role tool",
        state="refuse",
    )


def test_a_chat_answers_its_own_calls() -> None:
    run = run_of(
        """\
        messages: [{role: user, content: Add.}]
        states:
          ask: {type: chat, say: [{role: tool, answers: all, content: Never.}], next: again}
          again: {type: chat, tools: [], next: done}
          done: {type: end}
        """,
        Replied(step=1, reply=calls("a")),
    )
    assert (run.state, said(run)) == (
        "again",
        ["user: Add.", 'assistant: None a{"a": 1, "b": 2}', "tool a: Never."],
    )


REPLACE = """\
messages: [{role: user, content: Add.}]
states:
  ask: {type: chat, routes: [{when: reply.tool_calls, to: shorten}, {to: done}]}
  shorten:
    type: route
    say:
      - thread: main
        replace: true
        messages:
          - {role: user, content: "Of {{ threads.main | length }}."}
          - {from: "threads.main[:0]"}
    next: again
  again: {type: chat, tools: [], next: done}
  done: {type: end, output: "{{ reply.content }}"}
"""


def test_a_thread_begins_anew() -> None:
    run = run_of(REPLACE, Replied(step=1, reply=calls("a")))
    assert (run.state, said(run)) == ("again", ["user: Of 2."])
    assert (list(run.asked), run.unread) == (["main"], frozenset())
    ended = run_of(REPLACE, Replied(step=1, reply=calls("a")), Replied(step=3, reply=Reply(content="Well.")))
    assert ended.outcome is not None
    assert (ended.outcome.status, ended.outcome.output) == ("succeeded", "Well.")


def test_values_of_calls_are_forgotten_with_their_thread() -> None:
    flow = """\
        messages: [{role: user, content: Add.}]
        states:
          ask: {type: chat, next: act}
          act: {type: tools, on_error: raise, catch: [{to: anew}], next: done}
          anew:
            type: route
            say:
              - replace: true
                messages: [{from: "threads.main[:2]"}]
            next: act
          done: {type: end, output: "{{ results | length }}"}
        """
    failure = Failure(name="tool.failed", message="no")
    events: list[Event] = [
        Replied(step=1, reply=calls("a", "b")),
        Returned(step=2, index=0, value=3),
        Failed(step=2, index=1, failure=failure),
    ]
    run = run_of(flow, *events)
    assert (run.state, run.step, run.made, run.left) == ("act", 4, {}, 2)


def test_a_request_holds_what_was_said() -> None:
    graph = graph_of(ADD, SAY)
    started = Started(run="r", inputs={"topic": "tea"})
    effects = fold(graph, [started, Replied(step=1, reply=Reply(content="T"))]).effects
    assert [list(effect.messages) for effect in effects if isinstance(effect, AskModel)] == [
        [Message(role="system", content="You judge."), Message(role="user", content="Judge Said T after 2.")]
    ]


def test_a_failed_attempt_says_nothing() -> None:
    flow = SAY.replace("tools: []\n    set", "tools: []\n    retry: {max_attempts: 2}\n    set")
    failed = Failed(step=1, failure=Failure(name="backend.unavailable", message="gone"))
    run = run_of(flow, failed, Slept(step=2), Replied(step=2, reply=Reply(content="T")), inputs={"topic": "tea"})
    assert said(run) == ["user: tea", "assistant: T", "user: Said T after 2.", "user: 2"]


IMAGES = """\
inputs: {photo: {type: string}}
messages:
  - role: user
    content:
      [{text: "What of {{ inputs.photo | length }}?"}, {image: "https://example.invalid/a.png"},
      {image: "{{ inputs.photo }}"}]
  - {role: user, content: [{text: only}, {text: texts}]}
states:
  ask: {type: chat, say: [{from: threads.main}], next: done}
  done: {type: end}
"""

PNG = "data:image/png;base64,iVBORw0KGgo="


def test_a_message_has_texts_and_images() -> None:
    run = run_of(IMAGES, inputs={"photo": PNG})
    assert list(run.threads["main"]) == [
        Message(
            role="user",
            content=f"What of {len(PNG)}?\n[image]\n[image]",
            parts=(f"What of {len(PNG)}?", Image("https://example.invalid/a.png"), Image(PNG)),
        ),
        Message(role="user", content="only\ntexts"),
    ]


def test_the_image_of_a_template_is_a_data_uri() -> None:
    run = run_of(IMAGES, inputs={"photo": "http://intranet/a.png"})
    assert run.outcome is not None
    assert run.outcome.error == Failure(
        name="template.failed",
        message="content: an image must be a data: URI of an image, and is 'http://intranet/a.png'",
    )


def test_a_thread_with_images_can_be_passed_on() -> None:
    flow = IMAGES.replace('{image: "https://example.invalid/a.png"},', "")
    run = run_of(flow, Replied(step=1, reply=Reply(content="A cat.")), inputs={"photo": PNG})
    thread = list(run.threads["main"])
    assert (len(thread), thread[3:]) == (6, thread[:3])
