"""How a text is typed in a form: in one line or several, with which keys, and what is said about it. Pure."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from flowrun.runtime.typed_answers import ANY, how_to_type, items_of
from flowrun.serving.pages.controls import Entry
from flowrun.spec.json_types import declared_types
from flowrun.spec.model import JSON
from flowrun.unicode import MARK

_LINE: Final = 60
"""A text that is given with more characters has several lines to be edited in."""

_INPUT_TYPES: Final[Mapping[str, tuple[str, str]]] = {
    "date": ("date", r"(?!0000)\d{4}-\d\d-\d\d"),
    "date-time": ("datetime-local", r"(?!0000)\d{4}-\d\d-\d\dT\d\d:\d\d"),
    "email": ("email", r"[!-~]+"),
    "uri": ("url", r"[!-~]+"),
}
"""The type of an input for a format, and what such an input does not change by itself."""


def hints(entry: Entry) -> Iterator[str]:
    """Yield what a value must be, as far as its control does not show it."""
    schema = entry.field.schema
    match entry.look:
        case "scalar":
            how = how_to_type(schema)
            yield from () if how == ANY else (how,)
        case "text":
            yield from _of_text(schema)
        case "lines":
            yield f"one {_ITEMS.get(''.join(sorted(declared_types(items_of(schema)))), 'value')} per line"
        case "json":
            yield "as JSON"
    if entry.look in ("lines", "ticks", "rows"):
        least, most = schema.get("minItems"), schema.get("maxItems")
        yield from (f"at least {least}" for _ in (0,) if least)
        yield from (f"at most {most}" for _ in (0,) if most is not None)
    if entry.look == "text" and MARK in "".join(entry.initial()[entry.name]):
        yield f"{MARK} is a character that is not displayed; it stays what it was"


_ITEMS: Final = {"string": "text", "integer": "whole number", "number": "number", "boolean": "yes or no"}


_FORMATS: Final = {
    "date": "a date, such as 2026-01-31",
    "date-time": "without a zone, it is in UTC",
    "email": "an e-mail address",
    "uri": "an address, such as https://example.org/",
}


def _of_text(schema: Mapping[str, JSON]) -> Iterator[str]:
    if kind := text_of(schema, "format"):
        yield _FORMATS.get(kind, f"format: {kind}")
    if schema.get("minLength", 0):
        yield f"at least {schema['minLength']} characters"
    if "maxLength" in schema:
        yield f"at most {schema['maxLength']} characters"
    if "pattern" in schema:
        yield f"matches {schema['pattern']}"


def input_type(entry: Entry, text: str) -> str:
    """Return the type of the input: one that would change the text by itself is not used."""
    kind, kept = _INPUT_TYPES.get(text_of(entry.field.schema, "format"), ("text", ""))
    is_kept = entry.look == "text" and (not text or re.fullmatch(kept, text))
    return kind if is_kept else "text"


def input_mode(entry: Entry) -> str:
    """Return which keys a phone shows; those for numbers lack the minus sign."""
    schema = entry.field.schema
    types = declared_types(schema) - {"null"}
    least = schema.get("minimum", schema.get("exclusiveMinimum", -1))
    if entry.look != "scalar" or not types <= {"integer", "number"} or not types or least < 0:
        return ""
    return "numeric" if types == {"integer"} else "decimal"


def lines(entry: Entry, text: str) -> int:
    """Return the number of lines in which a text is typed; one that has no line breaks is in an input."""
    schema = entry.field.schema
    if entry.look in ("lines", "json") or "\n" in text:
        return min(max(text.count("\n") + 1, 3), 16)
    if entry.look != "text" or "format" in schema or "pattern" in schema:
        return 1
    most = schema.get("maxLength", None)
    is_short = len(text) <= 2 * _LINE if most is not None and most <= 2 * _LINE else 0 < len(text) <= _LINE
    return 1 if is_short else min(max(len(text) // 80 + 1, 2), 16)


def text_of(schema: Mapping[str, JSON], key: str) -> str:
    """Return the text under a key of a schema; an empty one if there is none."""
    text = schema.get(key)
    return text if isinstance(text, str) else ""
