"""What is wrong with a value, in one sentence."""

from typing import Any

import pytest

from flowrun.core.json_schema import compile_schema

DAY = {"type": "object", "properties": {"day": {"type": "string", "format": "date"}}}
NUMBERS = {"type": "array", "items": {"type": "integer"}}


@pytest.mark.parametrize(
    ("schema", "value", "wrong"),
    [
        pytest.param(DAY, {"day": "2026-11-28"}, None, id="a date"),
        pytest.param(DAY, {"day": "soon"}, 'day: "soon" is not a "date"', id="no date"),
        pytest.param(NUMBERS, [1, 2], None, id="integers"),
        pytest.param(
            NUMBERS,
            ["a"] * 9,
            "; ".join(f'{index}: "a" is not of type "integer"' for index in range(5)),
            id="five errors are the most",
        ),
        pytest.param(
            {"$ref": "#/$defs/a", "$defs": {"a": {"type": "null"}}}, 1, '1 is not of type "null"', id="a part"
        ),
    ],
)
def test_what_is_wrong_with_a_value(schema: dict[str, Any], value: Any, wrong: str | None) -> None:
    assert compile_schema(schema)(value) == wrong


def test_a_schema_elsewhere_is_never_fetched() -> None:
    with pytest.raises(ValueError, match="a schema is never fetched"):
        compile_schema({"$ref": "https://example.org/schema.json"})


@pytest.mark.parametrize(
    "schema",
    [{"type": "array", "items": {"type": "number"}}, {"type": "array", "items": {"type": "string", "pattern": "^a$"}}],
    ids=["whose text is not looked at", "whose text is"],
)
def test_a_text_that_is_not_unicode_is_named(schema: dict[str, Any]) -> None:
    wrong = compile_schema(schema)(["\ud800"])
    assert wrong is not None
    assert r"\ud800" in wrong
    wrong.encode()
