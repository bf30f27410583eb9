"""A chat completion as a server sends it in pieces."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from flowrun.spec.model import JSON


def chunk(delta: JSON, finish_reason: str | None = None, **more: JSON) -> dict[str, JSON]:
    choice: JSON = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {"id": "c1", "object": "chat.completion.chunk", "choices": [choice], **more}


def chunks_of(completion: Mapping[str, Any]) -> Iterator[JSON]:
    """Yield the chunks of a completion, as vLLM's server cuts it: texts and arguments in pieces of three characters."""
    (choice,) = completion["choices"]
    message = choice["message"]
    yield chunk({"role": "assistant", "content": ""})
    for name in ("reasoning", "content"):
        text = message.get(name) or ""
        yield from (chunk({name: text[at : at + 3]}) for at in range(0, len(text), 3))
    for index, call in enumerate(message.get("tool_calls") or ()):
        named = {"index": index, "id": call["id"], "type": "function"}
        yield chunk({"tool_calls": [named | {"function": {"name": call["function"]["name"], "arguments": ""}}]})
        text = call["function"]["arguments"]
        for at in range(0, len(text), 3):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": text[at : at + 3]}}]})
    yield chunk({}, choice["finish_reason"])
    if "usage" in completion:
        yield {"id": "c1", "object": "chat.completion.chunk", "choices": [], "usage": completion["usage"]}


def event(data: JSON) -> bytes:
    return f"data: {data if isinstance(data, str) else json.dumps(data)}\n\n".encode()


def stream_of(completion: Mapping[str, Any]) -> bytes:
    """Return a completion as the body of an answer in pieces."""
    return b"".join(map(event, [*chunks_of(completion), "[DONE]"]))
