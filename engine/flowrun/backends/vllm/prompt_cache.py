"""A prompt extends the very tokens that the model read and wrote before, wherever its chat template lets it.

Text put into tokens anew may give others than the model wrote: from there on the prefix cache misses, and the model
reads what it did not write. So a reply's own tokens stand in a prompt in place of its text, and only what stands
between replies is tokenized. The prompt depends on the request alone; whatever is remembered here only saves time.
"""

import asyncio
import contextlib
import copy
import functools
import re
import sys
import threading
import zlib
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

from flowrun.core.events import AskModel
from flowrun.core.messages import Message, Tokens

if TYPE_CHECKING:
    Ids: TypeAlias = array[int]
else:
    Ids = array  # it takes no index before Python 3.12
T = TypeVar("T")
Whole: TypeAlias = str | Ids
"""A rendered prompt: a text, or tokens where the tokenizer gives no text (Mistral's)."""

_HEADS: Final = 64 * 2**20  # bytes for the last prompts of threads, whose next round extends them
_PIECES: Final = 16 * 2**20  # bytes for texts that many prompts share, in tokens
_LONG: Final = 8_000  # characters; to render more holds the event loop up for too long
_WORD: Final = re.compile(r"[A-Za-z0-9]+")
_SAMPLE: Final = ("A first text ", "\n of two words\n", " and\n\na last one")

_asked: ContextVar[AskModel | None] = ContextVar("flowrun_asked", default=None)
"""The request that is being rendered: vLLM's steps hand nothing of ours on to the one that needs it."""


class ThreadHead(NamedTuple):
    """A prompt that the model read: what was rendered, and its tokens, in which the replies are as it wrote them."""

    asked: tuple[Any, ...]
    messages: Sequence[Message]
    whole: Whole
    ids: Ids


def written(ids: Sequence[int], *, after: Sequence[int], vocabulary: int) -> Tokens:
    """Keep a reply's tokens; the model had read ``after``."""
    reply = _array(ids)
    both = _array(after) + reply
    return Tokens(vocabulary=vocabulary, ids=_bytes(reply), end=len(both), digest=zlib.crc32(_bytes(both)))


def extends(ids: Sequence[int], messages: Sequence[Message], *, vocabulary: int) -> bool:
    """Tell whether a prompt begins with all that the model read and wrote for its last reply in ``messages``."""
    kept = (message.tokens for message in reversed(messages))
    last = next((tokens for tokens in kept if tokens is not None and tokens.vocabulary == vocabulary), None)
    return last is None or zlib.crc32(_bytes(_array(ids[: last.end]))) == last.digest


class Recent(Generic[T]):
    """The things used last, of so many bytes together; from any thread."""

    def __init__(self, limit: int, size: Callable[[T], int]) -> None:
        from cachetools import LRUCache

        self._things: Any = LRUCache(limit, getsizeof=size)
        self._lock = threading.Lock()

    def get(self, key: object) -> T | None:
        """Give what was kept, if it still is."""
        with self._lock:
            found: T | None = self._things.get(key)
        return found

    def keep(self, key: object, thing: T) -> None:
        """Keep something, unless it is larger than everything may be."""
        with self._lock, contextlib.suppress(ValueError):
            self._things[key] = thing


class PromptCache:
    """Stands in a renderer of vLLM's between its rendering of messages and its tokenizing."""

    def __init__(self, renderer: Any, *, ends: Sequence[int], max_model_len: int) -> None:
        """Take the place of two of the renderer's methods; ``ends`` are the tokens that end a reply."""
        self._tokenizer = renderer.tokenizer
        self.vocabulary = _fingerprint(self._tokenizer.get_vocab())
        self._render = renderer.render_messages
        self._render_chat = renderer.render_chat
        self._ends = dict(zip(ends, self._tokenizer.convert_ids_to_tokens(list(ends)), strict=True))
        self._end = re.compile("|".join(re.escape(text) for text in self._ends.values()) or r"(?!)")
        self._longest = max_model_len * self._tokenizer.max_chars_per_token
        self._heads = Recent[ThreadHead](_HEADS, lambda head: 4 * len(head.whole) + 4 * len(head.ids))
        self._pieces = Recent[Ids](_PIECES, lambda ids: 8 * len(ids))
        self._quick: Any = None
        self._divides = self._ends_divide()
        self._quick = self._rust_alone()
        renderer.render_messages = self._render_messages
        renderer.render_chat_async = self._render_chat_async

    @contextlib.contextmanager
    def of(self, ask: AskModel) -> Iterator[None]:
        """Render the messages of this request meanwhile."""
        token = _asked.set(ask)
        try:
            yield
        finally:
            _asked.reset(token)

    async def _render_chat_async(self, *args: Any, **kwargs: Any) -> Any:
        """Render here what is short, and in a thread what is long.

        vLLM's own puts every template into a thread and makes tasks for each step: on busy processors that costs more
        than the rendering itself.
        """
        ask = _asked.get()
        if ask is None or _is_long(ask.messages):
            return await asyncio.to_thread(functools.partial(self._render_chat, *args, **kwargs))
        return self._render_chat(*args, **kwargs)

    def _render_messages(self, messages: list[Any], params: Any) -> tuple[Any, Any]:
        ask = _asked.get()
        if ask is None:
            conversation, prompt = self._render(messages, params)
            return conversation, prompt
        head = self._head(ask, messages, params)  # first, for rendering changes the messages
        conversation, prompt = self._render(messages, params)
        whole = self._whole(prompt)
        if whole is None:
            return conversation, prompt
        ids = self._tokens(whole, head, ask.messages)
        self._heads.keep((ask.run, ask.thread), ThreadHead(_read_with(ask), tuple(ask.messages), whole, ids))
        own = head is not None or isinstance(whole, array)
        return conversation, {"prompt_token_ids": ids.tolist()} | ({} if own else {"prompt": whole})

    def _whole(self, prompt: Mapping[str, Any]) -> Whole | None:
        """Give what was rendered; None if it is more than text, or for vLLM to tokenize or refuse."""
        if prompt.keys() == {"prompt_token_ids"}:
            return _array(prompt["prompt_token_ids"])
        if prompt.keys() == {"prompt"} and self._divides and len(prompt["prompt"]) <= self._longest:
            return str(prompt["prompt"])
        return None

    def _head(self, ask: AskModel, messages: list[Any], params: Any) -> ThreadHead | None:
        """Give the prompt of the round in which the thread's last reply was written."""
        kept = [message.tokens for message in ask.messages]
        spoken = [number for number, one in enumerate(kept) if one is not None and one.vocabulary == self.vocabulary]
        if not spoken:
            return None
        asked, before = _read_with(ask), tuple(ask.messages[: spoken[-1]])
        head = self._heads.get((ask.run, ask.thread))
        if head is not None and head.asked == asked and head.messages == before:
            return head
        head = None
        for index in spoken:
            _, prompt = self._render(copy.deepcopy(messages[:index]), params)
            whole = self._whole(prompt)
            if whole is None:
                return None
            head = ThreadHead(asked, before[:index], whole, self._tokens(whole, head, ask.messages))
        return head

    def _tokens(self, whole: Whole, head: ThreadHead | None, messages: Sequence[Message]) -> Ids:
        """Put a rendered prompt into tokens, which extend those of ``head`` and of its reply if that is possible."""
        start = len(head.whole) if head is not None else 0
        if head is None or whole[:start] != head.whole:  # the template writes the earlier messages in another way now
            return self._ids_of(whole)
        reply, *following = messages[len(head.messages) :][:2]
        own = _array(reply.tokens.ids) if reply.tokens else _array()
        end = self._next_end(whole, start)
        if end is not None and own and own[-1] in self._ends:
            rest = whole[end:]
            if self._same(reply, self._text(whole[start:end]), own) and _in(self._text(rest), following):
                return head.ids + own + self._ids_of(rest)[1:]
        if isinstance(whole, array):
            return head.ids + whole[start:]
        # This reply is rendered, but those before it stay: all is kept up to the last place where text may be divided.
        assert isinstance(head.whole, str)
        *_, text_end = 0, *(found.start() for found in self._end.finditer(head.whole))
        ids_end = next((index for index in reversed(range(len(head.ids))) if head.ids[index] in self._ends), 0)
        return head.ids[:ids_end] + self._ids_of(whole[text_end:])

    def _next_end(self, whole: Whole, start: int) -> int | None:
        """Find where the reply that begins at ``start`` ends."""
        if isinstance(whole, str):
            found = self._end.search(whole, start)
            return None if found is None else found.start()
        return next((index for index in range(start, len(whole)) if whole[index] in self._ends), None)

    def _same(self, reply: Message, told: str, own: Ids) -> bool:
        """Tell whether a template tells a reply whole, in ``told``, and tells no more than the model wrote.

        Some drop its reasoning, and some tell ids of calls, to which results refer, that the model did not write.
        """
        parts = [reply.reasoning, reply.content, *(call.name for call in reply.tool_calls)]
        if not all(part.strip() in told for part in parts if part):
            return False
        spoken = [*parts, *(call.arguments for call in reply.tool_calls)]
        if any(self._end.search(part) for part in spoken if part):  # its end cannot be told from one that it quotes
            return False
        ids = [call.id for call in reply.tool_calls if call.id in told]
        return not ids or all(map(self._text(own).__contains__, ids))

    def _text(self, whole: Whole) -> str:
        if isinstance(whole, str):
            return whole
        return str(self._tokenizer.decode(whole.tolist(), skip_special_tokens=True))

    def _ids_of(self, whole: Whole) -> Ids:
        """Put a text into tokens piece by piece, for most pieces are in many prompts."""
        if isinstance(whole, array):
            return whole
        joined = _array()
        for number, piece in enumerate(self._divided(whole)):
            ids = self._pieces.get(piece)
            if ids is None:
                ids = self._tokenize(piece)
                self._pieces.keep(piece, ids)
            joined += ids[1:] if number else ids
        return joined

    def _divided(self, text: str) -> list[str]:
        """Divide a text at the ends of turns; each is in both pieces, for a tokenizer may take the space around it."""
        ends = list(self._end.finditer(text))
        starts, stops = [0, *(end.start() for end in ends)], [*(end.end() for end in ends), len(text)]
        return [text[start:stop] for start, stop in zip(starts, stops, strict=True)]

    def _tokenize(self, text: str) -> Ids:
        if self._quick is not None and len(text) <= _LONG:  # it keeps other threads waiting meanwhile
            return _array(self._quick.encode(text, add_special_tokens=False).ids)
        return _array(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _rust_alone(self) -> Any:
        """Give the tokenizer behind that of transformers, if it alone gives the same.

        transformers has even a single text tokenized by a pool of threads: many times the work of a short text.
        """
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        if backend is None:
            return None
        backend.no_truncation()
        backend.no_padding()
        texts = [*_SAMPLE, *(f"{end}{end} é\u200d漢 {end}\n" for end in self._ends.values()), *_SAMPLE[::-1]]
        for text in ("".join(texts), *texts):
            if _array(backend.encode(text, add_special_tokens=False).ids) != self._tokenize(text):
                return None
        return backend

    def _ends_divide(self) -> bool:
        """Tell whether this tokenizer gives a text's tokens when it is given the pieces."""
        for number, end in self._ends.items():
            first, *others = map(self._tokenize, self._divided(end.join(_SAMPLE)))
            if any(ids[:1] != _array([number]) for ids in others):
                return False
            if sum((ids[1:] for ids in others), first) != self._tokenize(end.join(_SAMPLE)):
                return False
        return bool(self._ends)


def _fingerprint(vocabulary: Mapping[str, int]) -> int:
    """Give the same for the same vocabulary, on any machine; a part of it will do."""
    part = sorted((number, text) for text, number in vocabulary.items() if number % 89 == 0)
    return zlib.crc32(repr((len(vocabulary), part)).encode(errors="surrogatepass"))


def _read_with(ask: AskModel) -> tuple[Any, ...]:
    """Give what a template may show besides the messages."""
    return ask.tools, ask.tool_choice, ask.response_format


def _in(text: str, messages: Sequence[Message]) -> bool:
    """Tell whether a text holds the messages, by their longest words; templates escape other characters."""
    words = (max(_WORD.findall(message.content or ""), key=len, default="") for message in messages)
    return all(word in text for word in words)


def _is_long(messages: Sequence[Message]) -> bool:
    said = sum(len(message.content or "") + len(message.reasoning or "") for message in messages)
    return said + sum(len(call.arguments) for message in messages for call in message.tool_calls) > _LONG


def _array(ids: Sequence[int] | bytes = ()) -> Ids:
    made = array("I", ids)
    if isinstance(ids, bytes) and sys.byteorder == "big":
        made.byteswap()
    return made


def _bytes(ids: Ids) -> bytes:
    if sys.byteorder == "big":
        ids = ids[:]
        ids.byteswap()
    return ids.tobytes()
