"""JSON of models and people: texts, and the value or the reason of each."""

from typing import Any

import pytest

from flowrun.spec.strict_json import parse_json, parse_leniently


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


def mappings(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param(' {"a": [1, -2.5, 1e3, true, null, "x"]}\n', {"a": [1, -2.5, 1000.0, True, None, "x"]}, id="all"),
        pytest.param("1e308", 1e308, id="a large number"),
        pytest.param("1e-999", 0.0, id="a number too small"),
        pytest.param("9" * 300, 10**300 - 1, id="a large integer"),
        pytest.param('{"a": {"b": 1}, "c": {"b": 2}}', {"a": {"b": 1}, "c": {"b": 2}}, id="a key in two objects"),
        pytest.param('"\\u00e9\\ud83d\\ude00 é"', "é😀 é", id="escapes"),
        pytest.param("[" + ", ".join(["[]"] * 100) + "]", [[]] * 100, id="wide, not deep"),
        pytest.param('["' + "[" * 100 + '"]', ["[" * 100], id="brackets in a text"),
    ],
)
def test_valid_json(text: str, value: Any) -> None:
    assert parse_json(text) == value


@pytest.mark.parametrize("deep", [nested, mappings], ids=["lists", "mappings"])
def test_64_levels_are_the_most(deep: Any) -> None:
    assert parse_json(deep(64)) is not None
    assert parse_json(f"[{deep(63)}, [], {{}}]") is not None  # more brackets than levels
    with pytest.raises(ValueError, match=r"^it is nested more than 64 levels deep$"):
        parse_json(deep(65))
    with pytest.raises(ValueError, match=r"^it is nested more than 64 levels deep$"):
        parse_json(f'[{{"a": []}}, {deep(64)}]')


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("", "Expecting value: line 1 column 1 (char 0)", id="nothing"),
        pytest.param("{} {}", "Extra data: line 1 column 4 (char 3)", id="two values"),
        pytest.param('{"a": 1, "b": 2, "b": 3}', "the key 'b' is there twice", id="a key twice"),
        pytest.param('[{"a": {"x": 1, "x": 1}}]', "the key 'x' is there twice", id="a key twice, deep"),
        pytest.param("NaN", "NaN is no JSON number", id="NaN"),
        pytest.param("[-Infinity]", "-Infinity is no JSON number", id="infinite"),
        pytest.param("[1e999]", "the number 1e999 is too large", id="too large"),
        pytest.param("[-1E+400]", "the number -1E+400 is too large", id="too small"),
        pytest.param("9" * 400 + ".0", f"the number {'9' * 40} is too large", id="many digits"),
        pytest.param("[" * 100_000, "it is nested too deeply", id="very deep"),
        pytest.param('"é\ud800"', "it holds '\\ud800', which is half of a character", id="half a character, as it is"),
        pytest.param('"\\ud800"', "it holds '\\ud800', which is half of a character", id="half a character"),
    ],
)
def test_invalid_json(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is compared
        parse_json(text)
    assert str(caught.value) == reason


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param('{"a": 1}', {"a": 1}, id="JSON"),
        pytest.param("{", "{", id="no JSON"),
        pytest.param("", "", id="nothing"),
        pytest.param("[" * 100_000, "[" * 100_000, id="very deep"),
    ],
)
def test_a_lenient_reading_keeps_what_is_no_json(text: str, value: Any) -> None:
    assert parse_leniently(text) == value
