"""JSON that a model wrote, taken strictly (RFC 8259): what is ambiguous is refused, never guessed."""

import json
from typing import Final

import msgspec

from flowrun.spec import JSON

_MAX_DEPTH: Final = 64
_SPACE: Final = " \t\n\r"


def parse_json(text: str) -> JSON:
    """Parse JSON strictly (RFC 8259): no NaN, no key twice, no half characters, no nesting
    beyond ``_MAX_DEPTH``.

    Raises:
        ValueError: it is not that, with the reason.
    """
    value = _decode(text)
    if text.count("[") + text.count("{") > _MAX_DEPTH and _deeper_than(value, _MAX_DEPTH):
        raise ValueError(f"it is nested more than {_MAX_DEPTH} levels deep")
    if "\\u" in text or not text.isascii():
        _check_characters(value)
    return value


def _decode(text: str) -> JSON:
    """Do what ``_DECODER.decode`` does, but without its two regular expressions, which take as long as the rest."""
    try:
        value, end = _DECODER.raw_decode(text, len(text) - len(text.lstrip(_SPACE)))
        return _DECODER.decode(text) if text[end:].lstrip(_SPACE) else value
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc


def _check_characters(value: JSON) -> None:
    """Refuse half of a surrogate pair: Python keeps it as a character, and nothing else takes it for one."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as exc:
        raise ValueError(f"it holds {exc.object[exc.start]!a}, which is half of a character") from exc


def _object(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    members = dict(pairs)
    if len(members) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is there twice")
    return members


def _constant(name: str) -> JSON:
    raise ValueError(f"{name} is no JSON number")


def _deeper_than(value: JSON, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    if levels == 0:
        return True
    return any(_deeper_than(v, levels - 1) for v in (value.values() if isinstance(value, dict) else value))


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def parse_leniently(arguments: str) -> JSON:
    """Parse JSON for templates to look at; what is none stays the text that it is."""
    try:
        return msgspec.json.decode(arguments)
    except (ValueError, RecursionError):  # no JSON, or half of a surrogate pair, which no encoder takes
        return arguments
