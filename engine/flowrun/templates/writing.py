"""Values as text: None as nothing, text as it is, numbers plainly, all else as JSON."""

import json
import math
from collections.abc import Iterator, KeysView, Mapping, Set, ValuesView
from typing import Any, Final

from flowrun.spec.model import JSON
from flowrun.templates.limits import TemplateError, check_length, check_weight, counted
from flowrun.unicode import fault_of

_PLAIN: Final = frozenset({str, int, bool, type(None)})
_LISTED: Final = (Iterator, range, KeysView, ValuesView, Set, list, tuple)

_encode = json.JSONEncoder(ensure_ascii=False).encode


def as_text(value: JSON) -> str:
    """Write a value into a text."""
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
    """Write a value as JSON, characters as they are.

    Raises:
        TemplateError: it is none, or too large.
    """
    check_weight(value)
    try:
        text = _encode(value) if indent is None else json.dumps(value, ensure_ascii=False, indent=indent)
    except TypeError:
        text = json.dumps(value, ensure_ascii=False, indent=indent, default=_plain)
    check_length(len(text), "the JSON")
    return text


def _plain(value: Any) -> JSON:
    """Give what JSON has for a value of a kind that the encoder does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TemplateError(f"a value of type {type(value).__name__} is no JSON value; the filter list makes a list of it")


def concatenate(parts: list[Any]) -> str:
    """Join values as text: what ``~`` does."""
    texts = [as_text(_defined(part)) for part in parts]
    check_length(sum(map(len, texts)), "the joined text")
    return "".join(texts)


def _defined(value: Any) -> Any:
    from jinja2 import Undefined

    if isinstance(value, Undefined):
        str(value)  # a strict one raises an UndefinedError that names what is missing
    return value


def as_native(value: Any) -> JSON:
    """Give an expression's value as JSON has it: what is still being made becomes a list.

    Raises:
        TemplateError: it is no JSON value, or too large.
    """
    if type(value) in _PLAIN:
        return as_well_formed(value) if type(value) is str else value
    check_weight(value)
    value = value if _is_plain(value) else _made_plain(value)
    if wrong := fault_of(value):
        raise TemplateError(f"it gave a value that cannot be written down: {wrong}")
    return value


def as_well_formed(text: str) -> str:
    """Give a text that a template made.

    Raises:
        TemplateError: it holds half of a surrogate pair.
    """
    if not text.isascii() and (wrong := fault_of(text)):
        raise TemplateError(f"it gave a text that cannot be written down: {wrong}")
    return text


def _is_plain(value: Any) -> bool:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        kind = type(one)
        if kind is dict:
            waiting.extend(one.values())
        elif kind is list or kind is tuple:
            waiting.extend(one)
        elif kind not in _PLAIN and not (kind is float and math.isfinite(one)):
            return False
    return True


def _made_plain(value: Any) -> JSON:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, str):
        return as_text(value)
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Mapping):
        return {key: _made_plain(member) for key, member in value.items()}
    if isinstance(value, _LISTED):
        return [_made_plain(item) for item in counted(value, 1)]
    _defined(value)
    what = f"the number {value}" if isinstance(value, float) else f"a value of type {type(value).__name__}"
    raise TemplateError(f"it gave {what}, which JSON has not")
