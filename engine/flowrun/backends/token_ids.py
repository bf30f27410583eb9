"""Tokens of prompts and replies: packed, compared with what a thread knows, and kept with their log-probabilities."""

import sys
import zlib
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from flowrun.core.messages import Message, Tokens

if TYPE_CHECKING:
    Ids: TypeAlias = array[int]
    Numbers: TypeAlias = array[float]
else:
    Ids = Numbers = array  # it takes no index before Python 3.12


def ids_of(ids: Sequence[int] | bytes = ()) -> Ids:
    """Return tokens as an array; bytes hold 32 bits each, little-endian."""
    result = array("I", ids)
    if isinstance(ids, bytes):
        _swap_on_big_endian(result)
    return result


def numbers_of(packed: bytes) -> Numbers:
    """Return numbers that were packed as floats of 32 bits, little-endian."""
    result = array("f", packed)
    _swap_on_big_endian(result)
    return result


def pack(values: Ids | Numbers) -> bytes:
    """Return tokens or numbers in 32 bits each, little-endian."""
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values.tobytes()


def _swap_on_big_endian(values: Ids | Numbers) -> None:
    if sys.byteorder == "big":
        values.byteswap()


def pack_tokens(
    ids: Sequence[int],
    *,
    after: Sequence[int],
    vocabulary: int,
    thread: Sequence[Message] = (),
    logprobs: Sequence[float] = (),
) -> Tokens:
    """Return a reply's tokens as a ``Tokens``.

    Args:
        after: the tokens of its prompt.
        vocabulary: the fingerprint of the tokenizer's vocabulary.
        thread: the thread that was asked about.
        logprobs: of each token of the reply, to keep them with the tokens of the prompt.
    """
    prompt, reply = ids_of(after), ids_of(ids)
    both = prompt + reply
    packed = Tokens(vocabulary=vocabulary, ids=pack(reply), end=len(both), digest=zlib.crc32(pack(both)))
    if not logprobs:
        return packed
    last = _last_tokens(thread, vocabulary)
    known = last.end if last is not None and last.logprobs and _begin_with(prompt, last) else 0
    return msgspec.structs.replace(
        packed, begins=not known, prompt=pack(prompt[known:]), logprobs=pack(array("f", logprobs))
    )


def extends(ids: Sequence[int], messages: Sequence[Message], *, vocabulary: int) -> bool:
    """Return whether a prompt begins with all tokens that the model read and wrote up to its last reply.

    Args:
        messages: the thread with that reply.
    """
    last = _last_tokens(messages, vocabulary)
    return last is None or _begin_with(ids, last)


def _last_tokens(messages: Sequence[Message], vocabulary: int) -> Tokens | None:
    found = (message.tokens for message in reversed(messages))
    return next((tokens for tokens in found if tokens is not None and tokens.vocabulary == vocabulary), None)


def _begin_with(ids: Sequence[int], tokens: Tokens) -> bool:
    return zlib.crc32(pack(ids_of(ids[: tokens.end]))) == tokens.digest
