"""Real replies, recorded: one JSON line each, found again by the request that led to it.

A request is known by what the model reads: the prompt, the tools and the sampling. Where the backend renders prompts
itself, the prompt counts (a changed chat template is a changed request); elsewhere the messages do.
"""

import difflib
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import msgspec

from flowrun.adapters.wrapped import WrappedBackend
from flowrun.errors import Failure, FlowrunError, ModelError, StoreError, UsageError
from flowrun.events import AskModel
from flowrun.messages import Log, Message, Reply, ToolCall, as_openai
from flowrun.ports import ModelBackend
from flowrun.spec import JSON
from flowrun.testing.judge import diff_lines
from flowrun.testing.readers import Reader
from flowrun.testing.verdict import message_lines

_CONTEXT: Final = 1
"""So many lines of a request are shown around each that differs."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a model was asked, in a form that people can read."""

    state: str
    messages: list[dict[str, JSON]]
    tools: list[dict[str, JSON]]
    tool_choice: str
    sampling: dict[str, JSON]
    response_format: JSON = None


class Recorded(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of a cassette: a request, and the reply or the failure that it led to.

    ``key`` stands for the request with its messages, ``prompt_key`` for the same with the rendered prompt instead.
    """

    key: str
    prompt_key: str | None = None
    request: Request
    reply: Reply | None = None
    error: Failure | None = None


@runtime_checkable
class Renders(Protocol):
    """A backend that can show the prompt that its model reads."""

    async def rendered_prompt(self, request: AskModel) -> str:
        """Give the text that the model would read."""


def request_of(ask: AskModel) -> Request:
    """Give a request as a cassette keeps it."""
    return Request(
        state=ask.state,
        messages=[as_openai(message) for message in ask.messages],
        tools=[msgspec.to_builtins(tool) for tool in ask.tools],
        tool_choice=ask.tool_choice,
        sampling=msgspec.to_builtins(dict(ask.sampling)),
        response_format=msgspec.to_builtins(ask.response_format),
    )


def key_of(request: Request, prompt: str | None = None) -> str:
    """Give what a request is known by: the same for equal requests, whichever state asks."""
    read: dict[str, Any] = msgspec.to_builtins(request)
    del read["state"]
    if prompt is not None:
        read["messages"] = prompt
    return hashlib.sha256(json.dumps(read, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def without_tokens(ask: AskModel) -> AskModel:
    """Give a request with the replies as text: a cassette keeps no tokens, so prompts are told apart without them."""
    messages = (msgspec.structs.replace(message, tokens=None) for message in ask.messages)
    return msgspec.structs.replace(ask, messages=Log(messages))


# --- recording ----------------------------------------------------------------------------------------------------


def begin_cassette(path: Path) -> None:
    """Make an empty cassette; what was recorded there before is gone.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        path.write_bytes(b"")
    except OSError as exc:
        raise UsageError(f"--record {path}: the file cannot be written: {exc.strerror}") from exc


class RecordingBackend(WrappedBackend):
    """A ``ports.ModelBackend`` that asks another one and appends each reply to a cassette."""

    def __init__(self, backend: ModelBackend, path: Path) -> None:
        super().__init__(backend)
        self._path = path

    async def reply(self, request: AskModel) -> Reply:
        """Ask the backend, and write down what it gave or raised."""
        try:
            reply = await self.backend.reply(request)
        except ModelError as exc:
            await self._record(request, error=exc.failure())
            raise
        await self._record(request, reply=msgspec.structs.replace(reply, tokens=None))
        return reply

    async def _record(self, ask: AskModel, *, reply: Reply | None = None, error: Failure | None = None) -> None:
        request = request_of(ask)
        prompt = None
        if error is None and isinstance(self.backend, Renders):
            prompt = await self.backend.rendered_prompt(without_tokens(ask))
        line = Recorded(
            key=key_of(request),
            prompt_key=None if prompt is None else key_of(request, prompt),
            request=request,
            reply=reply,
            error=error,
        )
        with self._path.open("ab") as file:
            file.write(msgspec.json.encode(line) + b"\n")


# --- replaying ----------------------------------------------------------------------------------------------------


class CassetteMiss(FlowrunError):
    """A cassette holds no reply to a request. No spec can catch this: the flow asks what it did not ask before."""


class CassetteBackend:
    """A ``ports.ModelBackend`` that says what was recorded for the same request, in the order of the recording.

    ``reader_of`` gives who renders the prompts of a request's model and reads its raw text again; None is nobody, and
    then the reply is taken as it was read when it was recorded.
    """

    def __init__(self, path: Path, *, reader_of: Callable[[AskModel], Awaitable[Reader | None]]) -> None:
        self._path = path
        self._recorded = load_cassette(path)
        self._left = list(range(len(self._recorded)))
        self._reader_of = reader_of

    @property
    def unused(self) -> list[int]:
        """The numbers of the lines that nobody asked for yet, from 1."""
        return [index + 1 for index in self._left]

    @property
    def concurrency(self) -> int | None:
        """None: there is no limit."""
        return None

    async def start(self) -> None:
        """Do nothing: the cassette is loaded."""

    async def stop(self) -> None:
        """Do nothing: nothing was started."""

    async def reply(self, request: AskModel) -> Reply:
        """Give the recorded reply.

        Raises:
            ModelError: the recorded failure.
            CassetteMiss: nothing is recorded for this request that is not used yet.
        """
        asked = request_of(request)
        reader = await self._reader_of(request)
        prompt = None if reader is None else await reader.rendered_prompt(request)
        recorded = self._take(key_of(asked), None if prompt is None else key_of(asked, prompt))
        if recorded is None:
            raise CassetteMiss("\n".join(self._explain(asked)))
        if recorded.error is not None:
            raise ModelError(recorded.error.name, recorded.error.message)
        assert recorded.reply is not None
        if reader is None or recorded.reply.text is None:
            return recorded.reply
        return await reader.read_text(request, recorded.reply)

    def _take(self, key: str, prompt_key: str | None) -> Recorded | None:
        for index in self._left:
            recorded = self._recorded[index]
            by_prompt = prompt_key is not None and recorded.prompt_key is not None
            if recorded.prompt_key == prompt_key if by_prompt else recorded.key == key:
                self._left.remove(index)
                return recorded
        return None

    def _explain(self, asked: Request) -> Iterator[str]:
        yield f"the cassette {self._path} holds no reply to what state {asked.state!r} asks"
        if not self._recorded:
            yield "  it is empty"
            return
        lines = list(_request_lines(asked))
        index = max(self._left or range(len(self._recorded)), key=lambda one: _likeness(self._recorded[one], lines))
        nearest = self._recorded[index]
        if key_of(asked) != nearest.key:
            yield f"  its line {index + 1} is the nearest; - recorded, + asked now"
            yield from (
                f"  {line}" for line in diff_lines(list(_request_lines(nearest.request)), lines, context=_CONTEXT)
            )
        elif self._left:
            yield f"  its line {index + 1} has the same messages; the chat template or the tokenizer has changed"
        else:
            yield f"  its line {index + 1} is the same request, and used already"
        yield "  if the flow is right, record it anew with: flowrun SPEC --record FILE"


def load_cassette(path: Path) -> list[Recorded]:
    """Read a cassette.

    Raises:
        StoreError: a line cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as exc:
        raise StoreError(f"the cassette {path} cannot be read: {exc.strerror}") from exc
    recorded = []
    for number, line in enumerate(lines, 1):
        try:
            recorded.append(msgspec.json.decode(line, type=Recorded))
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise StoreError(f"{path}:{number}: not a cassette's line ({exc}): record it anew") from exc
        if (recorded[-1].reply is None) == (recorded[-1].error is None):
            raise StoreError(f"{path}:{number}: a cassette's line has a reply or an error: record it anew")
    return recorded


def _likeness(recorded: Recorded, lines: Sequence[str]) -> float:
    return difflib.SequenceMatcher(None, list(_request_lines(recorded.request)), list(lines), autojunk=False).ratio()


def _request_lines(request: Request) -> Iterator[str]:
    """Write a request for people, line by line."""
    for message in request.messages:
        yield from message_lines(_message(message))
    for tool in request.tools:
        yield f"tool {tool['name']}: {json.dumps(tool, ensure_ascii=False, sort_keys=True)}"
    yield f"tool_choice: {request.tool_choice}"
    yield from (f"sampling.{name}: {json.dumps(value)}" for name, value in sorted(request.sampling.items()))
    if request.response_format is not None:
        yield f"response_format: {json.dumps(request.response_format, ensure_ascii=False, sort_keys=True)}"


def _message(written: dict[str, JSON]) -> Message:
    calls = tuple(
        ToolCall(id=call["id"], name=call["function"]["name"], arguments=call["function"]["arguments"])
        for call in written.get("tool_calls", ())
    )
    return Message(role=written["role"], content=written["content"], tool_calls=calls, name=written.get("name"))
