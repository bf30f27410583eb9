"""Converts values to text: None to an empty text, numbers in decimal notation, lists and mappings to JSON."""

import math
from collections.abc import Iterator, KeysView, Mapping, Set, ValuesView
from json import JSONEncoder, dumps
from typing import Any, Final

from flowrun.spec.model import JSON
from flowrun.templates.limits import TemplateError, check_length, check_weight, counted
from flowrun.unicode import find_encoding_error

_PLAIN: Final = frozenset({str, int, bool, type(None)})
_LISTED: Final = (Iterator, range, KeysView, ValuesView, Set, list, tuple)

_encode = JSONEncoder(ensure_ascii=False).encode


def as_text(value: JSON) -> str:
    """Return a value as text.

    Raises:
        TemplateError: the value is not a JSON value, or too large.
    """
    if isinstance(value, str):
        return value if type(value) is str else str.__str__(value)
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    return as_json(value)


def as_json(value: JSON, indent: int | None = None) -> str:
    """Return a value as JSON text, in which non-ASCII characters are not escaped.

    Raises:
        TemplateError: the value is not a JSON value, or too large.
    """
    check_weight(value)
    try:
        text = _encode(value) if indent is None else dumps(value, ensure_ascii=False, indent=indent)
    except TypeError:
        text = dumps(value, ensure_ascii=False, indent=indent, default=_plain)
    check_length(len(text), "the JSON")
    return text


def _plain(value: Any) -> JSON:
    """Return a JSON value for a value of a type that the encoder does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TemplateError(f"a value of type {type(value).__name__} is no JSON value; the filter list makes a list of it")


def concatenate(parts: list[Any]) -> str:
    """Join values as text: the operator ``~``.

    Raises:
        UndefinedError: a value is undefined.
        TemplateError: the text would be too large.
    """
    texts = [as_text(_require_defined(part)) for part in parts]
    check_length(sum(map(len, texts)), "the joined text")
    return "".join(texts)


def _require_defined(value: Any) -> Any:
    from jinja2 import Undefined

    if isinstance(value, Undefined):
        str(value)  # StrictUndefined raises an UndefinedError that names the missing member
    return value


def as_native(value: Any) -> JSON:
    """Return an expression's value as a JSON value; an iterator becomes a list.

    Raises:
        TemplateError: the value is not a JSON value, or too large.
    """
    if type(value) in _PLAIN:
        return as_well_formed(value) if type(value) is str else value
    check_weight(value)
    value = value if _is_plain(value) else _to_plain(value)
    if wrong := find_encoding_error(value):
        raise TemplateError(f"it gave a value that cannot be written down: {wrong}")
    return value


def as_well_formed(text: str) -> str:
    """Return the text unchanged if it is valid Unicode.

    Raises:
        TemplateError: it holds a lone surrogate.
    """
    if not text.isascii() and (wrong := find_encoding_error(text)):
        raise TemplateError(f"it gave a text that cannot be written down: {wrong}")
    return text


def _is_plain(value: Any) -> bool:
    stack = [value]
    while stack:
        member = stack.pop()
        kind = type(member)
        if kind is dict:
            stack.extend(member.values())
        elif kind is list or kind is tuple:
            stack.extend(member)
        elif kind not in _PLAIN and not (kind is float and math.isfinite(member)):
            return False
    return True


def _to_plain(value: Any) -> JSON:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, str):
        return as_text(value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Mapping):
        return {key: _to_plain(member) for key, member in value.items()}
    if isinstance(value, _LISTED):
        return [_to_plain(item) for item in counted(value, 1)]
    _require_defined(value)
    what = f"the number {value}" if isinstance(value, float) else f"a value of type {type(value).__name__}"
    raise TemplateError(f"it gave {what}, which JSON has not")
