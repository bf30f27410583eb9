"""FR508 and FR509: a JSON Schema that is valid means something: it constrains a value, and some value satisfies it."""

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from flowrun.core.json_schema import compile_schema
from flowrun.errors import Path
from flowrun.spec.json_types import JSON_TYPES, declared_types
from flowrun.spec.model import JSON
from flowrun.spec.phrases import inline, listed
from flowrun.spec.subschemas import MANY, NAMED, ONE
from flowrun.spec.suggestions import closest


class SchemaFault(NamedTuple):
    """A part of a schema that means nothing, or that contradicts another."""

    code: str
    path: Path
    message: str
    remedy: str
    certain: bool = True


_OF_TYPE: Final = {
    **dict.fromkeys(("minLength", "maxLength", "pattern"), ("string",)),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), ("number", "integer")),
    "multipleOf": ("number", "integer"),
    **dict.fromkeys(("items", "prefixItems", "contains", "minItems", "maxItems", "uniqueItems"), ("array",)),
    **dict.fromkeys(
        ("properties", "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties"),
        ("object",),
    ),
    "propertyNames": ("object",),
}
"""Keywords that constrain values of some types only."""

_ANNOTATIONS: Final = frozenset(
    {
        *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "format"),
        *("contentEncoding", "contentMediaType", "contentSchema", "discriminator", "xml", "externalDocs", "example"),
    }
)
_OTHERS: Final = frozenset(
    {"type", "enum", "const", "minContains", "maxContains", "dependentRequired", "dependencies", "id"}
)
_KEYWORDS: Final = ONE | MANY | NAMED | _OF_TYPE.keys() | _ANNOTATIONS | _OTHERS

_BOUNDS: Final = (
    ("minimum", "maximum"),
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
    ("minContains", "maxContains"),
)


def faults_of_schema(schema: JSON, path: Path = ()) -> Iterator[SchemaFault]:
    """Yield the faults of a schema that matches the metaschema, and of its subschemas.

    Args:
        path: the place of the schema, with which the paths of the faults begin.
    """
    if not isinstance(schema, Mapping):
        return
    yield from _keywords(schema, path)
    yield from _contradictions(schema, path)
    for key, value in schema.items():
        if key in NAMED and isinstance(value, Mapping):
            for name, inner in value.items():
                yield from faults_of_schema(inner, (*path, key, name))
        elif key in MANY and isinstance(value, list):
            for index, inner in enumerate(value):
                yield from faults_of_schema(inner, (*path, key, index))
        elif key in ONE:
            yield from faults_of_schema(value, (*path, key))


def properties_elsewhere(schema: Mapping[str, JSON]) -> list[str]:
    """Return the keys of a schema that seem to be properties, but do not stand under ``properties``."""
    if "properties" in schema:
        return []
    return [
        key
        for key, value in schema.items()
        if _is_unknown(key) and isinstance(value, Mapping) and not closest(key, _KEYWORDS - schema.keys())
    ]


def _is_unknown(key: str) -> bool:
    return key not in _KEYWORDS and not key.startswith(("$", "x-"))


def _keywords(schema: Mapping[str, JSON], path: Path) -> Iterator[SchemaFault]:
    """Find keys that are no keywords, and keywords that the type leaves without effect."""
    if elsewhere := properties_elsewhere(schema):
        message = f"the schema says nothing about {listed(elsewhere, 'and')}: properties stand under 'properties'"
        remedy = f"write properties: {{{elsewhere[0]}: ...}}"
        yield SchemaFault("FR508", (*path, elsewhere[0]), message, remedy)
    for key in (key for key in schema if _is_unknown(key) and key not in elsewhere):
        similar = closest(key, _KEYWORDS - schema.keys())
        if similar or key == "nullable":
            remedy = f"did you mean '{similar}'?" if similar else "write type: [..., 'null']"
            yield SchemaFault("FR508", (*path, key), f"{key!r} is no keyword of JSON Schema", remedy, certain=False)
    types = declared_types(schema)
    for key in schema:
        if types and key in _OF_TYPE and not types & set(_OF_TYPE[key]):
            of = listed(list(_OF_TYPE[key]), "or", quote="")
            message = f"{key!r} has no effect: it is for type {of}, and the type is {listed(sorted(types), 'or', '')}"
            yield SchemaFault("FR508", (*path, key), message, "change the type, or delete it", certain=False)


def _contradictions(schema: Mapping[str, JSON], path: Path) -> Iterator[SchemaFault]:
    """Find keywords of one schema that contradict each other."""
    for low, high in _BOUNDS:
        if _is_number(schema.get(low)) and _is_number(schema.get(high)) and schema[low] > schema[high]:
            message = f"no value matches: {low} is {schema[low]}, and {high} is {schema[high]}"
            yield SchemaFault("FR509", (*path, low), message, f"lower {low}, or raise {high}")
    yield from _open_range(schema, path)
    if schema.get("additionalProperties") is False and not schema.get("patternProperties") and "$ref" not in schema:
        declared = schema.get("properties", {})
        for index, name in enumerate(schema.get("required", ())):
            if name not in declared:
                message = f"no value matches: {name!r} is required, not declared, and no other is allowed"
                yield SchemaFault("FR509", (*path, "required", index), message, f"declare {name!r} in properties")
    forbidden = [name for name in schema.get("required", ()) if schema.get("properties", {}).get(name) is False]
    for name in forbidden:
        message = f"no value matches: {name!r} is required, and its schema is false"
        yield SchemaFault("FR509", (*path, "properties", name), message, "change one of them")
    if schema.get("not") in (True, {}):
        yield SchemaFault("FR509", (*path, "not"), "no value matches: 'not' excludes all", "say what is excluded")
    yield from _values(schema, path)


def _open_range(schema: Mapping[str, JSON], path: Path) -> Iterator[SchemaFault]:
    for low, high in (
        ("exclusiveMinimum", "maximum"),
        ("minimum", "exclusiveMaximum"),
        ("exclusiveMinimum", "exclusiveMaximum"),
    ):
        if _is_number(schema.get(low)) and _is_number(schema.get(high)) and schema[low] >= schema[high]:
            message = f"no value matches: {low} is {schema[low]}, and {high} is {schema[high]}"
            yield SchemaFault("FR509", (*path, low), message, f"lower {low}, or raise {high}")


def _is_number(value: JSON) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _values(schema: Mapping[str, JSON], path: Path) -> Iterator[SchemaFault]:
    """Compare the values that a schema names with the rest of it."""
    if schema.keys().isdisjoint(("enum", "const", "default")):
        return
    if "$ref" in schema:
        return  # it may lead to a part of another schema around this one
    constraints = {key: value for key, value in schema.items() if key not in ("enum", "const", "default", "examples")}
    try:
        check = compile_schema({**constraints, **{key: schema[key] for key in ("$defs",) if key in schema}})
        accepts = compile_schema(schema)
    except ValueError:
        return  # a reference into the schema around it
    for key in ("enum", "const"):
        if key not in schema:
            continue
        values = schema[key] if key == "enum" else [schema[key]]
        wrong = [value for value in values if check(value) is not None]
        if wrong:
            what = listed([f"{inline(value)} ({JSON_TYPES.get(type(value), '')})" for value in wrong[:3]], "and", "")
            message = f"{'no value matches: ' if len(wrong) == len(values) else ''}{key} has {what}, against the rest"
            certain = len(wrong) == len(values)
            yield SchemaFault("FR509", (*path, key), message, "change the values or the type", certain)
    if "default" in schema and (mismatch := accepts(schema["default"])) is not None:
        message = f"the default does not match: {mismatch}"
        yield SchemaFault("FR509", (*path, "default"), message, "change the default or the schema", certain=False)
