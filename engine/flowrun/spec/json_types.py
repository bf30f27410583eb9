"""The types of JSON: of a Python value, and those that a JSON Schema declares."""

from collections.abc import Mapping
from typing import Final

from flowrun.spec.model import JSON

JSON_TYPES: Final[dict[type, str]] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}


def declared_types(schema: Mapping[str, JSON]) -> frozenset[str]:
    """Return the types in the ``type`` of a schema; none if it has no ``type``, or no valid one."""
    written = schema.get("type")
    return frozenset(kind for kind in (written if isinstance(written, list) else [written]) if isinstance(kind, str))


def may_be_text(schema: Mapping[str, JSON]) -> bool:
    """Return whether a value that is written without quotes, as on a command line, may be text by its schema."""
    return "string" in (declared_types(schema) or ("string",))
