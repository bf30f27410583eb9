"""Messages that are data: a list in the form of the OpenAI chat API, or of ``threads.NAME``, becomes messages. Pure.

A member that is null counts as left out. What would be lost is refused by name: unknown roles and parts, calls in the
API's older form, sounds. Source: platform.openai.com/docs/api-reference/chat.
"""

from collections.abc import Mapping
from json import dumps
from typing import Any, Final, get_args

from flowrun.core.messages import Image, Message, Role, ToolCall, text_of_parts
from flowrun.excerpts import cut
from flowrun.spec.model import JSON

ROLES: Final = get_args(Role)

_LOST: Final = {
    "function_call": "write it as tool_calls",
    "audio": "leave it out, or put its transcript into the content",
}
"""Members that a message cannot keep, and what to do."""

_SHOWN: Final = 60  # characters


class MessagesError(ValueError):
    """A value is no list of messages. The message says which message and which member."""


def parse_messages(value: JSON) -> tuple[Message, ...]:
    """Return the messages of a value. A call without an id has the id ``""``.

    Raises:
        MessagesError: the value is no list of messages.
    """
    if not isinstance(value, (list, tuple)):
        raise MessagesError(f"{_show(value)} is no list of messages")
    return tuple(_parse_message(item, f"message {number}") for number, item in enumerate(value, 1))


def _parse_message(item: JSON, where: str) -> Message:
    if not isinstance(item, Mapping):
        raise MessagesError(f"{where} is no mapping but {_show(item)}")
    given = {name: member for name, member in item.items() if member is not None}
    role: Any = given.get("role")
    if role not in ROLES:
        what = "has no role" if role is None else f"has the role {_show(role)}"
        raise MessagesError(f"{where} {what}: it must be one of {', '.join(ROLES)}")
    for name, remedy in _LOST.items():
        if given.get(name):
            raise MessagesError(f"{where} has the member {name!r}, which cannot be kept: {remedy}")
    calls = _parse_calls(given.get("tool_calls") or [], where)
    content = given.get("content", given.get("refusal"))
    if calls and role != "assistant":
        raise MessagesError(f"{where} has tool_calls, and its role is {role}: only an assistant calls tools")
    if content is None and not calls:
        raise MessagesError(f"{where}, of role {role}, has no content")
    if role != "tool" and "tool_call_id" in given:
        raise MessagesError(f"{where} has a tool_call_id, and its role is {role}: only a tool answers a call")
    parts = _parse_parts(content, where)
    has_images = any(isinstance(part, Image) for part in parts)
    return Message(
        role=role,
        content=text_of_parts(parts) if has_images else None if content is None else "".join(map(str, parts)),
        parts=parts if has_images else (),
        reasoning=_text(given.get("reasoning", given.get("reasoning_content")), f"{where}: reasoning"),
        tool_calls=calls,
        tool_call_id=_text(given.get("tool_call_id"), f"{where}: tool_call_id"),
        name=_text(given.get("name"), f"{where}: name"),
    )


def _parse_parts(content: JSON, where: str) -> tuple[str | Image, ...]:
    if content is None or isinstance(content, str):
        return (content or "",)
    if not isinstance(content, (list, tuple)):
        raise MessagesError(f"{where}: content is no text and no list of parts but {_show(content)}")
    return tuple(_parse_part(part, f"{where}, part {number}") for number, part in enumerate(content, 1))


def _parse_part(part: JSON, where: str) -> str | Image:
    """Parse a part: a text, ``{type: text, text}``, or ``{type: image_url, image_url: {url}}``."""
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise MessagesError(f"{where} is no mapping but {_show(part)}")
    kind = part.get("type", "text" if "text" in part else None)
    if kind == "image_url":
        image = part.get("image_url")
        return parse_image(image.get("url") if isinstance(image, Mapping) else image, where)
    if kind not in ("text", "refusal"):
        raise MessagesError(f"{where} is of type {_show(kind)}: only texts and images can be kept")
    text = part.get(kind)
    if not isinstance(text, str):
        raise MessagesError(f"{where} has no {kind}")
    return text


def parse_image(uri: JSON, where: str) -> Image:
    """Return the image of a value.

    Raises:
        MessagesError: it is no ``data:`` URI: a server would fetch any other address that a value gives it.
    """
    if isinstance(uri, str) and uri.startswith("data:image/"):
        return Image(uri)
    raise MessagesError(f"{where}: an image must be a data: URI of an image, and is {_show(uri)}")


def _parse_calls(calls: JSON, where: str) -> tuple[ToolCall, ...]:
    if not isinstance(calls, (list, tuple)):
        raise MessagesError(f"{where}: tool_calls is no list but {_show(calls)}")
    return tuple(_parse_call(call, f"{where}, call {number}") for number, call in enumerate(calls, 1))


def _parse_call(call: JSON, where: str) -> ToolCall:
    """Parse a call: ``{id, type, function: {name, arguments}}``, or ``{id, name, arguments}`` as templates see it."""
    call = call if isinstance(call, Mapping) else {}
    function = call.get("function", call)
    function = function if isinstance(function, Mapping) else {}
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not name:
        raise MessagesError(f"{where} names no function")
    if arguments is None:
        arguments = ""
    elif not isinstance(arguments, str):
        arguments = dumps(arguments, ensure_ascii=False)
    return ToolCall(id=_text(call.get("id"), f"{where}: id") or "", name=name, arguments=arguments)


def _text(value: JSON, where: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise MessagesError(f"{where} is no text but {_show(value)}")


def _show(value: Any) -> str:
    if isinstance(value, str):
        return repr(cut(value, _SHOWN))
    return cut(dumps(value, ensure_ascii=False, default=str), _SHOWN)
