"""Hidden arguments are taken out of a schema, with what only they need; what the schema mentions elsewhere is found."""

from typing import Any

import pytest

from flowrun.spec.hidden_arguments import mentions_of, without_arguments

TEXT = {"type": "string"}


def test_a_hidden_argument_leaves_nothing_behind() -> None:
    schema = {
        "type": "object",
        "properties": {"a": TEXT, "b": {"$ref": "#/$defs/inner"}, "c": {"$ref": "#/$defs/list"}},
        "required": ["a", "b", "c"],
        "additionalProperties": False,
        "$defs": {"inner": TEXT, "list": {"items": {"$ref": "#/$defs/item"}}, "item": TEXT, "item2": TEXT},
    }
    assert without_arguments(schema, ["a", "b"]) == {
        "type": "object",
        "properties": {"c": {"$ref": "#/$defs/list"}},
        "required": ["c"],
        "additionalProperties": False,
        "$defs": {"list": {"items": {"$ref": "#/$defs/item"}}, "item": TEXT},
    }
    assert without_arguments(schema, ["b", "c"]) == {
        "type": "object",
        "properties": {"a": TEXT},
        "required": ["a"],
        "additionalProperties": False,
    }


def test_without_hidden_arguments_the_schema_is_as_it_was() -> None:
    schema = {"properties": {"a": TEXT}, "$defs": {"unused": TEXT}}
    assert without_arguments(schema, []) is schema


MENTIONS: dict[str, tuple[dict[str, Any], list[tuple[str | int, ...]]]] = {
    "nowhere": ({"required": ["a"]}, []),
    "in an argument of the same name further in": ({"properties": {"b": {"properties": {"a": TEXT}}}}, []),
    "a condition": (
        {"if": {"properties": {"a": TEXT}}, "then": {"required": ["a"]}},
        [("if", "properties"), ("then", "required")],
    ),
    "one of several": ({"anyOf": [{"required": ["b"]}, {"required": ["a"]}]}, [("anyOf", 1, "required")]),
    "what it needs": ({"dependentRequired": {"a": ["b"]}}, [("dependentRequired",)]),
    "what needs it": ({"dependentRequired": {"b": ["a"]}}, [("dependentRequired",)]),
    "a schema that depends on it": ({"dependentSchemas": {"a": {}}}, [("dependentSchemas",)]),
    "a schema that depends on another": (
        {"dependentSchemas": {"b": {"required": ["a"]}}},
        [("dependentSchemas", "b", "required")],
    ),
    "a pattern of names": ({"patternProperties": {"^a": TEXT}}, [("patternProperties",)]),
    "an example": ({"examples": [{"a": "x"}]}, [("examples",)]),
    "a default": ({"default": {"a": "x"}}, [("default",)]),
    "a reference to its schema": ({"properties": {"b": {"$ref": "#/properties/a"}}}, [("$ref",)]),
    "a reference to another argument": ({"properties": {"b": {"$ref": "#/properties/ab"}}}, []),
    "behind a reference": (
        {"allOf": [{"$ref": "#/$defs/x"}], "$defs": {"x": {"required": ["a"]}}},
        [("allOf", 0, "$ref")],
    ),
    "behind a reference in a circle": ({"$ref": "#"}, []),
}


@pytest.mark.parametrize(("rest", "expected"), MENTIONS.values(), ids=MENTIONS)
def test_a_mention_elsewhere_is_found(rest: dict[str, Any], expected: list[tuple[str | int, ...]]) -> None:
    schema = {"type": "object", **rest, "properties": {"a": TEXT, **rest.get("properties", {})}}
    assert list(mentions_of(schema, "a")) == expected
