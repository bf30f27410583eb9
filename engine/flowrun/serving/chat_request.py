"""A request of the chat API, read strictly: what a flow cannot honour is refused by its name. Pure.

A flow says itself which models it asks, how they sample and which tools they have. So of a request it takes the model's
name, the messages and the metadata, and how the answer is sent. Source: platform.openai.com/docs/api-reference/chat.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from flowrun.core.chat_messages import MessagesError, parse_messages
from flowrun.core.messages import Message
from flowrun.core.views import RequestView
from flowrun.serving.api_errors import ApiError
from flowrun.spec.model import JSON
from flowrun.spec.strict_json import parse_json

_READ: Final = frozenset({"model", "messages", "metadata", "stream", "stream_options"})

_PROMISES_NOTHING: Final = frozenset(
    {"user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options"}
)
"""Parameters that change no answer."""

_MEANS_NOTHING: Final[Mapping[str, tuple[JSON, ...]]] = {
    "n": (1,),
    "store": (False,),
    "logprobs": (False,),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "logit_bias": ({},),
    "stop": ([],),
}
"""Values of other parameters that ask for what a flow does anyway; null is one for each."""


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request of the chat API.

    Attributes:
        seen: what the templates of ``serve`` see of it.
        has_images: the last message has images besides its text.
        include_usage: the stream ends with the tokens used.
    """

    model: str
    seen: RequestView
    has_images: bool
    stream: bool
    include_usage: bool


def parse_request(body: bytes) -> ChatRequest:
    """Parse the body of a request.

    Raises:
        ApiError: it is no request, or asks for something that no flow can honour.
    """
    try:
        given = parse_json(body.decode())
    except ValueError as exc:
        raise ApiError(f"the body is no JSON: {exc}") from exc
    if not isinstance(given, dict):
        raise ApiError("the body is no JSON object")
    asked = {name: value for name, value in given.items() if value is not None}
    for name, value in asked.items():
        if name not in _READ | _PROMISES_NOTHING and value not in _MEANS_NOTHING.get(name, ()):
            what = f"a flow cannot honour {name!r}: its spec says which models, sampling and tools it uses"
            raise ApiError(f"{what}; leave {name!r} out", param=name, code="unsupported_parameter")
    messages = _member(asked, "messages", list, "a list of messages")
    last = _last_message(messages)
    metadata = _member(asked, "metadata", dict, "an object", {})
    return ChatRequest(
        model=_member(asked, "model", str, "a text"),
        seen={"content": last.content or "", "messages": messages, "metadata": metadata},
        has_images=bool(last.parts),
        stream=_member(asked, "stream", bool, "true or false", False),
        include_usage=_includes_usage(asked),
    )


def _includes_usage(asked: Mapping[str, Any]) -> bool:
    options: Mapping[str, Any] = _member(asked, "stream_options", dict, "an object", {})
    for name in options.keys() - {"include_usage", "include_obfuscation"}:
        raise ApiError(f"stream_options.{name} is not known", param="stream_options", code="unsupported_parameter")
    return options.get("include_usage") is True


def _last_message(messages: list[JSON]) -> Message:
    try:
        parsed = parse_messages(messages)
    except MessagesError as exc:
        raise ApiError(f"messages: {exc}", param="messages") from exc
    if not parsed:
        raise ApiError("messages is empty", param="messages")
    if (role := parsed[-1].role) != "user":
        raise ApiError(f"the last message must be the user's, and is of role {role}", param="messages")
    return parsed[-1]


def _member(asked: Mapping[str, Any], name: str, kind: type, what: str, default: Any = None) -> Any:
    value = asked.get(name, default)
    if not isinstance(value, kind):
        lacks = f"{name} is missing" if value is None else f"{name} must be {what}"
        raise ApiError(lacks, param=name)
    return value
