"""Requests of the chat API are read strictly, and what no flow can honour is refused by its name."""

from typing import Any

import msgspec
import pytest

from flowrun.serving.api_errors import ApiError
from flowrun.serving.chat_request import parse_request

USER = {"role": "user", "content": "Hi"}


def request(**members: Any) -> bytes:
    return msgspec.json.encode({"model": "desk", "messages": [USER], **members})


def test_a_request_has_its_model_messages_and_metadata() -> None:
    earlier = [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]
    parts = [{"type": "text", "text": "C"}, {"type": "text", "text": "D"}]
    last = {"role": "user", "content": parts}
    read = parse_request(
        request(
            messages=[*earlier, last],
            metadata={"a": "1"},
            stream=True,
            stream_options={"include_usage": True},
            user="u",
        )
    )
    assert (read.model, read.stream, read.include_usage, read.has_images) == ("desk", True, True, False)
    assert read.seen == {"content": "CD", "messages": [*earlier, last], "metadata": {"a": "1"}}


@pytest.mark.parametrize(
    "members",
    [
        pytest.param({"temperature": None, "tools": None, "stream": None, "metadata": None}, id="null"),
        pytest.param({"n": 1, "tools": [], "tool_choice": "none", "response_format": {"type": "text"}}, id="no wish"),
        pytest.param({"store": False, "logprobs": False, "service_tier": "auto", "logit_bias": {}}, id="defaults"),
    ],
)
def test_what_asks_for_nothing_is_accepted(members: dict[str, Any]) -> None:
    assert parse_request(request(**members)).seen["content"] == "Hi"


@pytest.mark.parametrize(
    ("members", "param", "message"),
    [
        pytest.param({"temperature": 0.5}, "temperature", "cannot honour 'temperature'", id="sampling"),
        pytest.param({"n": 2}, "n", "cannot honour 'n'", id="several"),
        pytest.param({"tools": [{"type": "function"}]}, "tools", "cannot honour 'tools'", id="tools"),
        pytest.param({"response_format": {"type": "json_object"}}, "response_format", "cannot", id="form"),
        pytest.param({"new_wish": 1}, "new_wish", "cannot honour 'new_wish'", id="unknown"),
        pytest.param({"model": 3}, "model", "model must be a text", id="model"),
        pytest.param({"model": None}, "model", "model is missing", id="no model"),
        pytest.param({"messages": None}, "messages", "messages is missing", id="no messages"),
        pytest.param({"messages": []}, "messages", "messages is empty", id="empty"),
        pytest.param({"messages": [{"role": "bot", "content": "x"}]}, "messages", "message 1 has the role", id="role"),
        pytest.param({"messages": [USER, {"role": "assistant", "content": "x"}]}, "messages", "user's", id="last"),
        pytest.param({"messages": [{"role": "user"}]}, "messages", "has no content", id="content"),
        pytest.param({"metadata": "x"}, "metadata", "metadata must be an object", id="metadata"),
        pytest.param({"stream": "yes"}, "stream", "stream must be true or false", id="stream"),
        pytest.param({"stream_options": {"x": 1}}, "stream_options", "stream_options.x", id="stream options"),
    ],
)
def test_what_is_wrong_is_named(members: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(ApiError, match=message) as raised:
        parse_request(request(**members))
    assert (raised.value.param, raised.value.status) == (param, 400)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        pytest.param(b"", "no JSON", id="empty"),
        pytest.param(b"[]", "no JSON object", id="list"),
        pytest.param(b"\xff", "no JSON", id="no text"),
        pytest.param(b'{"model": NaN}', "NaN", id="nan"),
        pytest.param(b"[" * 100_000, "no JSON", id="deep"),
        pytest.param(rb'{"model": "\ud800"}', "half of a character", id="surrogate"),
    ],
)
def test_a_body_that_is_no_object_of_json_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(ApiError, match=message):
        parse_request(body)
