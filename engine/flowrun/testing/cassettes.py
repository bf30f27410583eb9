"""Cassettes: recorded replies of a real model, one JSON line each, found by the request.

A request is identified by the input of the model: the prompt, the tools and the sampling. If the backend renders its
prompts itself, the rendered prompt counts (a changed chat template is a changed request); otherwise the messages do.
"""

import difflib
import hashlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from flowrun.backends.text_pieces import in_one_piece
from flowrun.backends.wrapper import ReadyBackend, WrappedBackend
from flowrun.core.events import AskModel
from flowrun.core.messages import Log, Message, Reply, ToolCall, as_openai
from flowrun.core.ports import ModelBackend, OnText
from flowrun.errors import Failure, FlowrunError, ModelError, StoreError
from flowrun.files import file_errors
from flowrun.spec import mask
from flowrun.spec.model import JSON
from flowrun.testing.compare import diff_lines
from flowrun.testing.readers import Reader
from flowrun.testing.verdict import message_lines
from flowrun.unicode import one_json_line

_CONTEXT_LINES: Final = 1
"""The number of equal lines shown around each line of a request that differs."""


class RecordedRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to a model, in a readable form. ``labels`` are those of a decide state."""

    state: str
    messages: list[dict[str, JSON]]
    tools: list[dict[str, JSON]]
    tool_choice: str
    sampling: dict[str, JSON]
    response_format: JSON = None
    labels: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


class RecordedReply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a cassette: a request with its reply or its failure.

    ``key`` identifies the request by its messages, ``prompt_key`` by its rendered prompt.
    """

    key: str
    prompt_key: str | None = None
    request: RecordedRequest
    reply: Reply | None = None
    error: Failure | None = None


@runtime_checkable
class Renders(Protocol):
    """A backend that can return the rendered prompt of a request."""

    async def rendered_prompt(self, request: AskModel) -> str:
        """Return the rendered prompt, as the model would read it."""


def request_of(ask: AskModel) -> RecordedRequest:
    """Return a request in the form of a cassette."""
    return RecordedRequest(
        state=ask.state,
        messages=[as_openai(message) for message in ask.messages],
        tools=[msgspec.to_builtins(tool) for tool in ask.tools],
        tool_choice=ask.tool_choice,
        sampling=msgspec.to_builtins(dict(ask.sampling)),
        response_format=msgspec.to_builtins(ask.response_format),
        labels=ask.labels or msgspec.UNSET,
    )


def key_of(request: RecordedRequest, prompt: str | None = None) -> str:
    """Return the key of a request: equal for equal requests, whichever state sends them.

    Args:
        prompt: the rendered prompt, which replaces the messages; None to use the messages.
    """
    identity: dict[str, Any] = msgspec.to_builtins(request)
    del identity["state"]
    if prompt is not None:
        identity["messages"] = prompt
    return hashlib.sha256(dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def without_tokens(ask: AskModel) -> AskModel:
    """Return a request without tokens: a cassette stores replies as text, so prompts are compared without tokens."""
    messages = (msgspec.structs.replace(message, tokens=None) for message in ask.messages)
    return msgspec.structs.replace(ask, messages=Log(messages))


# --- recording ----------------------------------------------------------------------------------------------------


def create_cassette(path: Path) -> None:
    """Create an empty cassette; an existing file is overwritten.

    Raises:
        UsageError: the file cannot be written.
    """
    with file_errors(f"--record {path}: the file cannot be written"):
        path.write_bytes(b"")


class RecordingBackend(WrappedBackend):
    """A ``ports.ModelBackend`` that calls another one and appends each reply to a cassette, without secrets."""

    def __init__(self, backend: ModelBackend, path: Path, secrets: Mapping[str, str] = {}) -> None:
        super().__init__(backend)
        self._path = path
        self._secrets = secrets

    async def reply(self, request: AskModel, *, on_text: OnText | None = None) -> Reply:
        """Request a reply from the backend, and record the reply or the failure."""
        try:
            reply = await self.backend.reply(request, on_text=on_text)
        except ModelError as exc:
            await self._record(request, error=exc.failure())
            raise
        await self._record(request, reply=msgspec.structs.replace(reply, tokens=None))
        return reply

    async def _record(self, ask: AskModel, *, reply: Reply | None = None, error: Failure | None = None) -> None:
        request = mask(request_of(ask), self._secrets)
        prompt = None
        if error is None and isinstance(self.backend, Renders):
            prompt = await self.backend.rendered_prompt(without_tokens(ask))
        line = RecordedReply(
            key=key_of(request),
            prompt_key=None if prompt is None else key_of(request, mask(prompt, self._secrets)),
            request=request,
            reply=mask(reply, self._secrets),
            error=mask(error, self._secrets),
        )
        with file_errors(f"--record {self._path}", StoreError), self._path.open("ab") as file:
            file.write(one_json_line(msgspec.json.encode(line)) + b"\n")


# --- replaying ----------------------------------------------------------------------------------------------------


class CassetteMiss(FlowrunError):
    """A cassette holds no reply to a request. A spec cannot catch this: the flow sends another request than before."""


class CassetteBackend(ReadyBackend):
    """A ``ports.ModelBackend`` that returns the replies recorded for the same request, in the order of the recording.

    Args:
        path: the cassette.
        reader_of: returns the reader that renders the prompts of a request's model and parses its raw text again. If
            it returns None, the reply is used as it was parsed when it was recorded.
        secrets: the secrets that the recording does not hold, each with the text that replaces it.

    Raises:
        StoreError: the cassette cannot be read.
    """

    def __init__(
        self, path: Path, *, reader_of: Callable[[AskModel], Awaitable[Reader | None]], secrets: Mapping[str, str] = {}
    ) -> None:
        self._path = path
        self._secrets = secrets
        self._recorded = load_cassette(path)
        self._unused = list(range(len(self._recorded)))
        self._reader_of = reader_of

    @property
    def unused(self) -> list[int]:
        """The numbers, from 1, of the lines whose replies were not requested yet."""
        return [index + 1 for index in self._unused]

    async def reply(self, request: AskModel, *, on_text: OnText | None = None) -> Reply:
        """Return the recorded reply.

        Raises:
            ModelError: the recorded failure.
            CassetteMiss: the cassette has no unused reply to this request.
        """
        asked = mask(request_of(request), self._secrets)
        reader = await self._reader_of(request)
        prompt = None if reader is None else mask(await reader.rendered_prompt(request), self._secrets)
        recorded = self._pop_match(key_of(asked), None if prompt is None else key_of(asked, prompt))
        if recorded is None:
            raise CassetteMiss("\n".join(self._explain(asked)))
        if recorded.error is not None:
            raise ModelError(recorded.error.name, recorded.error.message)
        assert recorded.reply is not None
        if reader is None or recorded.reply.text is None:
            return in_one_piece(recorded.reply, on_text)
        return in_one_piece(await reader.read_text(request, recorded.reply), on_text)

    def _pop_match(self, key: str, prompt_key: str | None) -> RecordedReply | None:
        for index in self._unused:
            recorded = self._recorded[index]
            by_prompt = prompt_key is not None and recorded.prompt_key is not None
            if recorded.prompt_key == prompt_key if by_prompt else recorded.key == key:
                self._unused.remove(index)
                return recorded
        return None

    def _explain(self, asked: RecordedRequest) -> Iterator[str]:
        yield f"the cassette {self._path} holds no reply to what state {asked.state!r} asks"
        if not self._recorded:
            yield "  it is empty"
            return
        lines = list(_request_lines(asked))
        index = max(self._unused or range(len(self._recorded)), key=lambda n: _similarity(self._recorded[n], lines))
        nearest = self._recorded[index]
        if key_of(asked) != nearest.key:
            yield f"  its line {index + 1} is the nearest; - recorded, + asked now"
            yield from (
                f"  {line}" for line in diff_lines(list(_request_lines(nearest.request)), lines, context=_CONTEXT_LINES)
            )
        elif self._unused:
            yield f"  its line {index + 1} has the same messages; the chat template or the tokenizer has changed"
        else:
            yield f"  its line {index + 1} is the same request, and used already"
        yield "  if the flow is right, record it anew with: flowrun SPEC --record FILE"


def load_cassette(path: Path) -> list[RecordedReply]:
    """Read a cassette.

    Raises:
        StoreError: the file cannot be read, or a line is not a valid recording.
    """
    with file_errors(f"the cassette {path} cannot be read", StoreError):
        lines = path.read_bytes().splitlines()
    recorded = []
    for number, line in enumerate(lines, 1):
        try:
            recorded.append(msgspec.json.decode(line, type=RecordedReply))
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise StoreError(f"{path}:{number}: not a cassette's line ({exc}): record it anew") from exc
        if (recorded[-1].reply is None) == (recorded[-1].error is None):
            raise StoreError(f"{path}:{number}: a cassette's line has a reply or an error: record it anew")
    return recorded


def _similarity(recorded: RecordedReply, lines: Sequence[str]) -> float:
    return difflib.SequenceMatcher(None, list(_request_lines(recorded.request)), list(lines), autojunk=False).ratio()


def _request_lines(request: RecordedRequest) -> Iterator[str]:
    """Render a request as readable text, line by line."""
    for message in request.messages:
        yield from message_lines(_parse_message(message))
    for tool in request.tools:
        yield f"tool {tool['name']}: {dumps(tool, ensure_ascii=False, sort_keys=True)}"
    yield f"tool_choice: {request.tool_choice}"
    yield from (f"sampling.{name}: {dumps(value)}" for name, value in sorted(request.sampling.items()))
    if request.response_format is not None:
        yield f"response_format: {dumps(request.response_format, ensure_ascii=False, sort_keys=True)}"
    if request.labels:
        yield f"labels: {', '.join(request.labels)}"


def _parse_message(data: dict[str, JSON]) -> Message:
    calls = tuple(
        ToolCall(id=call["id"], name=call["function"]["name"], arguments=call["function"]["arguments"])
        for call in data.get("tool_calls", ())
    )
    return Message(role=data["role"], content=data["content"], tool_calls=calls, name=data.get("name"))
