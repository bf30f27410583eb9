"""Messages, arguments and results in the JSON form that the conventions have for content. Pure."""

from collections.abc import Iterable
from typing import Any

import msgspec

from flowrun.core.events import ToolDeclaration
from flowrun.core.messages import IMAGE, Image, Message, Reply, ToolCall


def write_json(value: Any) -> str:
    """Return a value as JSON."""
    return msgspec.json.encode(value).decode()


def write_messages(messages: Iterable[Message]) -> str:
    """Return the messages of a request: each with its role and its parts."""
    return write_json([{"role": message.role, "parts": _parts(message)} for message in messages])


def write_reply(reply: Reply) -> str:
    """Return the reply of a model, as a list with one message."""
    parts = [
        *_texts("reasoning", reply.reasoning),
        *_texts("text", reply.shown or reply.refusal),
        *map(_call, reply.tool_calls),
    ]
    return write_json([{"role": "assistant", "parts": parts, "finish_reason": reply.finish_reason}])


def write_tools(tools: Iterable[ToolDeclaration]) -> str:
    """Return the tools that a model is offered."""
    return write_json(
        [
            {"type": "function", "name": tool.name, "description": tool.description, "parameters": tool.parameters}
            for tool in tools
        ]
    )


def _parts(message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [{"type": "tool_call_response", "id": message.tool_call_id, "response": message.content}]
    if message.parts:
        said = [part for each in message.parts for part in _part(each)]
    else:
        said = _texts("text", message.content)
    return [*_texts("reasoning", message.reasoning), *said, *map(_call, message.tool_calls)]


def _part(part: str | Image) -> list[dict[str, Any]]:
    """Return a part of a message with images; what an image holds would make a span too large."""
    if isinstance(part, str):
        return _texts("text", part)
    if part.uri.startswith("data:"):
        return _texts("text", IMAGE)
    return [{"type": "uri", "modality": "image", "uri": part.uri}]


def _texts(kind: str, text: str | None) -> list[dict[str, Any]]:
    return [{"type": kind, "content": text}] if text else []


def _call(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments}
