"""The wire format of the OpenAI chat API: a request becomes a body, a body becomes a reply. Pure: no I/O, no SDK.

Servers differ in small things (the field of the reasoning, whether a call's arguments are text, the finish reasons);
only this module handles the differences. Source: platform.openai.com/docs/api-reference/chat.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final

import msgspec

from flowrun.core.events import AskModel, ToolDeclaration
from flowrun.core.messages import FINISHED, Reply, ToolCall, Usage, as_openai
from flowrun.errors import ModelError
from flowrun.spec.model import JSON, ResponseFormat

OUR_FIELDS: Final = frozenset(
    {"model", "messages", "tools", "tool_choice", "response_format", "stream", "stream_options"}
)
"""Fields that a state sets by its own keys, so ``sampling`` must not set them."""

WIRE_NAMES: Final[Mapping[str, str]] = {"extra_args": "vllm_xargs"}
"""Sampling parameters whose names differ between vLLM's ``SamplingParams`` and vLLM's server."""


class BrokenReply(ValueError):
    """A server's answer is not a chat completion. The message names the fault."""


def request_body(request: AskModel, *, model: str, template_kwargs: Mapping[str, JSON]) -> dict[str, Any]:
    """Return the body of ``POST /chat/completions``.

    Args:
        model: the name that the server knows the model by.
        template_kwargs: variables of the chat template, which vLLM's server accepts.

    Raises:
        ModelError: ``model.request_refused``: the sampling sets a parameter that no state may set.
    """
    body: dict[str, Any] = {
        **_sampling(request.sampling),
        "model": model,
        "messages": [as_openai(message) for message in request.messages],
    }
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        body["tool_choice"] = _tool_choice(request.tool_choice)
    if request.response_format is not None:
        body["response_format"] = _response_format(request.response_format)
    if template_kwargs:
        body["chat_template_kwargs"] = dict(template_kwargs)
    return body


def _sampling(sampling: Mapping[str, JSON]) -> dict[str, JSON]:
    if reserved := sorted(OUR_FIELDS & sampling.keys()):
        raise ModelError("model.request_refused", f"sampling must not set {', '.join(reserved)}: the state itself does")
    if sampling.get("n") not in (None, 1):
        raise ModelError("model.request_refused", "sampling sets n, but a state takes one reply; leave it out")
    body = {WIRE_NAMES.get(name, name): value for name, value in sampling.items() if name != "n" and value is not None}
    count = body.get("logprobs")
    if isinstance(count, int) and not isinstance(count, bool):  # a count in vLLM, a switch in the chat API
        body |= {"logprobs": True, "top_logprobs": count}
    return body


def _tool(tool: ToolDeclaration) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {"type": "function", "function": function | {"strict": True} if tool.strict else function}


def _tool_choice(choice: str) -> str | dict[str, Any]:
    if choice in ("auto", "required", "none"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def _response_format(form: ResponseFormat) -> dict[str, Any]:
    if form.type == "json_object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": form.schema, "strict": form.strict}}


# --- replies: only the fields that are used; null is valid wherever some server writes it ---------------------------


class _Function(msgspec.Struct):
    name: str
    arguments: str | dict[str, Any] | None = None


class _Call(msgspec.Struct):
    function: _Function
    id: str | None = None


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Completion(msgspec.Struct):
    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    usage: _Usage | None = None


_COMPLETIONS: Final = msgspec.json.Decoder(_Completion)


def parse_reply(body: bytes) -> Reply:
    """Parse the body of a chat completion.

    Raises:
        BrokenReply: the body is no chat completion.
    """
    try:
        completion = _COMPLETIONS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        completion = _decode_leniently(body, exc)
    choice = completion.choices[0]
    message = choice.message
    calls = _calls(message)
    return Reply(
        content=message.content,
        reasoning=message.reasoning if message.reasoning is not None else message.reasoning_content,
        tool_calls=calls,
        finish_reason=_finish_reason(choice.finish_reason, has_calls=bool(calls)),
        usage=_usage(completion.usage),
        refusal=message.refusal or None,
    )


def _decode_leniently(body: bytes, fault: Exception) -> _Completion:
    """Decode a body that holds half a surrogate pair, or bytes that are no UTF-8; ``Reply`` repairs its texts.

    Args:
        fault: the error of the strict decoder.

    Raises:
        BrokenReply: the body has another fault.
    """
    try:
        return msgspec.convert(json.loads(body.decode(errors="replace")), _Completion)
    except (ValueError, RecursionError):
        raise BrokenReply(str(fault)) from fault


def _calls(message: _Message) -> tuple[ToolCall, ...]:
    """Return the calls of a message; ``function_call`` is the API's older form of ``tool_calls``."""
    calls: Sequence[_Call] = message.tool_calls or ()
    if not calls and message.function_call is not None:
        calls = [_Call(message.function_call)]
    return tuple(
        ToolCall(id=call.id or "", name=call.function.name, arguments=_arguments(call.function.arguments))
        for call in calls
    )


def _arguments(arguments: str | dict[str, Any] | None) -> str:
    if isinstance(arguments, dict):
        return json.dumps(arguments, ensure_ascii=False, separators=(",", ":"))
    return arguments or ""


def _finish_reason(reason: str | None, *, has_calls: bool) -> str:
    """Return the same name of a reason for all servers, also if a server sends none; an unknown reason is unchanged."""
    if reason is None or reason.lower() in FINISHED:
        return "tool_calls" if has_calls else "stop"
    return reason


def _usage(usage: _Usage | None) -> Usage:
    if usage is None:
        return Usage()
    details = usage.prompt_tokens_details
    return Usage(
        prompt_tokens=usage.prompt_tokens or 0,
        completion_tokens=usage.completion_tokens or 0,
        cached_tokens=(details.cached_tokens if details else None) or 0,
    )
