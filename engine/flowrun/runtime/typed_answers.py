"""Values of an answer as a person types them in one line, by their schemas: choices, yes and no, numbers, lists. Pure.

JSON is typed only where nothing else fits: lists of lists, objects without declared properties.
"""

import re
from collections.abc import Mapping, Sequence
from json import dumps
from typing import Final, NamedTuple

from flowrun.excerpts import one_line
from flowrun.spec.json_types import declared_types
from flowrun.spec.model import JSON
from flowrun.spec.strict_json import parse_json

EMPTY_TEXT: Final = '""'
"""Typed for a text without characters; an empty line is no answer."""

ANY: Final = "answer"
"""How a value is typed of which the schema says nothing."""

SHOWN: Final = 80
"""The most characters of a value in a prompt."""

SCALARS: Final = frozenset({"string", "boolean", "integer", "number"})

COMBINED: Final = frozenset({"oneOf", "anyOf", "allOf", "if", "not"})
"""Keywords by which a schema may allow values of several types."""

_YES: Final = {"y", "yes", "true"}
_NO: Final = {"n", "no", "false"}


class Choice(NamedTuple):
    """A value that can be chosen, with its name and what is said about it."""

    value: JSON
    name: str
    note: str = ""


def read_answer(text: str, schema: Mapping[str, JSON]) -> JSON:
    """Read a typed value by its schema: a choice by its number or name, yes or no, a text as it is, else JSON.

    Text that does not fit is returned unchanged; the check against the schema refuses it.
    """
    if choices := choices_of(schema):
        return _choose(text, choices)
    types = declared_types(schema) - {"null"}
    word = text.strip().lower()
    if "boolean" in types and word in _YES | _NO:
        return word in _YES
    if types == {"string"}:
        return "" if text == EMPTY_TEXT else text
    if types == {"array"} and not text.lstrip().startswith("["):
        items = items_of(schema)
        if choices_of(items) or (declared_types(items) and declared_types(items) <= SCALARS):
            return [read_answer(part.strip(), items) for part in text.split(",") if part.strip()]
    try:
        return parse_json(text)
    except ValueError:
        return text


def needs_json(schema: Mapping[str, JSON]) -> bool:
    """Return whether some answers can only be given as JSON: those that are no choice, text, number, yes or no."""
    types, items = declared_types(schema) - {"null"}, declared_types(items_of(schema))
    is_line = types and (types <= SCALARS or (items and items <= SCALARS))
    return not (is_line or choices_of(schema) or choices_of(items_of(schema)))


def choices_of(schema: Mapping[str, JSON]) -> list[Choice]:
    """Return the choices of a schema that lists its values: by ``enum``, or by ``oneOf`` or ``anyOf`` of constants."""
    values = schema.get("enum")
    if isinstance(values, list) and declared_types(schema) != {"boolean"}:
        return [Choice(value, _name(value)) for value in values if value is not None]
    for keyword in ("oneOf", "anyOf"):
        parts = schema.get(keyword)
        if isinstance(parts, list) and parts and all(isinstance(part, Mapping) and "const" in part for part in parts):
            return [Choice(part["const"], _name(part["const"]), about(part)) for part in parts]
    return []


def items_of(schema: Mapping[str, JSON]) -> Mapping[str, JSON]:
    """Return the schema of the items of a list; an empty one if the schema is that of no list, or says nothing."""
    items = schema.get("items")
    return items if declared_types(schema) - {"null"} == {"array"} and isinstance(items, Mapping) else {}


def _choose(text: str, choices: Sequence[Choice]) -> JSON:
    """Return the value of the choice that is named, or numbered; names count before numbers."""
    word = text.strip()
    names = [choice.name for choice in choices if word.casefold() in (choice.name.casefold(), choice.note.casefold())]
    for name in (word, *names):
        if found := [choice.value for choice in choices if choice.name == name]:
            return found[0]
    if are_numbered(choices) and word.isdecimal() and 1 <= int(word) <= len(choices):
        return choices[int(word) - 1].value
    return text


def are_numbered(choices: Sequence[Choice]) -> bool:
    """Return whether choices have numbers: not if a name could be taken for one."""
    return not any(choice.name.strip().isdecimal() for choice in choices)


def how_to_type(schema: Mapping[str, JSON]) -> str:
    """Return what is typed for a value of a schema."""
    if choices := choices_of(schema):
        numbers = f"1 {'or' if len(choices) == 2 else 'to'} {len(choices)}"
        return f"{numbers}, or a name" if are_numbered(choices) else "one of these"
    if "const" in schema:
        return f"only {as_typed(schema['const'])}"
    types = declared_types(schema) - {"null"}
    match sorted(types):
        case ["boolean"]:
            return "yes or no"
        case ["string"]:
            return ANY if "format" not in schema else f"a {one_line(str(schema['format']), 20)}"
        case ["integer"] | ["number"] | ["integer", "number"]:
            return _number(schema, "a whole number" if types == {"integer"} else "a number")
        case ["array"] if items := items_of(schema):
            if choices_of(items):
                return "numbers or names, with commas between them"
            return _LISTS.get("".join(sorted(declared_types(items))), "a list, as JSON")
        case ["array"]:
            return "a list, as JSON"
        case ["object"]:
            return "an object, as JSON"
        case [] | [_, *_] if types <= SCALARS and schema.keys().isdisjoint(COMBINED):
            return ANY
        case _:
            return f"answer as JSON for {one_line(dumps(schema, ensure_ascii=False), 2 * SHOWN)}"


_LISTS: Final[Mapping[str, str]] = {
    "string": "texts, with commas between them, or a JSON list",
    "integer": "whole numbers, with commas between them",
    "number": "numbers, with commas between them",
    "boolean": "yes or no for each, with commas between them",
}


def _number(schema: Mapping[str, JSON], what: str) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        bounds = [f"from {least} to {most}"]
    else:
        bounds = [f"of at least {least}"] if least is not None else [f"of at most {most}"] if most is not None else []
    bounds += [f"{word} {schema[key]}" for key, word in _OTHER_BOUNDS.items() if key in schema]
    return " ".join((what, ", ".join(bounds))).rstrip()


_OTHER_BOUNDS: Final = {"exclusiveMinimum": "above", "exclusiveMaximum": "below", "multipleOf": "a multiple of"}


def about(schema: Mapping[str, JSON]) -> str:
    """Return the title and the description of a schema as one line."""
    texts = (schema.get("title"), schema.get("description"))
    return ": ".join(one_line(text, 2 * SHOWN) for text in texts if isinstance(text, str) and text)


def _name(value: JSON) -> str:
    return re.sub(r"\s+", " ", as_typed(value))


def as_typed(value: JSON) -> str:
    """Return a value as a person types it."""
    match value:
        case True | False:
            return "yes" if value else "no"
        case None:
            return "nothing"
        case str():
            return value or EMPTY_TEXT
        case [*parts] if all(isinstance(part, str | int | float) for part in parts):
            return ", ".join(map(as_typed, parts))
        case _:
            return dumps(value, ensure_ascii=False)
