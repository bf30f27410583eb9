"""Data becomes messages: what the OpenAI chat API takes, and what templates see of a thread."""

from typing import Any

import pytest

from flowrun.core.chat_messages import MessagesError, parse_messages
from flowrun.core.messages import Image, Message, ToolCall

PNG = "data:image/png;base64,iVBORw0KGgo="
LOOK = ToolCall(id="c1", name="look", arguments='{"at": "é"}')


@pytest.mark.parametrize(
    ("value", "messages"),
    [
        pytest.param([], (), id="none"),
        pytest.param(
            [{"role": "system", "content": "a"}, {"role": "developer", "content": "b"}],
            (Message(role="system", content="a"), Message(role="developer", content="b")),
            id="texts",
        ),
        pytest.param(
            [{"role": "user", "content": [{"type": "text", "text": "a"}, {"text": "b"}, "c"], "name": "Ann"}],
            (Message(role="user", content="abc", name="Ann"),),
            id="parts",
        ),
        pytest.param(
            [
                {
                    "role": "assistant",
                    "content": None,
                    "refusal": None,
                    "audio": None,
                    "function_call": None,
                    "annotations": [],
                    "tool_calls": [
                        {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "é"}'}}
                    ],
                },
                {"role": "tool", "tool_call_id": "c1", "content": "seen"},
            ],
            (Message(role="assistant", tool_calls=(LOOK,)), Message(role="tool", tool_call_id="c1", content="seen")),
            id="as a server answers, with null members",
        ),
        pytest.param(
            [
                {
                    "role": "assistant",
                    "tool_calls": [{"id": "c1", "function": {"name": "look", "arguments": {"at": "é"}}}],
                }
            ],
            (Message(role="assistant", tool_calls=(LOOK,)),),
            id="arguments as a mapping",
        ),
        pytest.param(
            [
                {
                    "role": "assistant",
                    "content": "so",
                    "tool_calls": [{"id": "c1", "name": "look", "arguments": {"at": "é"}}, {"name": "sit"}],
                    "tool_call_id": None,
                    "name": None,
                }
            ],
            (Message(role="assistant", content="so", tool_calls=(LOOK, ToolCall(id="", name="sit", arguments=""))),),
            id="as templates see a thread; a call without id and arguments",
        ),
        pytest.param(
            [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": PNG}}],
                }
            ],
            (Message(role="user", content="a\n[image]", parts=("a", Image(PNG))),),
            id="an image",
        ),
        pytest.param(
            [{"role": "assistant", "content": None, "refusal": "No."}],
            (Message(role="assistant", content="No."),),
            id="a refusal is what was said",
        ),
        pytest.param(
            [{"role": "assistant", "content": "4", "reasoning_content": "2 + 2"}],
            (Message(role="assistant", content="4", reasoning="2 + 2"),),
            id="reasoning",
        ),
    ],
)
def test_a_list_of_messages_is_read(value: Any, messages: tuple[Message, ...]) -> None:
    assert parse_messages(value) == messages


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        pytest.param("Hi", "'Hi' is no list of messages", id="a text"),
        pytest.param(None, "null is no list of messages", id="null"),
        pytest.param(["Hi"], "message 1 is no mapping but 'Hi'", id="a list of texts"),
        pytest.param(
            [{"content": "a"}],
            "message 1 has no role: it must be one of system, developer, user, assistant, tool",
            id="no role",
        ),
        pytest.param(
            [{"role": "user", "content": "a"}, {"role": "function", "content": "b"}],
            "message 2 has the role 'function': it must be one of system, developer, user, assistant, tool",
            id="an unknown role",
        ),
        pytest.param(
            [{"role": "user", "content": 5}], "message 1: content is no text and no list of parts but 5", id="n"
        ),
        pytest.param([{"role": "user"}], "message 1, of role user, has no content", id="no content"),
        pytest.param(
            [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}],
            "message 1, part 1 is of type 'input_audio': only texts and images can be kept",
            id="an unknown part",
        ),
        pytest.param(
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://intranet/a.png"}}]}],
            "message 1, part 1: an image must be a data: URI of an image, and is 'http://intranet/a.png'",
            id="an image elsewhere",
        ),
        pytest.param([{"role": "user", "content": [{"type": "text"}]}], "message 1, part 1 has no text", id="no text"),
        pytest.param(
            [{"role": "assistant", "content": "a", "function_call": {"name": "f", "arguments": "{}"}}],
            "message 1 has the member 'function_call', which cannot be kept: write it as tool_calls",
            id="a call in the older form",
        ),
        pytest.param(
            [{"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}],
            "message 1, call 1 names no function",
            id="a call of nothing",
        ),
        pytest.param([{"role": "assistant", "tool_calls": 1}], "message 1: tool_calls is no list but 1", id="one call"),
        pytest.param(
            [{"role": "user", "content": "a", "tool_calls": [{"name": "f"}]}],
            "message 1 has tool_calls, and its role is user: only an assistant calls tools",
            id="a user that calls",
        ),
        pytest.param(
            [{"role": "user", "content": "a", "tool_call_id": "c"}],
            "message 1 has a tool_call_id, and its role is user: only a tool answers a call",
            id="a user that answers",
        ),
        pytest.param(
            [{"role": "tool", "content": "a", "tool_call_id": 7}],
            "message 1: tool_call_id is no text but 7",
            id="an id",
        ),
    ],
)
def test_what_is_no_message_is_refused_by_name(value: Any, fault: str) -> None:
    with pytest.raises(MessagesError) as refused:
        parse_messages(value)
    assert str(refused.value) == fault
