"""Scripted replies are returned in order, to matching requests; a script's mistake is no failure of the model."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowrun.backends.scripted import ScriptedBackend, ScriptedCall, ScriptedReply, ScriptExhausted, load_replies
from flowrun.core.events import AskModel
from flowrun.core.messages import Message, Reply, ToolCall
from flowrun.core.ports import ModelBackend
from flowrun.errors import BackendError, FlowrunError, ModelError, RunError
from tests.unit.backends.contract import CALL, Live, ModelBackendContract, ask, obliging, started


class TestContract(ModelBackendContract):
    @pytest.fixture
    def fresh(self) -> ModelBackend:
        return ScriptedBackend.from_function(obliging)

    @pytest.fixture
    def live(self, fresh: ModelBackend) -> Iterator[Live]:
        with started(fresh) as live:
            yield live


def reply_to(backend: ScriptedBackend, *requests: AskModel) -> list[Reply]:
    async def all_in_turn() -> list[Reply]:
        return [await backend.reply(request) for request in requests]

    return asyncio.run(all_in_turn())


@pytest.mark.parametrize(
    ("scripted", "expected"),
    [
        pytest.param(ScriptedReply(content="Hi."), Reply(content="Hi."), id="text"),
        pytest.param(Reply(content="Hi.", reasoning="Hm."), Reply(content="Hi.", reasoning="Hm."), id="a reply itself"),
        pytest.param(
            ScriptedReply(tool_calls=(ScriptedCall(name="get_weather", arguments={"city": "Dallas"}, id=CALL.id),)),
            Reply(tool_calls=(CALL,), finish_reason="tool_calls"),
            id="call",
        ),
        pytest.param(
            ScriptedReply(tool_calls=(ScriptedCall(name="f", arguments='{"city": '),), finish_reason="length"),
            Reply(tool_calls=(ToolCall(id="", name="f", arguments='{"city": '),), finish_reason="length"),
            id="call that was cut",
        ),
    ],
)
def test_replies_as_scripted(scripted: ScriptedReply | Reply, expected: Reply) -> None:
    assert reply_to(ScriptedBackend([scripted]), ask()) == [expected]


def test_a_watched_text_comes_in_words() -> None:
    pieces: list[str | None] = []
    text = "It is fair,\n and 85 degrees.\n"
    assert asyncio.run(ScriptedBackend([ScriptedReply(content=text)]).reply(ask(), on_text=pieces.append)) == Reply(
        content=text
    )
    assert pieces == ["It", " is", " fair,", "\n and", " 85", " degrees.", "\n"]


@pytest.mark.parametrize(
    ("scripted", "message"),
    [
        pytest.param(ScriptedReply(error="backend.unavailable", message="it is off"), "it is off", id="own message"),
        pytest.param(
            ScriptedReply(error="backend.unavailable"),
            "the model's backend could not be reached, or died",
            id="the failure's meaning",
        ),
    ],
)
def test_fails_as_scripted(scripted: ScriptedReply, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        reply_to(ScriptedBackend([scripted]), ask())
    assert (caught.value.name, caught.value.message) == ("backend.unavailable", message)


def test_an_error_must_be_a_failures_name() -> None:
    with pytest.raises(ValueError, match=r"error 'backend.unavailible' is no failure's name; did you mean"):
        ScriptedReply(error="backend.unavailible")


def test_returns_the_first_unused_reply_that_fits() -> None:
    backend = ScriptedBackend(
        [
            ScriptedReply(content="for many", when=lambda request: len(request.messages) > 1),
            ScriptedReply(content="first"),
            ScriptedReply(content="second"),
        ]
    )
    long = ask([Message(role="user", content="a"), Message(role="user", content="b")])
    assert [reply.content for reply in reply_to(backend, ask(), long)] == ["first", "for many"]
    assert backend.unused == (ScriptedReply(content="second"),)


def test_a_missing_reply_is_no_failure_of_the_model() -> None:
    backend = ScriptedBackend([ScriptedReply(content="1"), ScriptedReply(content="2", when=lambda request: False)])
    with pytest.raises(ScriptExhausted) as caught:
        reply_to(backend, ask(), ask())
    assert isinstance(caught.value, FlowrunError)
    assert not isinstance(caught.value, RunError)
    assert str(caught.value) == (
        "the script has no reply for state 'ask' of run 'r1': 1 of 2 replies are used, and `when` holds for none of "
        "the others; the last message is user: 'What is the weather in Dallas?'; "
        "add a reply, or see why the flow asks again"
    )


@pytest.mark.parametrize(
    ("messages", "shown"),
    [
        pytest.param([], "the thread is empty", id="none"),
        pytest.param([Message(role="assistant", tool_calls=(CALL,))], "assistant: 'get_weather(...)'", id="calls"),
        pytest.param([Message(role="user", content="x" * 300)], f"user: '{'x' * 200} ...'", id="long"),
    ],
)
def test_shows_the_last_message(messages: list[Message], shown: str) -> None:
    with pytest.raises(ScriptExhausted) as caught:
        reply_to(ScriptedBackend([]), ask(messages))
    assert shown in str(caught.value)


@pytest.mark.parametrize(("record", "seen"), [(True, [ask()]), (False, [])])
@pytest.mark.parametrize("simulated", [False, True], ids=["script", "function"])
def test_records_the_requests_by_default(record: bool, seen: list[AskModel], simulated: bool) -> None:
    backend = (
        ScriptedBackend.from_function(obliging, record=record)
        if simulated
        else ScriptedBackend([ScriptedReply()], record=record)
    )
    reply_to(backend, ask())
    assert backend.requests == seen


def test_waits_by_its_own_sleep_function() -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    reply_to(ScriptedBackend([ScriptedReply(delay=3.5), ScriptedReply()], sleep=sleep), ask(), ask())
    assert waited == [3.5]


def test_a_reply_is_chosen_at_its_request_not_after_its_delay() -> None:
    async def go() -> list[str | None]:
        released = asyncio.Event()

        async def sleep(seconds: float) -> None:
            await released.wait()

        backend = ScriptedBackend([ScriptedReply(content="slow", delay=1), ScriptedReply(content="quick")], sleep=sleep)
        slow = asyncio.create_task(backend.reply(ask()))
        await asyncio.sleep(0)
        quick = await backend.reply(ask())
        released.set()
        return [quick.content, (await slow).content]

    assert asyncio.run(go()) == ["quick", "slow"]


def test_a_function_may_be_async() -> None:
    async def reply_with_state(request: AskModel) -> Reply:
        return Reply(content=request.state)

    assert reply_to(ScriptedBackend.from_function(reply_with_state), ask()) == [Reply(content="ask")]


WRITTEN = [
    ScriptedReply(tool_calls=(ScriptedCall(name="f", arguments={"country": "NO", "on": True}),)),
    ScriptedReply(content="yes", delay=1.5),
    ScriptedReply(content="It is", finish_reason="length", delay=2),
    ScriptedReply(error="backend.unavailable", message="it is off", delay=0.25),
]
LIST = """\
replies:
- tool_calls: [{name: f, arguments: {country: NO, on: true}}]
- {content: yes, delay: 1.5}
- {content: It is, finish_reason: length, delay: 2s}
- {error: backend.unavailable, message: it is off, delay: 250ms}
"""


def test_loads_replies_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "replies.yaml").write_text(LIST)
    assert load_replies(tmp_path / "replies.yaml") == WRITTEN


def test_replies_with_conditions_and_without_end(tmp_path: Path) -> None:
    (tmp_path / "replies.yaml").write_text(
        "replies:\n"
        "- {content: a, when: request.state == 'other'}\n"
        "- {content: c, when: request.messages | length == 1, repeat: true}\n"
    )
    backend = ScriptedBackend(load_replies(tmp_path / "replies.yaml"))
    assert reply_to(backend, ask()) == [Reply(content="c")]
    assert reply_to(backend, ask()) == [Reply(content="c")]
    assert [reply.content for reply in backend.unused if isinstance(reply, ScriptedReply)] == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            None, "{file}: the scripted replies cannot be read: No such file or directory; see model.name", id="no file"
        ),
        pytest.param("[]", "{file}: must be a mapping with one key, `replies`, that holds a list", id="no list"),
        pytest.param("", "{file}: must be a mapping with one key, `replies`, that holds a list", id="empty"),
        pytest.param(
            "replies:\n- hello",
            "{file}:2:3: reply 1: must be a mapping such as {{content: ...}}, and is 'hello'",
            id="no mapping",
        ),
        pytest.param(
            "replies:\n- {content: a}\n- {contents: b}\n- {error: oops}",
            "{file}:3:3: reply 2: Object contains unknown field `contents`\n"
            "{file}:4:3: reply 3: error 'oops' is no failure's name; NAMES",
            id="two mistakes",
        ),
        pytest.param(
            "replies:\n  - tool_calls: [{name: 1}]",
            "{file}:2:5: reply 1: Expected `str`, got `int` - at `$.tool_calls[0].name`",
            id="deep",
        ),
        pytest.param(
            "replies:\n- {content: a, delay: soon}",
            "{file}:2:3: reply 1: 'soon' is no duration: write a number of seconds, or a number and ms, s, m, h or d",
            id="no duration",
        ),
        pytest.param(
            "replies:\n- {content: a, when: 'b ='}",
            "{file}:2:3: reply 1: in 'b =': expected token ')', got '='",
            id="when",
        ),
        pytest.param(
            "replies:\n- {text: <tool_call>}",
            "{file}:2:3: reply 1: `text` needs a model family's parser, which a script has not; "
            "give content and tool_calls",
            id="text",
        ),
    ],
)
def test_reports_the_faults_of_a_file(tmp_path: Path, text: str | None, message: str) -> None:
    file = tmp_path / "replies.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(BackendError) as caught:
        load_replies(file)
    reported, _, _ = str(caught.value).partition("the names are: ")
    assert reported == message.format(file=file).removesuffix("NAMES")


def test_a_file_that_is_no_yaml_is_reported_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "replies.yaml"
    file.write_text("replies:\n- content: a\n- content: [b\n")
    with pytest.raises(BackendError, match=r"replies\.yaml:\d+:\d+: "):
        load_replies(file)
