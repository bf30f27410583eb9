"""Events as text and back: without secrets, and with large texts kept once.

In a body that is marked ``large``, a string that begins with NUL is not itself but the digest of a large value. One
that began with NUL before is kept as a large value too, so nothing can be mistaken.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from flowrun.errors import StoreError
from flowrun.events import Event, Outcome
from flowrun.loading import redact
from flowrun.spec import JSON

LARGE: Final = 4096
"""A string of more bytes than these is kept once, however often it is said. About a page of SQLite's."""

_MARK: Final = "\x00"
_ENCODE: Final = msgspec.json.Encoder().encode
_DECODE: Final[Callable[[str | bytes], Event]] = msgspec.json.Decoder(Event).decode


class Body(NamedTuple):
    """An event's text; ``large`` holds the strings that it only refers to, by their digests."""

    text: str
    large: Mapping[str, str]


class Bodies:
    """Turns events into bodies. ``secrets`` are values that may never be kept, each with what to keep instead."""

    def __init__(self, secrets: Mapping[str, str] = {}) -> None:
        self._secrets = {
            spelling: name
            for secret, name in secrets.items()
            if secret
            for spelling in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1])
        }
        self._needles = tuple({_ENCODE(spelling)[1:-1] for spelling in self._secrets})

    def encode(self, event: Event) -> str:
        """Give an event as JSON without secrets.

        Raises:
            StoreError: it holds what no JSON can: half a surrogate pair.
        """
        try:
            body = _ENCODE(event)
            for needle in self._needles:
                if needle in body:
                    body = _ENCODE(self._redacted(event))
                    break
        except UnicodeEncodeError as exc:
            raise StoreError(f"an event of kind {type(event).__name__} cannot be kept: {exc}") from exc
        return body.decode()

    def redact(self, text: str) -> str:
        """Give a JSON document (a spec) without secrets; it is left as it is where there are none."""
        value = msgspec.json.decode(text)
        redacted = self._redacted(value)
        return text if redacted == value else _ENCODE(redacted).decode()

    def _redacted(self, value: Any) -> Any:
        """Copy a value with its strings redacted. Names of fields and of kinds stay, else nothing could be read."""
        match value:
            case str():
                return self._redacted_text(value)
            case msgspec.Struct():
                return self._redacted_struct(value)
            case Mapping():
                return {self._redacted(key): self._redacted(item) for key, item in value.items()}
            case list() | tuple():
                return type(value)(map(self._redacted, value))
            case _:
                return value

    def _redacted_text(self, text: str) -> str:
        """Redact a text; one that is JSON stays JSON: arguments and replies must be read again."""
        redacted = redact(text, self._secrets)
        if redacted == text or not text.lstrip().startswith(("{", "[")):
            return redacted
        if not _is_json(text) or _is_json(redacted):
            return redacted
        return _ENCODE(self._redacted(msgspec.json.decode(text))).decode()

    def _redacted_struct(self, value: msgspec.Struct) -> msgspec.Struct:
        fields = {name: getattr(value, name) for name in value.__struct_fields__}
        kept = {"status"} if isinstance(value, Outcome) else set()
        changed = {
            name: new
            for name, old in fields.items()
            if name not in kept and not isinstance(old, bytes) and (new := self._redacted(old)) != old
        }
        if changed:  # tokens would spell the secret as well
            changed |= {name: b"" for name, old in fields.items() if isinstance(old, bytes)}
        return msgspec.structs.replace(value, **changed)


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except ValueError:
        return False
    return True


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
