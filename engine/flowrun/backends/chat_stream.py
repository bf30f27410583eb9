"""A chat completion that comes in pieces (server-sent events): read back into the body that it is without a stream.

So ``chat_api`` remains the only reader of replies. Pure. Source: the chat completion chunk object of
platform.openai.com/docs/api-reference/chat-streaming, and the event stream of html.spec.whatwg.org.
"""

import re
from collections.abc import Iterator, Mapping
from json import loads
from typing import Any, Final

from flowrun.backends.chat_api import BrokenReply, Completion, as_completion, content_text

STREAM: Final[Mapping[str, Any]] = {"stream": True, "stream_options": {"include_usage": True}}
"""The fields of a request by which a reply comes in pieces."""

MEDIA_TYPE: Final = "text/event-stream"
"""The type of an answer in pieces. Some servers answer as without a stream."""

_TEXTS: Final = ("content", "refusal", "reasoning", "reasoning_content")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r(?=.)", re.DOTALL)
_DONE: Final = "[DONE]"


class ServerFault(Exception):
    """A server reports an error in the middle of a reply. ``body`` is what it says."""

    def __init__(self, body: Any) -> None:
        super().__init__(str(body))
        self.body = body
        self.code = body.get("code") if isinstance(body, dict) else None

    @property
    def status(self) -> int:
        """The HTTP status that the server would have answered; 500 if it says none."""
        return self.code if isinstance(self.code, int) and 400 <= self.code < 600 else 500


class CutStream(Exception):
    """A stream ended before the reply did."""


class EventLines:
    """The ``data`` of server-sent events, from the bytes of a connection."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []

    def feed(self, received: bytes) -> Iterator[str]:
        """Yield the data of the events that are complete with these bytes."""
        *lines, self._rest = _LINE_END.split(self._rest + received)
        for line in lines:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" ").decode(errors="replace"))
            elif not line and self._data:
                yield "\n".join(self._data)
                self._data.clear()

    def end(self) -> Iterator[str]:
        """Yield the data of a last event that no empty line ends."""
        yield from self.feed(b"\n\n")


class CompletionPieces:
    """The chunks of one chat completion, joined."""

    def __init__(self) -> None:
        self._message: dict[str, Any] = {}
        self._calls: list[dict[str, Any]] = []
        self._at: dict[Any, dict[str, Any]] = {}  # the newest call by the index that the server gives
        self._finish_reason: Any = None
        self._logprobs: list[Any] = []
        self._token_ids: list[Any] = []
        self._top: dict[str, Any] = {}
        self.done = False

    def add(self, data: str) -> str:
        """Add the data of an event, and return the text of the content that it has.

        Raises:
            BrokenReply: the data is no chunk.
            ServerFault: it is an error.
        """
        if data == _DONE:
            self.done = True
            return ""
        try:
            chunk = loads(data)
        except (ValueError, RecursionError) as exc:
            raise BrokenReply(f"an event holds no JSON: {exc}") from exc
        if not isinstance(chunk, dict):
            raise BrokenReply("an event holds no chunk of a completion")
        if error := chunk.get("error"):
            raise ServerFault(error)
        self._top |= {name: chunk[name] for name in ("usage", "prompt_token_ids") if chunk.get(name) is not None}
        choices = chunk.get("choices") or ()
        if not isinstance(choices, list | tuple):
            raise BrokenReply("the choices of a chunk are no list")
        return "".join(self._add_choice(choice) for choice in choices[:1])

    def completion(self) -> Completion:
        """Return the completion, as the server would have sent it without a stream.

        Raises:
            CutStream: its end is missing.
            BrokenReply: it is no chat completion.
        """
        if self._finish_reason is None and not self.done:
            raise CutStream("the stream ended before the reply did")
        message = dict(self._message)
        if self._calls:
            message["tool_calls"] = self._calls
            message["content"] = message.get("content") or None
        choice = {"message": message, "finish_reason": self._finish_reason, "token_ids": self._token_ids or None}
        if self._logprobs:
            choice["logprobs"] = {"content": self._logprobs}
        return as_completion({**self._top, "choices": [choice]})

    def _add_choice(self, choice: Any) -> str:
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if not isinstance(choice, dict) or not isinstance(delta, dict | None):
            raise BrokenReply("a choice of a chunk is no mapping")
        if choice.get("finish_reason") is not None:
            self._finish_reason = choice["finish_reason"]
        logprobs = choice.get("logprobs")
        self._logprobs += _listed(logprobs.get("content") if isinstance(logprobs, dict) else None)
        self._token_ids += _listed(choice.get("token_ids"))
        for name in _TEXTS:
            if (piece := (delta or {}).get(name)) is not None:
                self._message[name] = _joined(self._message.get(name), piece)
        self._add_calls(delta or {})
        return content_text((delta or {}).get("content")) or ""

    def _add_calls(self, delta: Mapping[str, Any]) -> None:
        calls = delta.get("tool_calls") or ()
        if isinstance(function := delta.get("function_call"), dict):
            calls = [{"index": 0, "function": function}]
        if not isinstance(calls, list | tuple) or not all(isinstance(call, dict) for call in calls):
            raise BrokenReply("the tool_calls of a chunk are no list of mappings")
        for call in calls:
            self._add_call(call)

    def _add_call(self, piece: Mapping[str, Any]) -> None:
        """Add a piece of a call. Some servers give no index, or the same to all calls."""
        given, index, function = piece.get("id"), piece.get("index"), piece.get("function")
        function = function if isinstance(function, dict) else {}
        call = self._at.get(index)
        if call is None or _begins_another(call, given, function.get("name") if index is None else None):
            call = self._at[index] = {"id": given, "function": {"name": None, "arguments": None}}
            self._calls.append(call)
        known = call["function"]
        call["id"] = call["id"] or given
        known["name"] = known["name"] or function.get("name")
        if (arguments := function.get("arguments")) is not None:
            known["arguments"] = _joined(known["arguments"], arguments)


def _begins_another(call: Mapping[str, Any], given: Any, name: Any) -> bool:
    """Return whether a piece with another id, or with a name where calls have no index, begins another call."""
    if given and call["id"]:
        return bool(given != call["id"])
    return bool(name and call["function"]["name"])


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _joined(known: Any, piece: Any) -> Any:
    """Join two pieces of a text, or of a list of parts."""
    if known is None or known == "":
        return piece
    if isinstance(known, str) and isinstance(piece, str):
        return known + piece
    parts = [[part] if isinstance(part, str | dict) else part for part in (known, piece)]
    return [*parts[0], *parts[1]] if all(isinstance(part, list) for part in parts) else piece
