"""Messages between users, models and tools. Frozen; a thread only grows at its end."""

import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, Final, Generic, Literal, TypeVar, overload

import msgspec

from flowrun.unicode import escape_surrogates, well_formed

T_co = TypeVar("T_co", covariant=True)

Role = Literal["system", "developer", "user", "assistant", "tool"]


class ToolCall(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A call of a tool that a model requests. ``arguments`` is the raw text of the model, which should be JSON.

    Texts are made valid Unicode, as in a ``Reply``.
    """

    id: str
    name: str
    arguments: str

    def __post_init__(self) -> None:
        if not (self.id.isascii() and self.name.isascii()):
            _make_well_formed(self, "id", "name")
        if not self.arguments.isascii():
            msgspec.structs.force_setattr(self, "arguments", escape_surrogates(self.arguments))


class Tokens(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """The tokens of a reply, which show whether a later prompt extends them.

    ``ids``, ``prompt`` and ``logprobs`` have 32 bits for each number, little-endian. The last four attributes are those
    of runs whose tokens are kept.

    Attributes:
        vocabulary: identifies the tokenizer: a thread may have replies of several models.
        ids: the tokens; the last one ended the reply.
        end: the number of tokens of the prompt and the reply.
        digest: the CRC-32 of the tokens of the prompt and the reply.
        begins: whether the prompt is not what the model read and wrote before, with more at its end.
        prompt: the tokens of the prompt, all of them if it ``begins``, else those behind the last reply.
        logprobs: the log-probability of each token of the reply, before temperature, biases and penalties; among the
            tokens that a grammar allowed, where one constrained it.
        masked: the text has a secret, so that these are not kept.
    """

    vocabulary: int
    ids: bytes
    end: int
    digest: int
    begins: bool = False
    prompt: bytes = b""
    logprobs: bytes = b""
    masked: bool = False


class KeptReply(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A reply that a chat accepted, in a run whose tokens are kept."""

    run: str
    thread: str
    state: str
    finish_reason: str
    tokens: Tokens


class Image(msgspec.Struct, frozen=True, gc=False):
    """An image of a message: a ``data:`` URI, or the address of one."""

    uri: str


IMAGE: Final = "[image]"
"""What stands for an image in the text of a message."""


class Message(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One message of a thread. ``tool_call_id`` and ``name`` are set in tool messages only.

    ``parts`` are the texts and images of a message with images; ``content`` then is their text. ``reasoning_key`` is
    the server's name for the reasoning. ``tokens`` is only for backends that tokenize prompts
    themselves; it is never shown.
    """

    role: Role
    content: str | None = None
    reasoning: str | None = None
    reasoning_key: str = "reasoning"
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    tokens: Tokens | None = None
    parts: tuple[str | Image, ...] = ()


def text_of_parts(parts: Iterable[str | Image]) -> str:
    """Return the content of a message with images, as text."""
    return "\n".join(part if isinstance(part, str) else IMAGE for part in parts)


def parts_as_openai(parts: Iterable[str | Image]) -> list[dict[str, Any]]:
    """Return the parts of a message in the form of the OpenAI chat API."""
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": part.uri}}
        for part in parts
    ]


class Usage(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """The tokens that a model read and wrote."""

    prompt_tokens: Annotated[int, "the tokens of the prompt"] = 0
    completion_tokens: Annotated[int, "the tokens of the reply"] = 0
    cached_tokens: Annotated[int, "the tokens of the prompt that came from the prefix cache"] = 0
    rerendered: Annotated[
        int,
        "the rounds whose prompt does not start with the tokens that the model read and wrote in the previous round of "
        "the thread, if the backend knows these",
    ] = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            rerendered=self.rerendered + other.rerendered,
        )


class Reply(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """The reply of a model, already parsed by the parsers of its family. Its texts are made valid Unicode.

    The machine sets the ``id`` of a call if it is empty.

    Attributes:
        reasoning_key: the server's name for the reasoning, under which it goes back.
        invalid_call: the error in a call that the parser could not read.
        refusal: the reason why the model declined.
        text: the raw text, if the backend knows it.
        tokens: the tokens, if the backend knows them.
        probabilities: in place of a text, those of the labels that the request has; all numbers are finite.
        mass: the share of all probability that the letters of the labels had.
    """

    content: str | None = None
    reasoning: str | None = None
    reasoning_key: str = "reasoning"
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: str = "stop"
    usage: Usage = Usage()
    invalid_call: str | None = None
    refusal: str | None = None
    text: str | None = None
    tokens: Tokens | None = None
    probabilities: Mapping[str, float] | None = None
    mass: float = 1.0

    def __post_init__(self) -> None:
        if self.probabilities is not None:
            _leave_out_infinite(self)
        for text in (self.content, self.text, self.finish_reason, self.reasoning, self.invalid_call, self.refusal):
            if text is not None and not text.isascii():
                _make_well_formed(self, "content", "text", "finish_reason", "reasoning", "invalid_call", "refusal")
                return

    def without_reasoning(self) -> "Reply":
        """Return the reply as a later prompt may have it if the reasoning is dropped.

        Its text and its tokens hold the reasoning, so they go too. The tokens' end and digest stay: the next prompt
        does not extend them, which ``Usage.rerendered`` counts.
        """
        if self.reasoning is None:
            return self
        tokens = None if self.tokens is None else msgspec.structs.replace(self.tokens, ids=b"")
        return msgspec.structs.replace(self, reasoning=None, text=None, tokens=tokens)

    @property
    def shown(self) -> str:
        """What the reply says to people: its text, or the labels with their probabilities, the likeliest first."""
        if self.probabilities is None:
            return self.content or ""
        ordered = sorted(self.probabilities.items(), key=lambda item: -item[1])
        unlikely = f" (mass {self.mass:.3f})" if self.mass < _SURE else ""
        return ", ".join(f"{label} {probability:.3f}" for label, probability in ordered) + unlikely


_SURE: Final = 0.9995
"""A mass from here on is shown as no number."""


def _leave_out_infinite(reply: Reply) -> None:
    """Leave out numbers that JSON, and so a journal, cannot hold."""
    finite = {label: number for label, number in (reply.probabilities or {}).items() if math.isfinite(number)}
    msgspec.structs.force_setattr(reply, "probabilities", finite)
    if not math.isfinite(reply.mass):
        msgspec.structs.force_setattr(reply, "mass", 0.0)


def _make_well_formed(struct: msgspec.Struct, *fields: str) -> None:
    """Replace texts that are not valid Unicode: no encoder accepts half of a surrogate pair."""
    for name in fields:
        text = getattr(struct, name)
        if text is not None and not text.isascii() and (valid := well_formed(text)) is not text:
            msgspec.structs.force_setattr(struct, name, valid)


FINISHED: Final = frozenset(
    {
        *("stop", "tool_calls", "function_call"),  # OpenAI, vLLM
        *("eos", "eos_token", "stop_sequence", "end_turn", "tool_use"),  # TGI, Anthropic
        *("complete", "completed", "tool_call"),  # Cohere and others
    }
)
"""Finish reasons, in lower case, of replies that the model ended by itself. All others are failures."""

CUT_OFF: Final = frozenset({"length", "max_tokens", "max_output_tokens", "model_length", "repetition"})
"""Finish reasons of replies that were cut off."""

DECLINED: Final = frozenset(
    {*("content_filter", "refusal", "safety"), *("recitation", "blocklist", "prohibited_content", "spii")}
)
"""Finish reasons of replies that the model or a filter refused."""


_new: Final = object.__new__


class Log(Sequence[T_co], Generic[T_co]):
    """An immutable sequence that shares its storage with the longer ones that are built from it.

    Appending to the newest one takes constant time; appending to an older one copies it.
    """

    __slots__ = ("_items", "_length")

    def __init__(self, items: Iterable[T_co] = ()) -> None:
        self._items = list(items)
        self._length = len(self._items)

    def appended(self, item: T_co) -> "Log[T_co]":  # type: ignore[misc]  # covariant, as in ``extended``
        """Return the sequence with one item after it."""
        items, length = self._items, self._length
        if len(items) != length:
            items = items[:length]
        items.append(item)
        longer: Log[T_co] = _new(Log)
        longer._items = items
        longer._length = length + 1
        return longer

    def extended(self, items: Iterable[T_co]) -> "Log[T_co]":
        """Return the sequence with ``items`` after it."""
        longer: Log[T_co] = _new(Log)
        longer._items = self._items if len(self._items) == self._length else self._items[: self._length]
        longer._items.extend(items)
        longer._length = len(longer._items)
        return longer

    def begins_with(self, other: "Log[Any]") -> bool:
        """Return whether another sequence is the first part of this one; at once if they share their storage."""
        if self._items is other._items:
            return self._length >= other._length
        return self[: len(other)] == tuple(other)

    @property
    def last(self) -> T_co | None:
        """The newest item, if there is any."""
        return self._items[self._length - 1] if self._length else None

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> T_co: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T_co]: ...
    def __getitem__(self, index: int | slice) -> T_co | Sequence[T_co]:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._length)
            return tuple(self._items[start:stop] if step == 1 else tuple(self)[index])
        if not -self._length <= index < self._length:
            raise IndexError(index)
        return self._items[index if index >= 0 else index + self._length]

    def __iter__(self) -> Iterator[T_co]:
        return islice(self._items, self._length)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Sequence)
            and len(other) == self._length
            and all(mine == its for mine, its in zip(self, other, strict=True))
        )

    def __hash__(self) -> int:
        return hash((Log, self._length))

    def __repr__(self) -> str:
        return f"Log({list(self)!r})"


class LastCalls(msgspec.Struct, frozen=True, gc=False):
    """The tool calls of the last message, at index ``at``, that is not a tool's.

    ``answered`` are the indices of the calls that the tool messages after it answer.
    """

    at: int
    calls: tuple[ToolCall, ...]
    answered: Collection[int] = ()

    @property
    def open(self) -> tuple[ToolCall, ...]:
        """The calls without an answer, in their order."""
        calls, answered = self.calls, self.answered
        if not answered:
            return calls
        return () if len(answered) == len(calls) else tuple(c for i, c in enumerate(calls) if i not in answered)


def has_open_calls(thread: Log[Message]) -> bool:
    """Return whether calls of a thread have no answer. Each of its tool messages answers a call of its own."""
    items, at = thread._items, thread._length - 1
    end = at
    while at >= 0 and items[at].role == "tool":
        at -= 1
    return at >= 0 and len(items[at].tool_calls) > end - at


def last_calls(thread: Log[Message]) -> LastCalls:
    """Return the calls of the last message that is not a tool's."""
    items, end = thread._items, thread._length
    at = end - 1
    while at >= 0 and items[at].role == "tool":
        at -= 1
    calls = items[at].tool_calls if at >= 0 else ()
    if not calls or at == end - 1:
        return LastCalls(at, calls)
    next_answer = at + 1
    for call in calls:
        if next_answer == end or items[next_answer].tool_call_id != call.id:
            break
        next_answer += 1
    if next_answer == end:  # the answers are in the order of the calls
        return LastCalls(at, calls, range(end - at - 1))
    answers = [message.tool_call_id for message in items[at + 1 : end]]
    indices: dict[str | None, deque[int]] = {}
    for index, call in enumerate(calls):
        indices.setdefault(call.id, deque()).append(index)
    waiting = map(indices.get, answers)
    return LastCalls(at, calls, frozenset(queue.popleft() for queue in waiting if queue))


def as_openai(message: Message) -> dict[str, Any]:
    """Return a message in the form of the OpenAI chat API, which chat templates use too; images as ``[image]``."""
    out: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.reasoning is not None:
        out["reasoning"] = message.reasoning
    if message.tool_calls:
        out["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        out["tool_call_id"] = message.tool_call_id
    if message.name is not None:
        out["name"] = message.name
    return out
