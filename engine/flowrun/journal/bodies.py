"""Events as JSON text and back, unchanged; large strings are stored once.

In a body that is marked ``large``, a string that begins with NUL is the digest of a large value. An event's own string
that begins with NUL is stored as a large value too, so the two cannot be confused.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import msgspec

from flowrun.core.events import Event
from flowrun.errors import StoreError
from flowrun.spec.model import JSON

LARGE: Final = 4096
"""A string of more bytes (UTF-8) is stored once, however many events hold it. The size of a page of SQLite."""

_MARK: Final = "\x00"
_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE: Final[Callable[[str | bytes], Event]] = msgspec.json.Decoder(Event).decode


class Body(NamedTuple):
    """An event's text; ``large`` maps the digests in it to the strings that they replace."""

    text: str
    large: Mapping[str, str]


def encode(event: Event) -> str:
    """Return an event as JSON text, from which ``decode`` restores an equal event.

    Raises:
        StoreError: the event holds half a surrogate pair, which JSON cannot hold.
    """
    try:
        return _ENCODE(event).decode()
    except UnicodeEncodeError as exc:
        raise StoreError(f"an event of kind {type(event).__name__} cannot be stored: {exc}") from exc


def split(text: str) -> Body:
    """Replace the large strings of an event's JSON by digests. A text that is too short to hold one is not parsed."""
    if len(text) <= LARGE // 4 or len(text.encode()) <= LARGE:
        return Body(text, {})
    found: dict[str, str] = {}

    def shorten(string: str) -> str:
        if not string.startswith(_MARK) and not _is_large(string):
            return string
        digest = hashlib.blake2b(string.encode(), digest_size=20).hexdigest()
        found[digest] = string
        return _MARK + digest

    shortened = _ENCODE(_map_strings(msgspec.json.decode(text), shorten)).decode()
    if not any(map(_is_large, found.values())):
        return Body(text, {})
    return Body(shortened, found)


def decode(text: str, large: Callable[[str], str] | None) -> Event:
    """Parse an event.

    Args:
        large: returns a large value by its digest; None for a body without large values.

    Raises:
        StoreError: the text is no event that this version of flowrun knows.
    """
    try:
        if large is None:
            return _DECODE(text)
        return _DECODE(_ENCODE(_map_strings(msgspec.json.decode(text), lambda string: _restore(string, large))))
    except msgspec.MsgspecError as exc:
        raise StoreError(f"an event of the journal cannot be read: {exc}; was it written by a newer flowrun?") from exc


def _is_large(string: str) -> bool:
    return len(string) > LARGE // 4 and len(string.encode()) > LARGE


def _restore(string: str, large: Callable[[str], str]) -> str:
    return large(string[1:]) if string.startswith(_MARK) else string


def _map_strings(value: JSON, change: Callable[[str], str]) -> JSON:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _map_strings(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_map_strings(item, change) for item in value]
    return value
