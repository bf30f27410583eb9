"""Chunks of a completion become the reply that it is without a stream, however servers cut and number them."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowrun.backends.chat_api import BrokenReply, parse_completion, reply_of
from flowrun.backends.chat_stream import CompletionPieces, CutStream, EventLines, ServerFault
from flowrun.core.messages import Reply, ToolCall, Usage
from flowrun.errors import ModelError
from flowrun.spec.model import JSON
from tests.unit.backends.chunks import chunk, chunks_of, stream_of


def read(chunks: Sequence[Any]) -> tuple[Reply, list[str]]:
    """Return the reply that chunks are together, and their texts."""
    pieces = CompletionPieces()
    texts = [pieces.add(one if isinstance(one, str) else json.dumps(one)) for one in chunks]
    return reply_of(pieces.completion()), [text for text in texts if text]


def call(name: Any = None, arguments: Any = None, **more: JSON) -> JSON:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {"tool_calls": [{"function": function, **more}]}


def called(*calls: tuple[str, str, str]) -> Reply:
    found = tuple(ToolCall(id=id_, name=name, arguments=arguments) for id_, name, arguments in calls)
    return Reply(tool_calls=found, finish_reason="tool_calls")


@pytest.mark.parametrize(
    "message",
    [
        pytest.param({"content": "It is fair, and 85 degrees."}, id="text"),
        pytest.param({"content": ""}, id="no text"),
        pytest.param({"content": "Hi.", "reasoning": "They greet me."}, id="reasoning"),
        pytest.param(
            {
                "content": None,
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"city": "Dallas"}'}},
                    {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
                ],
            },
            id="calls",
        ),
    ],
)
def test_chunks_are_the_reply_that_they_were_cut_from(message: JSON) -> None:
    reason = "tool_calls" if message.get("tool_calls") else "stop"
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 8}}
    completion = {"choices": [{"message": message, "finish_reason": reason}], "usage": usage}
    reply, texts = read([*chunks_of(completion), "[DONE]"])
    assert reply == reply_of(parse_completion(json.dumps(completion).encode()))
    assert "".join(texts) == (message["content"] or "")


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        pytest.param(
            [chunk(call("f", '{"a"', index=0, id="x")), chunk(call(None, ":1}", index=0)), chunk({}, "tool_calls")],
            called(("x", "f", '{"a":1}')),
            id="arguments in pieces",
        ),
        pytest.param(
            [chunk(call("f", "{}", id="x")), chunk(call("g", "{}", id="y")), chunk({}, "tool_calls")],
            called(("x", "f", "{}"), ("y", "g", "{}")),
            id="no index",
        ),
        pytest.param(
            [chunk(call("f", "{}")), chunk(call("f", "{}")), chunk({}, "stop")],
            called(("", "f", "{}"), ("", "f", "{}")),
            id="neither index nor id",
        ),
        pytest.param(
            [chunk(call("f", "{}", index=0, id="x")), chunk(call("g", "{}", index=0, id="y")), chunk({}, "stop")],
            called(("x", "f", "{}"), ("y", "g", "{}")),
            id="the same index",
        ),
        pytest.param(
            [chunk(call("f", "{", index=0, id="x")), chunk(call("f", "}", index=0, id="x")), chunk({}, "stop")],
            called(("x", "f", "{}")),
            id="name and id again in each piece",
        ),
        pytest.param(
            [
                chunk(call("f", "{", index=0, id="x")),
                chunk(call("g", "[", index=1, id="y")),
                chunk(call(None, "}", index=0)),
                chunk(call(None, "]", index=1)),
                chunk({}, "tool_calls"),
            ],
            called(("x", "f", "{}"), ("y", "g", "[]")),
            id="by turns",
        ),
        pytest.param([chunk(call("f", {"a": 1}, index=0)), chunk({}, "stop")], called(("", "f", '{"a":1}')), id="data"),
        pytest.param(
            [
                chunk({"function_call": {"name": "f", "arguments": "{"}}),
                chunk({"function_call": {"arguments": "}"}}, "stop"),
            ],
            called(("", "f", "{}")),
            id="the older form",
        ),
        pytest.param(
            [
                chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Hm"}]}]}),
                chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "m."}]}]}),
                chunk({"content": "Hi"}),
                chunk({"content": "."}, "stop"),
            ],
            Reply(content="Hi.", reasoning="Hmm."),
            id="parts",
        ),
        pytest.param(
            [chunk({"reasoning_content": "H"}), chunk({"reasoning_content": "m."}), chunk({"content": "Hi."}, "stop")],
            Reply(content="Hi.", reasoning="Hm.", reasoning_key="reasoning_content"),
            id="the other name of reasoning",
        ),
        pytest.param(
            [chunk({"refusal": "I "}), chunk({"refusal": "won't."}, "stop")], Reply(refusal="I won't."), id="refusal"
        ),
        pytest.param(
            [chunk({"content": "Hi."}, "length", usage={"completion_tokens": 3})],
            Reply(content="Hi.", finish_reason="length", usage=Usage(completion_tokens=3)),
            id="usage of the last chunk",
        ),
        pytest.param([chunk({"content": "Hi."}), "[DONE]"], Reply(content="Hi."), id="no finish reason"),
        pytest.param(
            [chunk(None), {"choices": None}, chunk({"content": "Hi."}, "stop")], Reply(content="Hi."), id="empty"
        ),
    ],
)
def test_what_servers_send(chunks: Sequence[Any], expected: Reply) -> None:
    assert read(chunks)[0] == expected


@pytest.mark.parametrize(
    ("chunks", "kind", "message"),
    [
        pytest.param([chunk({"content": "Hi"})], CutStream, "the stream ended before the reply did", id="cut"),
        pytest.param([], CutStream, "the stream ended before the reply did", id="nothing"),
        pytest.param(["[DONE]", "{"], BrokenReply, "an event holds no JSON", id="no JSON"),
        pytest.param(["3"], BrokenReply, "an event holds no chunk of a completion", id="no chunk"),
        pytest.param([{"choices": 3}], BrokenReply, "the choices of a chunk are no list", id="choices"),
        pytest.param([{"choices": [3]}], BrokenReply, "a choice of a chunk is no mapping", id="choice"),
        pytest.param([chunk({"tool_calls": [3]})], BrokenReply, "the tool_calls of a chunk are no list", id="calls"),
        pytest.param([{"error": {"message": "out of memory"}}], ServerFault, "out of memory", id="error"),
        pytest.param([chunk({"content": 3})], ModelError, "its content is no text", id="content"),
        pytest.param([chunk(call(None, "{}"), "stop")], ModelError, "a tool call names no function", id="no name"),
    ],
)
def test_what_is_no_reply(chunks: Sequence[Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        read(chunks)


@given(data=st.data(), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_events_are_the_same_however_the_connection_cuts_them(data: st.DataObject, end: str) -> None:
    text = ": a comment\n\ndata: one\n\nevent: x\ndata:two\ndata: \u2028 three\n\ndata: [DONE]"
    body, lines = text.replace("\n", end).encode(), EventLines()
    found: list[str] = []
    while body:
        cut = data.draw(st.integers(1, len(body)))
        found += lines.feed(body[:cut])
        body = body[cut:]
    assert [*found, *lines.end()] == ["one", "two\n\u2028 three", "[DONE]"]


def test_the_body_of_an_answer() -> None:
    completion = {"choices": [{"message": {"content": "It is fair."}, "finish_reason": "stop"}]}
    assert read([*EventLines().feed(stream_of(completion))]) == (
        Reply(content="It is fair."),
        ["It ", "is ", "fai", "r."],
    )
