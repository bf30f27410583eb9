"""How a chat state reads its thread: ``system``, ``history``, and threads that began anew."""

from typing import Any

import pytest

from flowrun.core.events import AskModel, Event, Failed, Replied, Returned, Slept, Started
from flowrun.core.machine import fold
from flowrun.core.messages import Log, Message, Reply, ToolCall
from flowrun.errors import Failure
from tests.flows import ADD, graph_of


def asked(flow: str, *events: Event, inputs: dict[str, Any] | None = None) -> AskModel:
    """Return the request that follows some events."""
    effects = fold(graph_of(ADD, flow), [Started(run="r", inputs=inputs or {}), *events]).effects
    (request,) = effects
    assert isinstance(request, AskModel)
    return request


def texts(messages: Log[Message] | None) -> list[str]:
    return [f"{message.role}: {message.content}" for message in messages or ()]


def reply(step: int, content: str) -> Replied:
    return Replied(step=step, reply=Reply(content=content))


SYSTEM = """\
inputs: {tone: {default: kind}}
messages: [{role: system, content: Always.}, {role: user, content: Hi.}]
states:
  first: {type: chat, system: "Be {{ inputs.tone }}.", next: then}
  then: {type: chat, messages: [{role: user, content: More.}], next: done}
  done: {type: end, output: "{{ threads.main | length }}"}
"""


def test_a_system_message_stands_in_the_request_only() -> None:
    first = asked(SYSTEM, inputs={"tone": "brief"})
    assert texts(first.messages) == ["system: Be brief.", "user: Hi."]
    assert texts(first.previous) == ["system: Always.", "user: Hi."]
    then = asked(SYSTEM, reply(1, "Yo."), inputs={"tone": "brief"})
    assert texts(then.messages) == ["system: Always.", "user: Hi.", "assistant: Yo.", "user: More."]
    assert then.previous is None


def test_a_system_message_that_cannot_be_rendered_fails_the_state() -> None:
    flow = SYSTEM.replace("inputs.tone", "outputs.then.content")
    run = fold(graph_of(ADD, flow), [Started(run="r", inputs={"tone": "brief"})]).run
    assert run.outcome is not None
    assert run.outcome.error is not None
    assert (run.outcome.error.name, run.outcome.error.state, len(run.threads["main"])) == (
        "template.failed",
        "first",
        2,
    )


LOOP = """\
messages: [{role: user, content: Go.}]
states:
  ask: {type: chat, history: {last: 2.0}, next: more}
  more: {type: route, say: [{role: user, content: "Again {{ run.step }}."}], next: ask}
limits: {max_rounds: 20}
"""


def test_a_window_is_cut_in_blocks() -> None:
    lengths = []
    for rounds in range(8):
        events = [reply(1 + 2 * number, f"{number}") for number in range(rounds)]
        request = asked(LOOP, *events)
        lengths.append(len(request.messages))
        assert texts(request.messages)[0] == "user: Go."
        assert (request.previous is None) == (len(request.messages) == 1 + 2 * rounds)
    assert lengths == [1, 3, 5, 5, 3, 5, 5, 3]


ALONE = """\
messages: [{role: system, content: Always.}, {role: user, content: Hi.}]
states:
  first: {type: chat, next: judge}
  judge:
    type: chat
    history: none
    system: Judge.
    messages: [{from: "threads.main[-1:]"}, {role: user, content: Good?}]
    retry: {max_attempts: 2}
    next: done
  done: {type: end, output: "{{ threads.main | length }}"}
"""


def test_without_history_a_state_reads_its_own_messages() -> None:
    request = asked(ALONE, reply(1, "Yo."))
    expected = ["system: Judge.", "assistant: Yo.", "user: Good?"]
    assert texts(request.messages) == expected
    failed = Failed(step=2, failure=Failure(name="backend.unavailable", message="gone"))
    again = asked(ALONE, reply(1, "Yo."), failed, Slept(step=3))
    assert texts(again.messages) == expected


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        pytest.param(
            '[{from: "[]"}]', "there is nothing to read: history is none, and the state has no messages", id="none"
        ),
        pytest.param(
            "[{role: tool, content: x}, {role: user, content: y}]",
            "a message of role tool answers no call: the thread does not end in a call that waits for an answer: put "
            "it behind the message that makes the call",
            id="an answer",
        ),
    ],
)
def test_what_cannot_be_asked_alone_fails_the_state(messages: str, message: str) -> None:
    flow = f"""\
        messages: [{{role: user, content: Add.}}]
        states:
          ask: {{type: chat, next: alone}}
          alone: {{type: chat, history: none, messages: {messages}, next: done, catch: [{{to: done}}]}}
          done: {{type: end, output: "{{{{ error.name }}}}: {{{{ error.message }}}}"}}
        """
    call = ToolCall(id="a", name="add", arguments="{}")
    answers = "role: tool" in messages
    replied = Replied(step=1, reply=Reply(tool_calls=(call,)) if answers else Reply(content="x"))
    run = fold(graph_of(ADD, flow), [Started(run="r", inputs={}), replied]).run
    assert run.outcome is not None
    assert run.outcome.output == f"model.invalid_conversation: {message}"


ANEW = """\
messages: [{role: user, content: Add.}]
states:
  ask: {type: chat, tools: [], next: shorten}
  shorten: {type: route, say: [{replace: true, messages: [{role: user, content: Short.}]}], next: again}
  again: {type: chat, tools: [], retry: {max_attempts: 2}, next: more}
  more: {type: chat, tools: [], next: done}
  done: {type: end}
"""


def test_the_first_requests_of_a_thread_that_began_anew_know_what_the_model_read_before() -> None:
    before = ["user: Add.", "assistant: 3"]
    failed = Failed(step=3, failure=Failure(name="backend.unavailable", message="gone"))
    for request in (asked(ANEW, reply(1, "3")), asked(ANEW, reply(1, "3"), failed, Slept(step=4))):
        assert (texts(request.messages), texts(request.previous)) == (["user: Short."], before)
    more = asked(ANEW, reply(1, "3"), reply(3, "4"))
    assert (texts(more.messages), more.previous) == (["user: Short.", "assistant: 4"], None)


def test_a_thread_that_nobody_asked_about_leaves_nothing_behind() -> None:
    flow = ANEW.replace("states:\n", "states:\n  begin: {type: route, next: shorten}\n")
    request = asked(flow)
    assert (texts(request.messages), request.previous) == (["user: Short."], None)


def test_a_state_that_reads_its_thread_as_it_is_gets_the_thread_itself() -> None:
    graph = graph_of(ADD, "messages: [{role: user, content: a}]\n", "states: {ask: {type: chat, next: ask}}\n")
    run, effects, _ = fold(graph, [Started(run="r", inputs={}), reply(1, "x")])
    (request,) = effects
    assert isinstance(request, AskModel)
    assert request.messages is run.threads["main"]


def test_values_are_returned_to_a_window_with_their_calls() -> None:
    flow = """\
        messages: [{role: user, content: Add.}]
        states:
          ask: {type: chat, history: {last: 1}, next: act}
          act: {type: tools, next: ask}
        """
    calls = tuple(ToolCall(id=id, name="add", arguments='{"a": 1, "b": 2}') for id in ("a", "b"))
    events: list[Event] = []
    for step in (1, 3, 5):
        events += [Replied(step=step, reply=Reply(tool_calls=calls))]
        events += [Returned(step=step + 1, index=index, value=index) for index in (0, 1)]
    request = asked(flow, *events)
    assert [message.role for message in request.messages] == ["user", "assistant", "tool", "tool"]


def test_an_agent_without_history_reads_all_of_its_own_visit() -> None:
    flow = """\
        messages: [{role: user, content: Before.}]
        states:
          first: {type: chat, tools: [], next: team}
          team: {type: agent, system: Work., history: none, messages: [{role: user, content: Add.}], next: done}
          done: {type: end}
        """
    call = ToolCall(id="a", name="add", arguments='{"a": 1, "b": 2}')
    events: list[Event] = [
        reply(1, "x"),
        Replied(step=2, reply=Reply(tool_calls=(call,))),
        Returned(step=3, index=0, value=3),
    ]
    assert texts(asked(flow, *events).messages) == ["system: Work.", "user: Add.", "assistant: None", "tool: 3"]
