"""What to do about a mistake that the schema finds, drawn from the schema itself: examples, properties, neighbours.

``root`` is the whole schema, for the references in a subschema.
"""

import re
from collections.abc import Iterator
from typing import Final

from flowrun.spec.model import JSON
from flowrun.spec.phrases import inline, listed
from flowrun.spec.suggestions import closest

_OLD_BOOLEANS: Final = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def type_remedy(value: JSON, types: list[str], schema: dict[str, JSON]) -> str:
    """Say how a value of the wrong type becomes one of the right ``types``."""
    if isinstance(value, str):
        if "array" in types and "examples" not in schema:
            return f"write [{inline(value)}]"
        if "boolean" in types and value.lower() in _OLD_BOOLEANS:
            return f"write {_OLD_BOOLEANS[value.lower()]}; YAML 1.2 has no other words for it"
        if {"integer", "number"} & set(types) and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value):
            return "delete the quotes"
    elif value is None and {"object", "array"} & set(types):
        return "write what belongs there, indented below it, or delete the key"
    elif isinstance(value, bool | int | float) and "string" in types and "pattern" not in schema:
        return "put it in quotes"
    return like_example(schema)


def like_example(schema: dict[str, JSON]) -> str:
    """Show the first example of a subschema."""
    examples = schema.get("examples")
    return f"write it like {inline(examples[0])}" if examples else "see 'flowrun schema' for what may stand here"


def valid_name(name: str, schema: dict[str, JSON]) -> str:
    """Make a valid name of one that is not."""
    if len(name) > schema["maxLength"]:
        return f"shorten it to {schema['maxLength']} characters"
    similar = re.sub(r"[^A-Za-z0-9]+", "_", name)
    candidates = [candidate for candidate in (similar, f"_{similar}") if re.fullmatch(schema["pattern"], candidate)]
    return f"write {candidates[0]}" if candidates and candidates[0].strip("_") else like_example(schema)


def add_property(name: str, schema: JSON, root: dict[str, JSON]) -> str:
    """Ask for a property, with an example of its value if the schema has one."""
    example = _example(schema, root)
    return f"add '{name}'" if example is None else f"add '{name}: {inline(example)}'"


def _example(schema: JSON, root: dict[str, JSON]) -> JSON:
    """Give the first example of a subschema, or of one that it refers to."""
    for found in _referred(schema, root):
        if "examples" in found:
            return found["examples"][0]
        if "const" in found:
            return found["const"]
    return None


def _referred(schema: JSON, root: dict[str, JSON]) -> Iterator[dict[str, JSON]]:
    """Give a subschema, the one that it refers to, the one that this refers to, and so on."""
    while isinstance(schema, dict):
        yield schema
        if "$ref" not in schema:
            return
        target: JSON = root
        for part in schema["$ref"].split("/")[1:]:
            target = target[part]
        schema = target


def meant_by(name: str, free: list[str], schema: dict[str, JSON], root: dict[str, JSON]) -> str:
    """Say what an unknown property was to be: a free one misspelt, one of something else, or one further in."""
    known = schema.get("properties", {})
    if similar := closest(name, free):
        return f"did you mean '{similar}'?"
    if owners := _owners(name, schema.get("title", "mapping"), root):
        return owners
    if below := _nested(name, known, root):
        return f"did you mean '{below}'?"
    return f"the properties are: {', '.join(sorted(known))}"


def _nested(name: str, known: dict[str, JSON], root: dict[str, JSON]) -> str:
    """Give a property of a property that is called so, or nearly so: ``sampling.temperature``."""
    below = {
        f"{outer}.{inner}": inner
        for outer, schema in known.items()
        for found in _referred(schema, root)
        for inner in found.get("properties", {})
    }
    similar = closest(name, below.values())
    return next((path for path, inner in below.items() if inner == similar), "")


def _owners(name: str, title: str, root: dict[str, JSON]) -> str:
    """Say which other kinds of the same thing have a property: ``chat states have it``."""
    *_, thing = title.split()
    owners = [
        definition["title"].removesuffix(f" {thing}")
        for definition in root.get("$defs", {}).values()
        if definition.get("title", "").endswith(f" {thing}") and name in definition.get("properties", {})
    ]
    return f"{listed(owners, 'and', quote='')} {thing}s have it" if owners else ""
