"""The value of ``flowrun answer --value``: JSON, or what would be typed on a terminal."""

from collections.abc import Mapping
from typing import Any

import pytest

from flowrun.cli.answer import read_value
from flowrun.errors import UsageError
from flowrun.runtime.run_result import InputRequest

CHOICES: Mapping[str, Any] = {"enum": ["sure", "never"]}
NUMBER: Mapping[str, Any] = {"type": "number", "maximum": 5}
LIST: Mapping[str, Any] = {"type": "array", "items": {"type": "integer"}}
FORM: Mapping[str, Any] = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}


def request(schema: Mapping[str, Any]) -> InputRequest:
    return InputRequest(id="r/1/0", run="r", state="ask", prompt="?", schema=schema)


@pytest.mark.parametrize(
    ("schema", "text", "value"),
    [
        (CHOICES, "sure", "sure"),
        (CHOICES, '"sure"', "sure"),
        (CHOICES, "2", "never"),
        (NUMBER, "2.5", 2.5),
        (LIST, "1, 2", [1, 2]),
        (FORM, '{"ok": true}', {"ok": True}),
        ({}, '"yes"', "yes"),
        ({}, "yes", "yes"),
        ({}, "5", 5),
        ({"type": "string"}, "5", "5"),
    ],
)
def test_a_value_is_json_or_as_typed(schema: Mapping[str, Any], text: str, value: Any) -> None:
    assert read_value(text, request(schema)) == value


@pytest.mark.parametrize(
    ("schema", "text", "message"),
    [
        (CHOICES, "maybe", 'not what state ask asks for: "maybe" is not one of "sure" or "never"'),
        (CHOICES, "3", 'not what state ask asks for: 3 is not one of "sure" or "never"'),
        (NUMBER, "ten", 'not what state ask asks for: "ten" is not of type "number"'),
        (NUMBER, "9", "not what state ask asks for: 9 is greater than the maximum of 5"),
        (LIST, "1, x", 'not what state ask asks for: 1: "x" is not of type "integer"'),
        (FORM, "yes", "no JSON: Expecting value: line 1 column 1 (char 0)"),
        ({}, '{"ok": tru', "no JSON: Expecting value: line 1 column 8 (char 7)"),
    ],
)
def test_a_value_that_does_not_fit_says_why(schema: Mapping[str, Any], text: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        read_value(text, request(schema))
    assert str(raised.value) == f"--value {text}: {message}"
