"""The form of an answer: the fields of a JSON Schema, each read from one line as a person types it. Pure.

JSON is typed only where nothing else fits: lists of lists, objects without declared properties.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from json import dumps
from typing import Any, Final, NamedTuple

import msgspec

from flowrun.core.json_schema import Validator, compile_schema
from flowrun.excerpts import one_line
from flowrun.spec.json_types import declared_types
from flowrun.spec.model import JSON
from flowrun.spec.references import follow_references
from flowrun.spec.strict_json import parse_json

EMPTY_TEXT: Final = '""'
"""Typed for a text without characters; an empty line is no answer."""

_YES: Final = {"y", "yes", "true"}
_NO: Final = {"n", "no", "false"}
_SCALARS: Final = {"string", "boolean", "integer", "number"}
_DEFINITIONS: Final = ("$defs", "definitions")
_COMBINED: Final = ("oneOf", "anyOf", "allOf", "if", "not")
_ANY: Final = "answer"
_SHOWN: Final = 80


class Choice(NamedTuple):
    """A value that can be chosen, with its name and what is said about it."""

    value: JSON
    name: str
    note: str = ""


class Condition(NamedTuple):
    """A field is asked for if another one has this value, or with ``unless``, another value."""

    path: tuple[str, ...]
    value: JSON
    unless: bool = False


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A field of a form. ``path`` is empty for an answer that is one value; ``schema`` has its references resolved.

    Attributes:
        optional: the field may be left out.
        nullable: left out, it is null.
        within: the number of names in ``path`` whose objects are required, also if all their fields are left out.
        validate: checks a value of the field.
        rows: the fields of each object of a list of objects.
        conditions: those under which it is asked for, and part of the answer.
    """

    path: tuple[str, ...]
    schema: Mapping[str, JSON]
    optional: bool
    nullable: bool
    within: int
    validate: Validator
    rows: "tuple[Field, ...]" = ()
    conditions: tuple[Condition, ...] = ()

    def is_asked(self, values: Mapping[tuple[str, ...], JSON]) -> bool:
        """Return whether the field is asked for, with these values of the fields before it."""
        return all((values.get(one.path) == one.value) is not one.unless for one in self.conditions)

    @property
    def has_default(self) -> bool:
        """Return whether the schema has a default that it allows."""
        return "default" in self.schema and self.validate(self.schema["default"]) is None

    def lines(self) -> Iterator[str]:
        """Yield what is shown above the field: what it is about, and its choices."""
        about = _about(self.schema)
        if self.path and about:
            yield f"{'.'.join(self.path)}: {about}"
        choices = choices_of(self.schema) or choices_of(_items(self.schema))
        numbered = _are_numbered(choices)
        width = max((len(choice.name) for choice in choices), default=0)
        for number, choice in enumerate(choices, 1):
            name = f"{choice.name:<{width}}  {choice.note}".rstrip()
            yield f"{number:>3}  {name}" if numbered else f"     {name}"

    def prompt(self, values: Mapping[tuple[str, ...], JSON]) -> str:
        """Return the prompt of the field: its name, how it is typed, and what an empty line means.

        Args:
            values: the values of the fields that have been answered before.
        """
        if self.path in values:
            empty = f"Enter keeps {one_line(_as_typed(values[self.path]), _SHOWN)}"
        elif self.has_default:
            empty = f"Enter is {one_line(_as_typed(self.schema['default']), _SHOWN)}"
        else:
            empty = "Enter is nothing" if self.nullable else "Enter leaves it out" if self.optional else ""
        how = _how_to_type(self.schema)
        how = "how many" if self.rows else "text" if self.path and how == _ANY else how
        name = ".".join(self.path)
        return f"{name}{', ' if name and how else ''}{how}{f' ({empty})' if empty else ''}"


def fields_of(schema: Mapping[str, JSON]) -> list[Field]:
    """Return the fields of a form for an answer: one, unless the answer is an object with declared properties."""
    return list(_fields((), schema, schema, optional=False, seen=(), within=0))


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
        items = _items(schema)
        if choices_of(items) or (declared_types(items) and declared_types(items) <= _SCALARS):
            return [read_answer(part.strip(), items) for part in text.split(",") if part.strip()]
    try:
        return parse_json(text)
    except ValueError:
        return text


def needs_json(schema: Mapping[str, JSON]) -> bool:
    """Return whether some answers can only be given as JSON: those that are no choice, text, number, yes or no."""
    types, items = declared_types(schema) - {"null"}, declared_types(_items(schema))
    is_line = types and (types <= _SCALARS or (items and items <= _SCALARS))
    return not (is_line or choices_of(schema) or choices_of(_items(schema)))


def assemble(fields: Sequence[Field], values: Mapping[tuple[str, ...], JSON]) -> JSON:
    """Return the answer of the values of its fields."""
    answer: dict[str, Any] = {}
    for field in fields:
        if not field.path:
            return values[()]
        is_given = field.path in values and field.is_asked(values)
        at = answer
        for name in field.path[:-1] if is_given else field.path[: field.within]:
            at = at.setdefault(name, {})
        if is_given:
            at[field.path[-1]] = values[field.path]
    return answer


def choices_of(schema: Mapping[str, JSON]) -> list[Choice]:
    """Return the choices of a schema that lists its values: by ``enum``, or by ``oneOf`` or ``anyOf`` of constants."""
    values = schema.get("enum")
    if isinstance(values, list) and declared_types(schema) != {"boolean"}:
        return [Choice(value, _name(value)) for value in values if value is not None]
    for keyword in ("oneOf", "anyOf"):
        parts = schema.get(keyword)
        if isinstance(parts, list) and parts and all(isinstance(part, Mapping) and "const" in part for part in parts):
            return [Choice(part["const"], _name(part["const"]), _about(part)) for part in parts]
    return []


def _fields(
    path: tuple[str, ...],
    schema: JSON,
    root: Mapping[str, JSON],
    *,
    optional: bool,
    seen: tuple[JSON, ...],
    within: int,
) -> Iterator[Field]:
    resolved = _resolve(schema, root)
    types = declared_types(resolved)
    reference = schema.get("$ref") if isinstance(schema, Mapping) else None
    properties = resolved.get("properties")
    is_object = types <= {"object", "null"} and isinstance(properties, Mapping) and bool(properties)
    defaults = default if isinstance(default := resolved.get("default"), Mapping) else {}
    keeps_all = isinstance(properties, Mapping) and defaults.keys() <= properties.keys()  # else some would be lost
    if is_object and keeps_all and not choices_of(resolved) and reference not in seen:
        required = resolved.get("required")
        names = required if isinstance(required, list) else []
        inner_seen = (*seen, reference) if isinstance(reference, str) else seen
        for name, part, conditions in _members(path, resolved):
            if name in defaults:
                part = {**(part if isinstance(part, Mapping) else {}), "default": defaults[name]}
            inner = optional or "null" in types or name not in names
            required_here = within if optional or "null" in types else len(path)
            for field in _fields((*path, name), part, root, optional=inner, seen=inner_seen, within=required_here):
                yield msgspec.structs.replace(field, conditions=(*conditions, *field.conditions))
        return
    nullable = "null" in types or None in (resolved.get("enum") or ())
    items = _resolve(_items(resolved), root)
    rows = items.get("properties") and declared_types(items) <= {"object"} and items not in seen
    yield Field(
        path=path,
        schema=resolved,
        optional=optional or nullable,
        nullable=nullable and not optional,
        within=within,
        rows=tuple(_fields((), items, root, optional=False, seen=(*seen, items), within=0)) if rows else (),
        validate=compile_schema(root) if schema is root else _part_validator(resolved, root),
    )


def _members(path: tuple[str, ...], schema: Mapping[str, JSON]) -> Iterator[tuple[str, JSON, tuple[Condition, ...]]]:
    """Yield the properties of an object; those of ``then`` and ``else`` with the value of a property that they need."""
    yield from ((name, part, ()) for name, part in schema["properties"].items())
    tested = schema.get("if")
    tests = tested.get("properties") if isinstance(tested, Mapping) else None
    if not isinstance(tests, Mapping) or len(tests) != 1:
        return
    ((tested_name, test),) = tests.items()
    if not isinstance(test, Mapping) or "const" not in test:
        return
    for keyword, unless in (("then", False), ("else", True)):
        branch = schema.get(keyword)
        further = branch.get("properties") if isinstance(branch, Mapping) else None
        for name, part in further.items() if isinstance(further, Mapping) else ():
            if name not in schema["properties"]:
                yield name, part, (Condition((*path, tested_name), test["const"], unless),)


def _part_validator(part: Mapping[str, JSON], root: Mapping[str, JSON]) -> Validator:
    """Compile the validator of a part of a schema.

    References to definitions mean the same there; with others, only the answer as a whole is checked.
    """
    alone = {**{key: root[key] for key in _DEFINITIONS if key in root}, **part}
    references = re.findall(r'"\$(?:ref|dynamicRef)": "([^"]*)', dumps(alone))
    if all(reference.startswith(("#/$defs/", "#/definitions/")) for reference in references):
        return compile_schema(alone)
    return lambda value: None


def _resolve(schema: JSON, root: Mapping[str, JSON]) -> Mapping[str, JSON]:
    """Return a schema with its own reference, and that of its items, replaced by what they lead to.

    A schema that may also be null is its other part, with null as a further type.
    """
    chain = list(follow_references(schema, root))[:8]
    resolved: dict[str, JSON] = {}
    for part in reversed(chain):
        resolved |= {key: value for key, value in part.items() if key not in ("$ref", *_DEFINITIONS)}
    for keyword in ("anyOf", "oneOf"):
        parts = resolved.get(keyword)
        if isinstance(parts, list) and len(parts) == 2 and {"type": "null"} in parts:
            other = _resolve(next(part for part in parts if part != {"type": "null"}), root)
            if (types := declared_types(other)) or "enum" in other:
                del resolved[keyword]
                resolved = {**other, **resolved}
                if types:
                    resolved["type"] = [*sorted(types), "null"]
                if isinstance(values := resolved.get("enum"), list):
                    resolved["enum"] = [*values, None]
    if "const" in resolved:
        resolved.setdefault("default", resolved["const"])
    if isinstance(resolved.get("items"), Mapping):
        resolved["items"] = _resolve(resolved["items"], root) if "$ref" in resolved["items"] else resolved["items"]
    return resolved


def _items(schema: Mapping[str, JSON]) -> Mapping[str, JSON]:
    items = schema.get("items")
    return items if declared_types(schema) - {"null"} == {"array"} and isinstance(items, Mapping) else {}


def _choose(text: str, choices: Sequence[Choice]) -> JSON:
    """Return the value of the choice that is named, or numbered; names count before numbers."""
    word = text.strip()
    names = [choice.name for choice in choices if word.casefold() in (choice.name.casefold(), choice.note.casefold())]
    for name in (word, *names):
        if found := [choice.value for choice in choices if choice.name == name]:
            return found[0]
    if _are_numbered(choices) and word.isdecimal() and 1 <= int(word) <= len(choices):
        return choices[int(word) - 1].value
    return text


def _are_numbered(choices: Sequence[Choice]) -> bool:
    """Return whether choices have numbers: not if a name could be taken for one."""
    return not any(choice.name.strip().isdecimal() for choice in choices)


def _how_to_type(schema: Mapping[str, JSON]) -> str:
    if choices := choices_of(schema):
        numbers = f"1 {'or' if len(choices) == 2 else 'to'} {len(choices)}"
        return f"{numbers}, or a name" if _are_numbered(choices) else "one of these"
    if "const" in schema:
        return f"only {_as_typed(schema['const'])}"
    types = declared_types(schema) - {"null"}
    match sorted(types):
        case ["boolean"]:
            return "yes or no"
        case ["string"]:
            return _ANY if "format" not in schema else f"a {one_line(str(schema['format']), 20)}"
        case ["integer"] | ["number"] | ["integer", "number"]:
            return _number(schema, "a whole number" if types == {"integer"} else "a number")
        case ["array"] if items := _items(schema):
            if choices_of(items):
                return "numbers or names, with commas between them"
            return _LISTS.get("".join(sorted(declared_types(items))), "a list, as JSON")
        case ["array"]:
            return "a list, as JSON"
        case ["object"]:
            return "an object, as JSON"
        case [] | [_, *_] if types <= _SCALARS and schema.keys().isdisjoint(_COMBINED):
            return _ANY
        case _:
            return f"answer as JSON for {one_line(dumps(schema, ensure_ascii=False), 2 * _SHOWN)}"


_LISTS: Final[Mapping[str, str]] = {
    "string": "texts, with commas between them, or a JSON list",
    "integer": "whole numbers, with commas between them",
    "number": "numbers, with commas between them",
    "boolean": "yes or no for each, with commas between them",
}


def _number(schema: Mapping[str, JSON], what: str) -> str:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        return f"{what} from {least} to {most}"
    bound = f" of at least {least}" if least is not None else f" of at most {most}" if most is not None else ""
    return what + bound


def _about(schema: Mapping[str, JSON]) -> str:
    """Return the title and the description of a schema as one line."""
    texts = (schema.get("title"), schema.get("description"))
    return ": ".join(one_line(text, 2 * _SHOWN) for text in texts if isinstance(text, str) and text)


def _name(value: JSON) -> str:
    return re.sub(r"\s+", " ", _as_typed(value))


def _as_typed(value: JSON) -> str:
    """Return a value as a person types it."""
    match value:
        case True | False:
            return "yes" if value else "no"
        case None:
            return "nothing"
        case str():
            return value or EMPTY_TEXT
        case [*parts] if all(isinstance(part, str | int | float) for part in parts):
            return ", ".join(map(_as_typed, parts))
        case _:
            return dumps(value, ensure_ascii=False)
