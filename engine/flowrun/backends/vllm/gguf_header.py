"""Reads what a GGUF file says of its tokenizer, without loading it.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

import hashlib
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""The bytes of a value, by its type."""
_TEXT: Final = 8
_ARRAY: Final = 9
_TEMPLATE: Final = "tokenizer.chat_template"


class GgufTokenizer(NamedTuple):
    """The SHA-256 of the tokenizer's entries, and the chat template; None if the file has none."""

    digest: str
    chat_template: str | None


def read_tokenizer(file: Path) -> GgufTokenizer:
    """Return what a GGUF file says of its tokenizer.

    Raises:
        ValueError: the file is damaged, or of another version of the format.
    """
    digest, template = hashlib.sha256(), None
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        try:
            for key, start, end in _entries(content):
                if key == _TEMPLATE:
                    template = content[start + 12 : end].decode()
                elif key.startswith("tokenizer."):
                    digest.update(key.encode() + content[start:end])
        except (struct.error, KeyError, IndexError) as exc:
            raise ValueError(f"{file.name} is damaged: {exc}") from exc
    return GgufTokenizer(digest.hexdigest(), template)


def _entries(content: mmap.mmap) -> Iterator[tuple[str, int, int]]:
    """Yield each key with where its value, with the value's type before it, begins and ends."""
    magic, version, _, count = struct.unpack_from("<4sIQQ", content)
    if magic != b"GGUF" or version not in (2, 3):
        raise ValueError(f"it is no GGUF of version 2 or 3, but of {version}")
    at = 24
    for _ in range(count):
        (length,) = struct.unpack_from("<Q", content, at)
        key = content[at + 8 : at + 8 + length].decode()
        at += 8 + length
        (kind,) = struct.unpack_from("<I", content, at)
        end = _end_of(content, at + 4, kind)
        yield key, at, end
        at = end


def _end_of(content: mmap.mmap, at: int, kind: int) -> int:
    if kind == _TEXT:
        (length,) = struct.unpack_from("<Q", content, at)
        return int(at + 8 + length)
    if kind != _ARRAY:
        return at + _SIZES[kind]
    of, count = struct.unpack_from("<IQ", content, at)
    at += 12
    if of not in (_TEXT, _ARRAY):
        return int(at + count * _SIZES[of])
    for _ in range(count):
        at = _end_of(content, at, of)
    return at
