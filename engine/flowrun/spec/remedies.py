"""Remedies of mistakes that the schema check finds, derived from the schema: its examples, properties and titles.

``root`` is the root schema, in which the ``$ref`` of a subschema is resolved.
"""

import re
from typing import Final

from flowrun.spec.model import JSON
from flowrun.spec.phrases import inline, listed
from flowrun.spec.references import follow_references
from flowrun.spec.suggestions import closest

_YAML_1_1_BOOLEANS: Final = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


def type_remedy(value: JSON, types: list[str], schema: dict[str, JSON]) -> str:
    """Return a remedy that converts a value of the wrong type to one of the JSON ``types``."""
    if isinstance(value, str):
        if "array" in types and "examples" not in schema:
            return f"write [{inline(value)}]"
        if "boolean" in types and value.lower() in _YAML_1_1_BOOLEANS:
            return f"write {_YAML_1_1_BOOLEANS[value.lower()]}; YAML 1.2 has no other words for it"
        if {"integer", "number"} & set(types) and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value):
            return "delete the quotes"
    elif value is None and {"object", "array"} & set(types):
        return "write what belongs there, indented below it, or delete the key"
    elif value is None and "string" in types:
        return f"{like_example(schema)}, in quotes if it begins with #: otherwise that is a comment"
    elif isinstance(value, bool | int | float) and "string" in types and "pattern" not in schema:
        return "put it in quotes"
    return like_example(schema)


def like_example(schema: dict[str, JSON]) -> str:
    """Return a remedy that shows the first example of a subschema."""
    examples = schema.get("examples")
    return f"write it like {inline(examples[0])}" if examples else "see 'flowrun schema' for what may stand here"


def valid_name(name: str, schema: dict[str, JSON]) -> str:
    """Return a remedy that shows a valid name similar to an invalid one."""
    if len(name) > schema["maxLength"]:
        return f"shorten it to {schema['maxLength']} characters"
    similar = re.sub(r"[^A-Za-z0-9]+", "_", name)
    candidates = [candidate for candidate in (similar, f"_{similar}") if re.fullmatch(schema["pattern"], candidate)]
    return f"write {candidates[0]}" if candidates and candidates[0].strip("_") else like_example(schema)


def add_property(name: str, schema: JSON, root: dict[str, JSON]) -> str:
    """Return a remedy that adds a property, with an example of its value if the schema has one."""
    example = _example(schema, root)
    return f"add '{name}'" if example is None else f"add '{name}: {inline(example)}'"


def _example(schema: JSON, root: dict[str, JSON]) -> JSON:
    """Return the first example of a subschema, or of one that its ``$ref`` leads to."""
    for found in follow_references(schema, root):
        if "examples" in found:
            return found["examples"][0]
        if "const" in found:
            return found["const"]
    return None


def meant_by(name: str, unused: list[str], schema: dict[str, JSON], root: dict[str, JSON]) -> str:
    """Return a remedy for an unknown property: a similar name, the owner of that property, or a nested property.

    Args:
        unused: the known properties that are not present.
        schema: the subschema of the mapping that has the unknown property.
    """
    known = schema.get("properties", {})
    if similar := closest(name, unused):
        return f"did you mean '{similar}'?"
    if owners := _owners(name, schema.get("title", "mapping"), root):
        return owners
    if below := _nested(name, known, root):
        return f"did you mean '{below}'?"
    return f"the properties are: {', '.join(sorted(known))}"


def _nested(name: str, known: dict[str, JSON], root: dict[str, JSON]) -> str:
    """Return the property of a property with this or a similar name, such as ``sampling.temperature``, or ""."""
    below = {
        f"{outer}.{inner}": inner
        for outer, schema in known.items()
        for found in follow_references(schema, root)
        for inner in found.get("properties", {})
    }
    similar = closest(name, below.values())
    return next((path for path, inner in below.items() if inner == similar), "")


def _owners(name: str, title: str, root: dict[str, JSON]) -> str:
    """Return a sentence about the sibling types that have a property, such as ``chat states have it``, or ""."""
    *_, thing = title.split()
    owners = [
        definition["title"].removesuffix(f" {thing}")
        for definition in root.get("$defs", {}).values()
        if definition.get("title", "").endswith(f" {thing}") and name in definition.get("properties", {})
    ]
    return f"{listed(owners, 'and', quote='')} {thing}s have it" if owners else ""
