"""Events as text and back, as they are; large texts are kept once.

In a body that is marked ``large``, a string that begins with NUL is not itself but the digest of a large value. One
that began with NUL before is kept as a large value too, so nothing can be mistaken.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import msgspec

from flowrun.core.events import Event
from flowrun.errors import StoreError
from flowrun.spec.model import JSON

LARGE: Final = 4096
"""A string of more bytes than these is kept once, however often it is said. About a page of SQLite's."""

_MARK: Final = "\x00"
_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE: Final[Callable[[str | bytes], Event]] = msgspec.json.Decoder(Event).decode


class Body(NamedTuple):
    """An event's text; ``large`` holds the strings that it only refers to, by their digests."""

    text: str
    large: Mapping[str, str]


def encode(event: Event) -> str:
    """Give an event as JSON, as it is: what is read back is what was written.

    Raises:
        StoreError: it holds what no JSON can: half a surrogate pair.
    """
    try:
        return _ENCODE(event).decode()
    except UnicodeEncodeError as exc:
        raise StoreError(f"an event of kind {type(event).__name__} cannot be kept: {exc}") from exc


def split(text: str) -> Body:
    """Take the large strings out of an event's JSON. A text that is no larger than one of them is not looked at."""
    if len(text) <= LARGE // 4 or len(text.encode()) <= LARGE:
        return Body(text, {})
    found: dict[str, str] = {}

    def take(string: str) -> str:
        if not string.startswith(_MARK) and not _is_large(string):
            return string
        digest = hashlib.blake2b(string.encode(), digest_size=20).hexdigest()
        found[digest] = string
        return _MARK + digest

    shortened = _ENCODE(_each_string(msgspec.json.decode(text), take)).decode()
    if not any(map(_is_large, found.values())):
        return Body(text, {})
    return Body(shortened, found)


def decode(text: str, large: Callable[[str], str] | None) -> Event:
    """Read an event; ``large`` gives large values by their digests, and is None for a body that has none.

    Raises:
        StoreError: it is no event that this version of flowrun knows.
    """
    try:
        if large is None:
            return _DECODE(text)
        return _DECODE(_ENCODE(_each_string(msgspec.json.decode(text), lambda string: _whole(string, large))))
    except msgspec.MsgspecError as exc:
        raise StoreError(f"an event of the journal cannot be read: {exc}; was it written by a newer flowrun?") from exc


def _is_large(string: str) -> bool:
    return len(string) > LARGE // 4 and len(string.encode()) > LARGE


def _whole(string: str, large: Callable[[str], str]) -> str:
    return large(string[1:]) if string.startswith(_MARK) else string


def _each_string(value: JSON, change: Callable[[str], str]) -> JSON:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _each_string(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_each_string(item, change) for item in value]
    return value
