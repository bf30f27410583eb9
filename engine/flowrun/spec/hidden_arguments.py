"""Takes the arguments that a spec gives out of the schema of a tool's arguments, so that a model neither sees nor gives
them. An argument that the schema mentions elsewhere cannot be taken out.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from json import dumps
from typing import Final

from flowrun.errors import Path
from flowrun.spec.model import JSON
from flowrun.spec.references import find_target

_IN_PLACE: Final = ("if", "then", "else", "not")
_IN_PLACE_LISTS: Final = ("allOf", "anyOf", "oneOf")
_DATA: Final = ("default", "const", "examples", "enum")


def without_arguments(schema: Mapping[str, JSON], hidden: Collection[str]) -> Mapping[str, JSON]:
    """Return a schema of arguments without those that are hidden, and without definitions that only they need."""
    if not hidden:
        return schema
    reduced = {**schema, "properties": {name: part for name, part in _properties(schema).items() if name not in hidden}}
    if "required" in schema:
        reduced["required"] = [name for name in schema["required"] if name not in hidden]
    if isinstance(definitions := schema.get("$defs"), Mapping):
        rest = {key: value for key, value in reduced.items() if key != "$defs"}
        reduced["$defs"] = {name: definitions[name] for name in _used(definitions, rest)}
        if not reduced["$defs"]:
            del reduced["$defs"]
    return reduced


def mentions_of(schema: Mapping[str, JSON], name: str) -> Iterator[Path]:
    """Yield the paths of the keywords of a schema that mention an argument, but for its own entry and ``required``."""
    yield from _mentions(schema, name, (), schema, frozenset({"#"}))
    reference = re.compile(rf'"\$ref": "#/properties/{re.escape(_escaped(name))}["/]')
    if reference.search(dumps({**schema, "properties": without_arguments(schema, [name])["properties"]})):
        yield ("$ref",)


def _mentions(schema: JSON, name: str, path: Path, root: JSON, seen: frozenset[str]) -> Iterator[Path]:
    """Yield the mentions in a schema, and in those that hold for the same object."""
    if not isinstance(schema, Mapping):
        return
    if path:
        yield from ((*path, key) for key in ("properties", "required") if name in (schema.get(key) or ()))
    for key in ("dependentRequired", "dependentSchemas", "dependencies"):
        dependencies = schema.get(key)
        if isinstance(dependencies, Mapping):
            others = [names for names in dependencies.values() if isinstance(names, list)]
            if name in dependencies or any(name in names for names in others):
                yield (*path, key)
    if any(re.search(pattern, name) for pattern in schema.get("patternProperties") or ()):
        yield (*path, "patternProperties")
    for key in _DATA:
        values = schema.get(key)
        if any(isinstance(value, Mapping) and name in value for value in (values, *_items(values))):
            yield (*path, key)
    for where, part in _same_object(schema):
        yield from _mentions(part, name, (*path, *where), root, seen)
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference not in seen:
        target = find_target(root, reference)
        if any(True for _ in _mentions(target, name, (*path, "$ref"), root, seen | {reference})):
            yield (*path, "$ref")


def _same_object(schema: Mapping[str, JSON]) -> Iterator[tuple[Path, JSON]]:
    """Yield the subschemas of the object itself, not of its members, with their paths."""
    yield from (((key,), schema[key]) for key in _IN_PLACE if key in schema)
    for key in _IN_PLACE_LISTS:
        yield from (((key, index), part) for index, part in enumerate(_items(schema.get(key))))
    dependent = schema.get("dependentSchemas")
    if isinstance(dependent, Mapping):
        yield from ((("dependentSchemas", name), part) for name, part in dependent.items())


def _properties(schema: Mapping[str, JSON]) -> Mapping[str, JSON]:
    properties = schema.get("properties")
    return properties if isinstance(properties, Mapping) else {}


def _items(value: JSON) -> list[JSON]:
    return value if isinstance(value, list) else []


def _used(definitions: Mapping[str, JSON], rest: JSON) -> list[str]:
    """Return the names of the definitions that a schema refers to, and those that they refer to, in their order."""
    used: set[str] = set()
    waiting = [rest]
    while waiting:
        text = dumps(waiting.pop())
        for name in definitions:
            if name not in used and re.search(rf'"#/\$defs/{re.escape(_escaped(name))}["/]', text):
                used.add(name)
                waiting.append(definitions[name])
    return [name for name in definitions if name in used]


def _escaped(name: str) -> str:
    """Return a name as it stands in a reference within JSON text."""
    return dumps(name.replace("~", "~0").replace("/", "~1"))[1:-1]
