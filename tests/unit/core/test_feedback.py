"""``retry.feedback`` shows a model the reply that failed; ``say`` of a ``catch`` puts messages onto threads."""

import pytest
from msgspec import structs

from flowrun.core.events import AskModel, Event, Failed, Replied, SaidMessages, Sleep, Slept, Started
from flowrun.core.machine import Run, fold
from flowrun.core.messages import Message, Reply, Tokens, ToolCall
from flowrun.core.recovery import recover
from flowrun.errors import Failure
from flowrun.spec import parse_text
from tests.flows import ADD, HEADER, compile_spec, graph_of

BEGIN = Started(run="r", inputs={})
ASKED = Message(role="user", content="Give a number.")
FLOW = """\
messages: [{role: user, content: Give a number.}]
states:
  ask:
    type: chat
    response_format: {type: json_schema, schema: {type: integer}}
    retry: {max_attempts: 4, jitter: 0, feedback: "{{ error.attempt }}: {{ error.reply.content }} is wrong."}
    next: more
  more: {type: chat, messages: [{role: user, content: And another.}], next: done}
  done: {type: end}
"""
GRAPH = graph_of(FLOW)


def replied(content: str | None, *, step: int = 1, tokens: Tokens | None = None, **reply: object) -> Replied:
    return Replied(step=step, reply=Reply(content=content, tokens=tokens, **reply))  # type: ignore[arg-type]


def user(text: str) -> Message:
    return Message(role="user", content=text)


def said(text: str) -> Message:
    return Message(role="assistant", content=text)


def asked(*events: Event) -> tuple[Run, list[Message]]:
    """Return the run, and the messages that the model reads after the last event."""
    run, effects, _ = fold(GRAPH, [BEGIN, *events])
    (ask,) = (effect for effect in effects if isinstance(effect, AskModel))
    return run, list(ask.messages)


def test_the_next_attempt_reads_the_faulty_reply_and_what_is_wrong() -> None:
    run, messages = asked(replied("seven"), Slept(step=2))
    assert messages == [ASKED, said("seven"), user("1: seven is wrong.")]
    assert list(run.threads["main"]) == [ASKED]


def test_only_the_last_faulty_reply_is_read() -> None:
    _, messages = asked(replied("seven"), Slept(step=2), replied("eight", step=2), Slept(step=3))
    assert messages == [ASKED, said("eight"), user("2: eight is wrong.")]


def test_neither_is_kept() -> None:
    run, messages = asked(replied("seven"), Slept(step=2), replied("7", step=2))
    assert messages == [ASKED, said("7"), user("And another.")]
    assert run.state == "more"


def test_a_failure_without_a_reply_repeats_what_was_asked() -> None:
    busy = Failed(step=2, failure=Failure(name="backend.unavailable", message="busy"))
    _, messages = asked(replied("seven"), Slept(step=2), busy, Slept(step=3))
    assert messages == [ASKED, said("seven"), user("1: seven is wrong.")]


def test_a_first_failure_without_a_reply_has_no_feedback() -> None:
    busy = Failed(step=1, failure=Failure(name="backend.unavailable", message="busy"))
    assert asked(busy, Slept(step=2))[1] == [ASKED]


def test_the_faulty_reply_keeps_its_tokens() -> None:
    tokens = Tokens(vocabulary=1, ids=b"abcd", end=9, digest=3)
    _, messages = asked(replied("seven", tokens=tokens), Slept(step=2))
    assert messages[1].tokens == tokens


@pytest.mark.parametrize(
    ("reply", "shown"),
    [
        pytest.param(
            Reply(content="Well.", tool_calls=(ToolCall(id="c", name="add", arguments='{"a": 1}'),)),
            [said('Well.\nadd({"a": 1})')],
            id="calls that no state handles",
        ),
        pytest.param(
            Reply(text="<tool>add</tool>", tool_calls=(ToolCall(id="c", name="add", arguments="{}"),)),
            [said("<tool>add</tool>")],
            id="the text of calls",
        ),
        pytest.param(Reply(content="<tool>", invalid_call="broken"), [said("<tool>")], id="a broken call"),
        pytest.param(Reply(), [], id="nothing"),
    ],
)
def test_no_call_of_a_faulty_reply_is_open_in_the_prompt(reply: Reply, shown: list[Message]) -> None:
    _, messages = asked(Replied(step=1, reply=reply), Slept(step=2))
    assert messages[:-1] == [ASKED, *shown]
    assert messages[-1].role == "user"
    assert all(not message.tool_calls for message in messages)


def test_a_run_that_is_resumed_asks_the_same() -> None:
    events: list[Event] = [BEGIN, replied("seven"), Slept(step=2)]
    (ask,) = recover(GRAPH, events).effects
    assert isinstance(ask, AskModel)
    assert list(ask.messages) == [ASKED, said("seven"), user("1: seven is wrong.")]
    assert recover(GRAPH, events[:2]).effects == (Sleep(step=2, seconds=1.0),)


def test_an_agent_gets_feedback_about_its_turn_only() -> None:
    graph = graph_of(
        ADD,
        """\
        messages: [{role: user, content: Give a number.}]
        states:
          act: {type: agent, retry: {jitter: 0, feedback: "Once more."}, next: done}
          done: {type: end}
        """,
    )
    call = Reply(tool_calls=(ToolCall(id="c", name="other", arguments="{}"),))
    events: list[Event] = [BEGIN, replied("cut", finish_reason="length"), Slept(step=2), Replied(step=2, reply=call)]
    _, effects, _ = fold(graph, events[:3])
    assert isinstance(effects[0], AskModel)
    assert list(effects[0].messages) == [ASKED, said("cut"), user("Once more.")]
    _, effects, _ = fold(graph, events)
    assert isinstance(effects[0], AskModel)
    assert [message.role for message in effects[0].messages] == ["user", "assistant", "tool"]


def test_a_decision_gets_feedback_behind_its_question() -> None:
    graph = graph_of("""
    messages: [{role: user, content: Give a number.}]
    states:
      pick: {type: decide, prompt: Which?, choices: [a, b], retry: {jitter: 0, feedback: "A letter."}, next: done}
      done: {type: end}
    """)
    _, effects, _ = fold(graph, [BEGIN, replied("Hm."), Slept(step=2)])
    assert isinstance(effects[0], AskModel)
    assert list(effects[0].messages)[2:] == [said("Hm."), user("A letter.")]


TOKENS = Tokens(vocabulary=1, ids=b"abcd", end=9, digest=3)
CALL = ToolCall(id="c", name="add", arguments="{}")
STATES = {
    "chat": "{type: chat, retry: {jitter: 0, feedback: Once more.}, next: done}",
    "decide": "{type: decide, prompt: Which?, choices: [a, b], retry: {jitter: 0, feedback: Once more.}, next: done}",
}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
@pytest.mark.parametrize(
    ("reasoning", "reply", "shown"),
    [
        pytest.param(
            "keep",
            Reply(content="Hm.", reasoning="So.", tokens=TOKENS),
            Message(role="assistant", content="Hm.", reasoning="So.", tokens=TOKENS),
            id="keep",
        ),
        pytest.param(
            "drop",
            Reply(content="Hm.", reasoning="So.", tokens=TOKENS),
            Message(role="assistant", content="Hm.", tokens=structs.replace(TOKENS, ids=b"")),
            id="drop: neither its text nor its tokens",
        ),
        pytest.param("drop", Reply(content="Hm."), said("Hm."), id="drop: there is none"),
        pytest.param(
            "keep",
            Reply(content="Hm.", reasoning="So.", text="<think>So.</think>Hm.<call>", tool_calls=(CALL,)),
            said("<think>So.</think>Hm.<call>"),
            id="keep: the text of calls",
        ),
        pytest.param(
            "drop",
            Reply(content="Hm.", reasoning="So.", text="<think>So.</think>Hm.<call>", tool_calls=(CALL,)),
            said("Hm.\nadd({})"),
            id="drop: the text of calls",
        ),
    ],
)
def test_the_reasoning_of_the_faulty_reply(state: str, reasoning: str, reply: Reply, shown: Message) -> None:
    header = HEADER.replace("name: replies.yaml", f"name: replies.yaml, reasoning: {reasoning}")
    graph = compile_spec(parse_text(f"{header}states:\n  ask: {state}\n  done: {{type: end}}\n").spec)
    faulty = structs.replace(reply, finish_reason="length")
    _, (ask, *_), _ = fold(graph, [BEGIN, Replied(step=1, reply=faulty), Slept(step=2)])
    assert isinstance(ask, AskModel)
    assert list(ask.messages)[-2:] == [shown, user("Once more.")]


# --- say ----------------------------------------------------------------------------------------------------------


def test_a_catch_says_messages_after_it_has_set_variables() -> None:
    graph = graph_of("""
    vars: {tries: 0}
    messages: [{role: user, content: Give a number.}]
    threads: {notes: []}
    states:
      ask:
        type: chat
        catch:
          - set: {tries: "{{ vars.tries + 1 }}"}
            say:
              - {role: user, content: "{{ vars.tries }}: {{ error.name }}"}
              - {thread: notes, messages: [{role: user, content: "{{ error.reply.content }}"}]}
            to: ask
        next: done
      done: {type: end}
    """)
    run, effects, moves = fold(graph, [BEGIN, replied("Once", finish_reason="length")])
    assert isinstance(effects[0], AskModel)
    assert list(effects[0].messages) == [ASKED, user("1: model.truncated")]
    assert list(run.threads["notes"]) == [user("Once")]
    assert moves[0].said == (
        SaidMessages(thread="main", messages=(user("1: model.truncated"),)),
        SaidMessages(thread="notes", messages=(user("Once"),)),
    )


def test_a_catch_that_cannot_say_its_messages_changes_nothing() -> None:
    graph = graph_of("""
    vars: {tries: 0}
    messages: [{role: user, content: Give a number.}]
    states:
      ask:
        type: chat
        catch:
          - {set: {tries: 7}, say: [{role: user, content: Hm.}, {role: tool, content: No., tool_call_id: x}], to: ask}
          - {errors: [model.invalid_conversation], to: done}
        next: done
      done: {type: end, output: "{{ vars.tries }}"}
    """)
    run, _, _ = fold(graph, [BEGIN, replied("Once", finish_reason="length")])
    assert (run.outcome and run.outcome.output, list(run.threads["main"])) == (0, [ASKED])
