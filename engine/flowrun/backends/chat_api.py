"""The wire format of the OpenAI chat API: a request becomes a body, a body becomes a reply. Pure: no I/O, no SDK.

Servers differ in small things (the field of the reasoning, whether a call's arguments are text, the finish reasons);
only this module handles the differences. Source: platform.openai.com/docs/api-reference/chat.
"""

from collections.abc import Iterable, Mapping
from json import dumps, loads
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from flowrun.core.events import AskModel
from flowrun.core.messages import FINISHED, Message, Reply, ToolCall, Usage, as_openai, parts_as_openai
from flowrun.errors import ModelError
from flowrun.excerpts import cut
from flowrun.spec.model import JSON, ResponseFormat
from flowrun.spec.strict_json import is_json_object

OUR_FIELDS: Final = frozenset(
    {"model", "messages", "tools", "tool_choice", "response_format", "stream", "stream_options"}
)
"""Fields that a state sets by its own keys, so ``sampling`` must not set them."""

WIRE_NAMES: Final[Mapping[str, str]] = {"extra_args": "vllm_xargs"}
"""Sampling parameters whose names differ between vLLM's ``SamplingParams`` and vLLM's server."""

_EXCERPT: Final = 200
"""Characters of a faulty reply that an error shows."""


class BrokenReply(ValueError):
    """A server's answer is not a chat completion. The message names the fault."""


def request_body(
    request: AskModel, messages: list[dict[str, Any]], *, model: str, template_kwargs: Mapping[str, JSON]
) -> dict[str, Any]:
    """Return the body of ``POST /chat/completions``.

    Args:
        messages: the request's messages in the form that the model takes.
        model: the name that the server knows the model by.
        template_kwargs: variables of the chat template, which vLLM's server accepts.

    Raises:
        ModelError: ``model.request_refused``: the sampling sets a parameter that no state may set.
    """
    body: dict[str, Any] = {**_sampling(request.sampling), "model": model, "messages": messages}
    if request.tools:
        body["tools"] = [tool.as_openai() for tool in request.tools]
        body["tool_choice"] = _tool_choice(request.tool_choice)
    if (form := request.response_format) is not None and form.is_text:
        if form.strict:
            body["structured_outputs"] = _structured_outputs(form)
    elif form is not None:
        body["response_format"] = _response_format(form)
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


def server_messages(messages: Iterable[Message]) -> list[dict[str, Any]]:
    """Return messages in the form that every server takes, whatever its chat template is.

    User turns in a row are joined by a blank line. Reasoning has the name by which it came. A tool message has no name.
    """
    sent: list[dict[str, Any]] = []
    for message in messages:
        form = wire_message(message)
        if message.reasoning is not None and message.reasoning_key != "reasoning":
            form[message.reasoning_key] = form.pop("reasoning")
        if message.role == "tool":
            form.pop("name", None)
        if message.parts:
            form["content"] = parts_as_openai(message.parts)
        if message.role == "user" and sent and sent[-1]["role"] == "user":
            sent[-1]["content"] = _join_contents(sent[-1]["content"], form["content"])
        else:
            sent.append(form)
    return sent


def wire_message(message: Message) -> dict[str, Any]:
    """Return a message as ``as_openai`` does, with ``{}`` for arguments that are no JSON object.

    Servers and templates refuse such arguments, and no tool was called with them: its message says what they were.
    """
    form = as_openai(message)
    for call in form.get("tool_calls", ()):
        if not is_json_object(call["function"]["arguments"]):
            call["function"]["arguments"] = "{}"
    return form


def _join_contents(first: str | list[Any] | None, second: str | list[Any] | None) -> str | list[Any]:
    """Join the contents of two turns: texts by a blank line; the parts of one with images follow each other."""
    if not isinstance(first, list) and not isinstance(second, list):
        return join_turns(first, second)
    contents = (one if isinstance(one, list) else parts_as_openai([one]) if one else [] for one in (first, second))
    return [part for parts in contents for part in parts]


def join_turns(*texts: str | None) -> str:
    """Join the texts of turns in a row by a blank line."""
    return "\n\n".join(text for text in texts if text)


def _tool_choice(choice: str) -> str | dict[str, Any]:
    if choice in ("auto", "required", "none"):
        return choice
    return {"type": "function", "function": {"name": choice}}


def _structured_outputs(form: ResponseFormat) -> dict[str, Any]:
    """Return the constraint of a text in the form of vLLM's server: OpenAI's API has none."""
    return {"regex": form.pattern} if form.type == "regex" else {"choice": list(form.choices)}


def _response_format(form: ResponseFormat) -> dict[str, Any]:
    if form.type == "json_object":
        return {"type": "json_object"}
    return {"type": "json_schema", "json_schema": {"name": "reply", "schema": form.schema, "strict": form.strict}}


# --- replies: what some server writes in some form is read; what no form explains is the fault of that reply -------


class TokensFound(NamedTuple):
    """The tokens of a prompt and a reply, as vLLM's server gives them."""

    prompt: list[int]
    ids: list[int]
    logprobs: list[float]


class _Choice(msgspec.Struct):
    message: dict[str, Any]
    finish_reason: Any = None
    logprobs: Any = None
    token_ids: Any = None

    def tokens_of(self, prompt: Any) -> TokensFound | None:
        """Return the tokens, with those of the prompt; None if the server has not given all of them."""
        content = self.logprobs.get("content") if isinstance(self.logprobs, dict) else None
        try:
            logprobs = [float(one["logprob"]) for one in content or ()]
            found = msgspec.convert((prompt, self.token_ids, logprobs), TokensFound)
        except (TypeError, ValueError, KeyError, msgspec.ValidationError):
            return None
        return found if found.prompt and found.ids and len(found.ids) == len(logprobs) else None


class Completion(msgspec.Struct):
    """The parts of a chat completion that are read."""

    choices: Annotated[list[_Choice], msgspec.Meta(min_length=1)]
    usage: Any = None
    prompt_token_ids: Any = None


_COMPLETIONS: Final = msgspec.json.Decoder(Completion)

_REASONING: Final = ("reasoning", "reasoning_content")
"""The names that servers give to reasoning; a server gets it back under its own."""

_THINKING: Final = frozenset({"thinking", "reasoning"})
"""Types of parts of the content that hold reasoning."""


def parse_completion(body: bytes) -> Completion:
    """Parse the body of a chat completion.

    Raises:
        BrokenReply: the body is no chat completion.
    """
    try:
        return _COMPLETIONS.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        return _decode_leniently(body, exc)


def as_completion(body: Mapping[str, Any]) -> Completion:
    """Return a body that is decoded already as a chat completion.

    Raises:
        BrokenReply: it is none.
    """
    try:
        return msgspec.convert(body, Completion)
    except msgspec.ValidationError as exc:
        raise BrokenReply(str(exc)) from exc


def content_text(content: Any) -> str | None:
    """Return the text of a content, or of a piece of one.

    Raises:
        ModelError: it has a form that cannot be read.
    """
    return _content(content)[0]


def reply_of(completion: Completion) -> Reply:
    """Return the reply of a chat completion.

    Raises:
        ModelError: its message has a form that cannot be read.
    """
    choice = completion.choices[0]
    message = choice.message
    content, refusal, thinking = _content(message.get("content"))
    key = next((key for key in _REASONING if isinstance(message.get(key), str)), None)
    calls = _calls(message)
    return Reply(
        content=content,
        reasoning=thinking if key is None else message[key],
        reasoning_key=key or _REASONING[0],
        tool_calls=calls,
        finish_reason=_finish_reason(choice.finish_reason, has_calls=bool(calls)),
        usage=_usage(completion.usage),
        refusal=_text(message.get("refusal")) or refusal or None,
    )


def _decode_leniently(body: bytes, fault: Exception) -> Completion:
    """Decode a body that holds half a surrogate pair, or bytes that are no UTF-8; ``Reply`` repairs its texts.

    Args:
        fault: the error of the strict decoder.

    Raises:
        BrokenReply: the body has another fault.
    """
    try:
        return msgspec.convert(loads(body.decode(errors="replace")), Completion)
    except (ValueError, RecursionError):
        raise BrokenReply(str(fault)) from fault


def _unreadable(why: str, found: object, name: str = "model.invalid_output") -> ModelError:
    return ModelError(name, f"the reply cannot be read: {why}; it is {cut(dumps(found, ensure_ascii=False), _EXCERPT)}")


def _content(content: Any) -> tuple[str | None, str | None, str | None]:
    """Return the text, the refusal and the reasoning of a content, which may be a text or a list of parts."""
    if content is None or isinstance(content, str):
        return content, None, None
    texts: dict[str, list[str]] = {"text": [], "refusal": [], "thinking": []}
    for part in content if isinstance(content, list) else [content]:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        kind = {"output_text": "text", **dict.fromkeys(_THINKING, "thinking")}.get(kind, kind)
        if kind not in texts:
            raise _unreadable(f"its content has a part of type {str(kind)[:80]!r}", content)
        text = _text(part)
        if text is None:
            raise _unreadable("its content is no text and no list of texts", content)
        texts[kind].append(text)
    parts = ("".join(texts[kind]) if texts[kind] else None for kind in ("text", "refusal", "thinking"))
    text, refusal, thinking = parts
    return text, refusal, thinking


def _text(part: Any) -> str | None:
    """Return the text of a part of a content: a text, a mapping that holds one, or a list of such parts."""
    if isinstance(part, dict):
        texts = [part[key] for key in ("text", "refusal", "thinking", "reasoning", "value") if key in part]
        return ("" if texts[0] is None else _text(texts[0])) if texts else None
    if isinstance(part, list):
        parts = list(map(_text, part))
        return None if None in parts else "".join(text for text in parts if text)
    return part if isinstance(part, str) else None


def _calls(message: Mapping[str, Any]) -> tuple[ToolCall, ...]:
    """Return the calls of a message; ``function_call`` is the API's older form of ``tool_calls``."""
    calls = message.get("tool_calls")
    if not calls and message.get("function_call"):
        calls = [{"function": message["function_call"]}]
    if isinstance(calls, dict):
        calls = [calls]
    if calls is not None and not isinstance(calls, list):
        raise _unreadable("its tool_calls are no list", calls, "model.invalid_call")
    return tuple(map(_call, calls or ()))


def _call(call: Any) -> ToolCall:
    function = call.get("function", call) if isinstance(call, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    if function is None or not isinstance(name, str) or not name:
        raise _unreadable("a tool call names no function", call, "model.invalid_call")
    call_id = call.get("id")
    return ToolCall(
        id="" if call_id is None else str(call_id), name=name, arguments=_arguments(function.get("arguments"))
    )


def _arguments(arguments: Any) -> str:
    if arguments is None or isinstance(arguments, str):
        return arguments or ""
    return dumps(arguments, ensure_ascii=False, separators=(",", ":"))


def _finish_reason(reason: Any, *, has_calls: bool) -> str:
    """Return the same name of a reason for all servers, also if a server sends none; an unknown reason is unchanged."""
    if reason is None or (isinstance(reason, str) and reason.lower() in FINISHED):
        return "tool_calls" if has_calls else "stop"
    return str(reason)


def _usage(usage: Any) -> Usage:
    return Usage(
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        cached_tokens=_count(usage.get("prompt_tokens_details") if isinstance(usage, dict) else None, "cached_tokens"),
    )


def _count(counts: Any, name: str) -> int:
    """Return a count; 0 if there is none."""
    count = counts.get(name) if isinstance(counts, dict) else None
    return int(count) if isinstance(count, (int, float)) and 0 <= count < 2**53 else 0
