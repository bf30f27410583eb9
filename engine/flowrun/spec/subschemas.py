"""The keywords of JSON Schema (2020-12) whose values are schemas themselves."""

from collections.abc import Callable, Mapping
from typing import Final

from flowrun.spec.model import JSON

ONE: Final = frozenset(
    {
        *("additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then"),
        *("unevaluatedItems", "unevaluatedProperties", "additionalItems"),
    }
)
"""Keywords whose value is a schema."""

MANY: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems", "items"})
"""Keywords whose value is a list of schemas."""

NAMED: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose value is a mapping of names to schemas."""


def map_schemas(schema: JSON, change: Callable[[dict[str, JSON]], dict[str, JSON]]) -> JSON:
    """Return a schema in which it and all of its subschemas are changed, the innermost first."""
    if not isinstance(schema, Mapping):
        return schema
    mapped: dict[str, JSON] = {}
    for key, value in schema.items():
        if key in NAMED and isinstance(value, Mapping):
            mapped[key] = {name: map_schemas(part, change) for name, part in value.items()}
        elif key in MANY and isinstance(value, list):
            mapped[key] = [map_schemas(part, change) for part in value]
        else:
            mapped[key] = map_schemas(value, change) if key in ONE else value
    return change(mapped)
