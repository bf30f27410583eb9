"""A prompt extends the exact tokens that the model read and wrote before, if its chat template allows it.

If the text of a reply is tokenized again, its tokens may differ from those that the model wrote: from there on the
prefix cache misses, and the model reads a history that is not its own. So a prompt holds a reply's own tokens in place
of its text, and only the text between replies is tokenized. A prompt depends on the request alone; the caches here only
save time.
"""

import asyncio
import contextlib
import functools
import re
import threading
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

import msgspec

from flowrun.backends.chat_api import wire_message
from flowrun.backends.token_ids import Ids, ids_of
from flowrun.backends.vllm.forms import ChatMessage, Forms
from flowrun.backends.vllm.special_texts import SpecialTexts
from flowrun.backends.vllm.template_input import TemplateInput, make_inputs
from flowrun.core.events import AskModel
from flowrun.core.messages import Log, Message

T = TypeVar("T")
RenderedPrompt: TypeAlias = str | Ids
"""A text, or tokens if the tokenizer returns no text (Mistral's)."""

_PROMPTS_SIZE: Final = 192 * 2**20  # bytes for the last prompt of each thread, which the next round extends
_PIECES_SIZE: Final = 16 * 2**20  # bytes for the tokens of texts that many prompts share
_MESSAGE_SIZE: Final = 1_000  # bytes for the forms of a message; about, since the arguments of its calls may be large
_LONG: Final = 8_000  # characters; rendering more would block the event loop for too long
_MANY: Final = 500  # messages, likewise
_WORD: Final = re.compile(r"[A-Za-z0-9]+")
_SAMPLE: Final = ("A first text ", "\n of two words\n", " and\n\na last one")

_request: ContextVar["Asked | None"] = ContextVar("flowrun_request", default=None)
"""The request that is being rendered: vLLM's functions do not pass it to the one that needs it."""

_seen: ContextVar[list[Mapping[str, Any]] | None] = ContextVar("flowrun_seen_prompts", default=None)
"""Collects the prompts that are rendered; None: nobody does."""


class CachedPrompt(NamedTuple):
    """A prompt that the model read: as rendered, and as tokens, which hold the replies as the model wrote them.

    Attributes:
        settings: the inputs of the template besides the messages.
        sent: the messages in the form of the OpenAI chat API.
        given: what the template was given for them.
        extends: the template wrote the earlier messages of the thread as for the prompt before.
    """

    settings: tuple[Any, ...]
    messages: Log[Message]
    sent: Sequence[ChatMessage]
    given: TemplateInput
    rendered: RenderedPrompt
    ids: Ids
    extends: bool


class Asked(NamedTuple):
    """A request while it is rendered.

    Attributes:
        sent: its messages in the form of the OpenAI chat API.
        known: the prompt of the thread that is cached, if its messages begin those of the request.
        new: the messages that it does not have.
        last: the known prompt, if the last reply of the thread is its answer.
    """

    ask: AskModel
    sent: list[ChatMessage]
    known: CachedPrompt | None
    new: Sequence[Message]
    last: CachedPrompt | None

    @property
    def new_sent(self) -> Sequence[ChatMessage]:
        """The new messages in the form of the OpenAI chat API."""
        return self.sent[len(self.sent) - len(self.new) :]


class Recent(Generic[T]):
    """A thread-safe LRU cache, limited by the bytes of all its values."""

    def __init__(self, limit: int, size: Callable[[T], int]) -> None:
        from cachetools import LRUCache

        self._values: Any = LRUCache(limit, getsizeof=size)
        self._lock = threading.Lock()

    def get(self, key: object) -> T | None:
        """Return a value, or None if it is not cached any more."""
        with self._lock:
            found: T | None = self._values.get(key)
        return found

    def store(self, key: object, value: T) -> None:
        """Cache a value, unless it alone exceeds the limit."""
        with self._lock, contextlib.suppress(ValueError):
            self._values[key] = value


class PromptCache:
    """Replaces two methods of a vLLM renderer: those that apply the chat template and then call the tokenizer."""

    def __init__(
        self,
        renderer: Any,
        *,
        forms: Forms,
        ends: Sequence[int],
        max_model_len: int,
    ) -> None:
        """Replace the methods of ``renderer``.

        Args:
            renderer: vLLM's renderer of the model.
            forms: the form of a conversation that the model's template takes.
            ends: the ids of the tokens that end a reply.
        """
        self._tokenizer = renderer.tokenizer
        self.vocabulary = _fingerprint(self._tokenizer.get_vocab())
        self._render_unasked = renderer.render_messages
        self._render_chat = renderer.render_chat
        self._ends = dict(zip(ends, self._tokenizer.convert_ids_to_tokens(list(ends)), strict=True))
        self._end = re.compile("|".join(re.escape(text) for text in self._ends.values()) or r"(?!)")
        self._longest = max_model_len * self._tokenizer.max_chars_per_token
        self._prompts = Recent[CachedPrompt](_PROMPTS_SIZE, _bytes_of)
        self._pieces = Recent[Ids](_PIECES_SIZE, lambda ids: 8 * len(ids))
        self._rust_tokenizer: Any = None
        self._special = SpecialTexts(_special_texts(self._tokenizer))
        self._inputs = make_inputs(renderer, forms, self._special)
        self._spelled = list(map(self._spell, self._special.texts))
        self._can_split = True
        self._can_split = self._check_splitting()
        self._rust_tokenizer = self._find_rust_tokenizer()
        renderer.render_messages = self._render_messages
        renderer.render_chat_async = self._render_chat_async

    @contextlib.contextmanager
    def rendering(self, ask: AskModel) -> Iterator[Asked]:
        """Set the request that is rendered within the block."""
        known = self._prompts.get((ask.run, ask.thread))
        if known is not None and (known.settings != _settings(ask) or not ask.messages.begins_with(known.messages)):
            known = None
        new = ask.messages[len(known.messages) :] if known else ask.messages
        sent = [*(known.sent if known else ()), *map(wire_message, new)]
        last = known if new and self._is_own(new[0]) and not any(map(self._is_own, new[1:])) else None
        asked = Asked(ask, sent, known, new, last)
        token = _request.set(asked)
        try:
            yield asked
        finally:
            _request.reset(token)

    def messages_of(self, asked: Asked) -> list[ChatMessage]:
        """Return the messages of a request for vLLM, which may change them."""
        return msgspec.to_builtins(asked.sent) if self._inputs.changes_messages else list(asked.sent)

    @contextlib.contextmanager
    def seeing(self) -> Iterator[list[Mapping[str, Any]]]:
        """Collect the prompts that are rendered within the block, before vLLM looks whether they are too long."""
        seen: list[Mapping[str, Any]] = []
        token = _seen.set(seen)
        try:
            yield seen
        finally:
            _seen.reset(token)

    async def _render_chat_async(self, *args: Any, **kwargs: Any) -> Any:
        """Render here where little is new in the thread, and else in a worker thread.

        vLLM's own method renders every template in a worker thread and creates a task for each step: on busy processors
        that costs more than the rendering itself.
        """
        asked = _request.get()
        if asked is None or _is_long(asked):
            return await asyncio.to_thread(functools.partial(self._render_chat, *args, **kwargs))
        return self._render_chat(*args, **kwargs)

    def _render_messages(self, messages: list[Any], params: Any) -> tuple[Any, Any]:
        conversation, prompt = self._render_request(messages, params)
        if (seen := _seen.get()) is not None:
            seen.append(prompt)
        return conversation, prompt

    def _render_request(self, messages: list[Any], params: Any) -> tuple[Any, Any]:
        asked = _request.get()
        if asked is None:
            conversation, prompt = self._render_unasked(messages, params)
            return conversation, prompt
        ask, known = asked.ask, asked.known
        last = self._last_prompt(asked, messages, params)
        given = self._given(known or last, messages, params)
        conversation, prompt = self._inputs.render(given, params)
        rendered = self._rendered(prompt)
        if rendered is None:
            return conversation, {
                **prompt,
                "prompt": self._special.restore(prompt["prompt"]),
            } if "prompt" in prompt else prompt
        made = self._make_prompt(asked, ask.messages, given, rendered, last)
        if not ask.labels:  # no later prompt extends that of a decision
            self._prompts.store((ask.run, ask.thread), made)
        own = last is not None or isinstance(rendered, array)
        return conversation, {"prompt_token_ids": made.ids.tolist()} | ({} if own else {"prompt": self._text(rendered)})

    def _rendered(self, prompt: Mapping[str, Any]) -> RenderedPrompt | None:
        """Return the text or tokens of a prompt; None if it has other parts, or if vLLM must tokenize or refuse it."""
        if prompt.keys() == {"prompt_token_ids"}:
            return ids_of(prompt["prompt_token_ids"])
        if prompt.keys() == {"prompt"} and len(text := str(prompt["prompt"])) <= self._longest:
            return text if self._can_split or self._special.stands_in(text) else None
        return None

    def _last_prompt(self, asked: Asked, messages: list[Any], params: Any) -> CachedPrompt | None:
        """Return the prompt of the thread's last reply, rendered again if it is not cached; None without a reply."""
        if asked.last is not None:
            return asked.last
        last = None
        for index in [index for index, message in enumerate(asked.ask.messages) if self._is_own(message)]:
            given = self._given(last, messages[:index], params)
            rendered = self._rendered(self._inputs.render(given, params)[1])
            if rendered is None or (isinstance(rendered, str) and not self._can_split):
                return None
            last = self._make_prompt(asked, Log(asked.ask.messages[:index]), given, rendered, last)
        return last

    def _make_prompt(
        self,
        asked: Asked,
        messages: Log[Message],
        given: TemplateInput,
        rendered: RenderedPrompt,
        last: CachedPrompt | None,
    ) -> CachedPrompt:
        """Return the prompt of a request's first messages, after that of the ``last`` reply among them."""
        extends = last is None or _begins(rendered, last.rendered)
        ids = self._tokenize_prompt(rendered, last if extends else None, asked.ask.messages)
        sent = asked.sent[: len(messages)]
        return CachedPrompt(_settings(asked.ask), messages, sent, given, rendered, ids, extends)

    def _is_own(self, message: Message) -> bool:
        """Return whether a message is a reply with tokens of this vocabulary."""
        return message.tokens is not None and message.tokens.vocabulary == self.vocabulary

    def _given(self, before: CachedPrompt | None, messages: Sequence[ChatMessage], params: Any) -> TemplateInput:
        """Return what the template is given for messages, of which an earlier prompt may have the first."""
        if before is None:
            return self._inputs.extend(TemplateInput(), messages, params)
        return self._inputs.extend(before.given, messages[len(before.messages) :], params)

    def _tokenize_prompt(self, rendered: RenderedPrompt, last: CachedPrompt | None, messages: Sequence[Message]) -> Ids:
        """Return a prompt's tokens, which extend those of the ``last`` prompt and of its reply if that is possible.

        Args:
            last: the prompt as whose the rendered one begins; None: there is none, or the template changed it.
        """
        if last is None:
            return self._ids_of(rendered)
        start = len(last.rendered)
        reply, *following = messages[len(last.messages) :][:2]
        own = ids_of(reply.tokens.ids) if reply.tokens else ids_of()
        end = self._find_end(rendered, start)
        if end is not None and own and own[-1] in self._ends:
            rest = rendered[end:]
            if self._is_faithful(reply, self._text(rendered[start:end]), own) and _holds(self._text(rest), following):
                return last.ids + own + self._ids_of(rest)[1:]
        if isinstance(rendered, array):
            return last.ids + rendered[start:]
        # This reply is tokenized from its text; the tokens of the last prompt stay up to its last end of a turn.
        assert isinstance(last.rendered, str)
        *_, text_end = 0, *(found.start() for found in self._end.finditer(last.rendered))
        ids_end = next((index for index in reversed(range(len(last.ids))) if last.ids[index] in self._ends), 0)
        return last.ids[:ids_end] + self._ids_of(rendered[text_end:])

    def _find_end(self, rendered: RenderedPrompt, start: int) -> int | None:
        """Return the index of the end of the reply that begins at ``start``."""
        if isinstance(rendered, str):
            found = self._end.search(rendered, start)
            return None if found is None else found.start()
        return next((index for index in range(start, len(rendered)) if rendered[index] in self._ends), None)

    def _is_faithful(self, reply: Message, text: str, own: Ids) -> bool:
        """Return whether a template's ``text`` holds all of a reply, and nothing that the model did not write.

        Some templates drop the reasoning, and some add the ids of calls, to which results refer.

        Args:
            own: the reply's own tokens.
        """
        parts = [reply.reasoning, reply.content, *(call.name for call in reply.tool_calls)]
        if not all(part.strip() in text for part in parts if part):
            return False
        texts = [*parts, *(call.arguments for call in reply.tool_calls)]
        if any(self._end.search(part) for part in texts if part):  # the reply quotes an end of a turn
            return False
        ids = [call.id for call in reply.tool_calls if call.id in text]
        return not ids or all(map(self._text(own).__contains__, ids))

    def _text(self, rendered: RenderedPrompt) -> str:
        if isinstance(rendered, str):
            return self._special.restore(rendered)
        return str(self._tokenizer.decode(rendered.tolist(), skip_special_tokens=True))

    def _ids_of(self, rendered: RenderedPrompt) -> Ids:
        """Return a prompt's tokens; a text is tokenized in pieces, most of which occur in many prompts."""
        if isinstance(rendered, array):
            return rendered
        joined = ids_of()
        for number, piece in enumerate(self._split(rendered)):
            ids = self._pieces.get(piece)
            if ids is None:
                ids = self._tokenize(piece)
                self._pieces.store(piece, ids)
            joined += ids[1:] if number else ids
        return joined

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of a rendered prompt."""
        return self._ids_of(text).tolist()

    def _split(self, text: str) -> list[str]:
        """Split a text at the ends of turns; each end is in both pieces, as its token may include spaces around it."""
        if not self._can_split:
            return [text]
        ends = list(self._end.finditer(text))
        starts, stops = [0, *(end.start() for end in ends)], [*(end.end() for end in ends), len(text)]
        return [text[start:stop] for start, stop in zip(starts, stops, strict=True)]

    def _tokenize(self, text: str) -> Ids:
        parts = self._special.split(text)
        return sum(
            (self._spelled[one] if isinstance(one, int) else self._tokenize_text(one) for one in parts), ids_of()
        )

    def _tokenize_text(self, text: str) -> Ids:
        if not text:
            return ids_of()
        if self._rust_tokenizer is not None and len(text) <= _LONG:  # it holds the GIL meanwhile
            return ids_of(self._rust_tokenizer.encode(text, add_special_tokens=False).ids)
        return ids_of(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _spell(self, text: str) -> Ids:
        """Return the tokens of the text of a special token that a message spells: none of them is special."""
        ids = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if getattr(self._tokenizer, "backend_tokenizer", None) is not None:
            self._tokenizer.backend_tokenizer.encode_special_tokens = False  # the call has set it
        if set(ids).isdisjoint(self._tokenizer.all_special_ids):
            return ids_of(ids)
        return self._tokenize_text(text[:1]) + self._tokenize_text(text[1:])

    def _find_rust_tokenizer(self) -> Any:
        """Return the Rust tokenizer behind that of transformers if their tokens are equal for samples, or None.

        transformers tokenizes even a single text by a pool of threads: many times the work of a short text.
        """
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:
            return None
        backend.no_truncation()
        backend.no_padding()
        texts = [*_SAMPLE, *(f"{end}{end} é\u200d漢 {end}\n" for end in self._ends.values()), *_SAMPLE[::-1]]
        for text in ("".join(texts), *texts):
            if ids_of(backend.encode(text, add_special_tokens=False).ids) != self._tokenize(text):
                return None
        return backend

    def _check_splitting(self) -> bool:
        """Return whether the tokens of a sample text are those of its pieces."""
        for id, end in self._ends.items():
            first, *others = map(self._tokenize, self._split(end.join(_SAMPLE)))
            if any(ids[:1] != ids_of([id]) for ids in others):
                return False
            if sum((ids[1:] for ids in others), first) != self._tokenize(end.join(_SAMPLE)):
                return False
        return bool(self._ends)


def _special_texts(tokenizer: Any) -> set[str]:
    """Return the texts of a tokenizer's special tokens; none for Mistral's own, which takes no text for a token."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {token.content for token in added.values() if token.special}


def _fingerprint(vocabulary: Mapping[str, int]) -> int:
    """Return a checksum of a sample of the vocabulary, the same on all machines."""
    sample = sorted((id, text) for text, id in vocabulary.items() if id % 89 == 0)
    return zlib.crc32(repr((len(vocabulary), sample)).encode(errors="surrogatepass"))


def _begins(rendered: RenderedPrompt, other: RenderedPrompt) -> bool:
    if isinstance(rendered, str) and isinstance(other, str):
        return rendered.startswith(other)
    return rendered[: len(other)] == other


def _bytes_of(prompt: CachedPrompt) -> int:
    return 4 * len(prompt.rendered) + 4 * len(prompt.ids) + _MESSAGE_SIZE * len(prompt.messages)


def _settings(ask: AskModel) -> tuple[Any, ...]:
    """Return the inputs of a template besides the messages. Tools that must not be called are in the prompt too."""
    return ask.tools, "auto" if ask.tool_choice == "none" else ask.tool_choice, ask.response_format


def _holds(text: str, messages: Sequence[Message]) -> bool:
    """Return whether a text holds the longest word of each message; templates may escape other characters."""
    words = (max(_WORD.findall(message.content or ""), key=len, default="") for message in messages)
    return all(word in text for word in words)


def _is_long(asked: Asked) -> bool:
    """Return whether much is rendered or tokenized for a request: the new text, or all where no prompt is extended."""
    if len(asked.ask.messages) > _MANY:
        return True
    messages = asked.new if asked.last is not None and asked.last.extends else asked.ask.messages
    length = sum(len(message.content or "") + len(message.reasoning or "") for message in messages)
    return length + sum(len(call.arguments) for message in messages for call in message.tool_calls) > _LONG
