"""A strict parser for JSON of models and people (RFC 8259): it refuses ambiguous JSON."""

import json
import math
from collections.abc import Mapping
from typing import Any, Final

import jiter
import msgspec

from flowrun.excerpts import cut
from flowrun.spec.model import JSON
from flowrun.unicode import find_encoding_error

_MAX_DEPTH: Final = 64


def parse_json(text: str) -> JSON:
    """Parse JSON strictly (RFC 8259): no NaN, no infinite number, no duplicate key, no lone surrogate, and at most
    ``_MAX_DEPTH`` levels.

    msgspec parses it, which refuses numbers that are too large. jiter finds keys that are there twice; there are none
    if the text has no more colons than the value has keys. A text that one of them refuses is parsed once more by
    Python's decoder, which finds the reason.

    Raises:
        ValueError: the text is not valid; the message is the reason.
    """
    try:
        value: JSON = msgspec.json.decode(text)
        if not isinstance(value, dict) or len(value) != text.count(":"):
            jiter.from_json(text.encode(), catch_duplicate_keys=True)
    except (ValueError, RecursionError):
        value = _decode(text)
    if len(text) > _MAX_DEPTH and text.count("[") + text.count("{") > _MAX_DEPTH and _deeper_than(value, _MAX_DEPTH):
        raise ValueError(f"it is nested more than {_MAX_DEPTH} levels deep")
    if ("\\u" in text or not text.isascii()) and (wrong := find_encoding_error(value)):
        raise ValueError(wrong)
    return value


def _decode(text: str) -> JSON:
    try:
        return _DECODER.decode(text)
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc


def _object(pairs: list[tuple[str, JSON]]) -> dict[str, JSON]:
    members = dict(pairs)
    if len(members) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {cut(twice, 80)!r} is there twice")
    return members


def _constant(name: str) -> JSON:
    raise ValueError(f"{name} is no JSON number")


def _real_number(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(f"the number {text[:40]} is too large")
    return number


def _deeper_than(value: JSON, levels: int) -> bool:
    if not isinstance(value, (dict, list)):
        return False
    if levels == 0:
        return True
    return any(_deeper_than(v, levels - 1) for v in (value.values() if isinstance(value, dict) else value))


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_real_number)


def parse_leniently(arguments: str) -> JSON:
    """Parse JSON for templates; return a text that is not JSON unchanged."""
    try:
        return msgspec.json.decode(arguments)
    except (ValueError, RecursionError):  # no JSON, or a lone surrogate, which no encoder accepts
        return arguments


def is_json_object(text: str) -> bool:
    """Return whether a text is a JSON object by the rules of ``parse_json``."""
    try:
        return isinstance(parse_json(text), dict)
    except ValueError:
        return False


def same(left: Any, right: Any) -> bool:
    """Return whether two JSON values are equal: 1 equals 1.0, but not true."""
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(same(value, right[key]) for key, value in left.items())
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return isinstance(left, bool) == isinstance(right, bool) and bool(left == right)
