"""A person answers in a browser: what was posted for a schema, and the answer, or what is wrong."""

from collections.abc import Mapping, Sequence
from json import dumps
from typing import Any

import pytest

from flowrun.runtime.run_result import InputRequest
from flowrun.serving.pages.answer_fields import Filled, read_form
from tests.unit.serving.pages.forms import Pairs, question

COLOURS: Mapping[str, Any] = {"enum": ["red", "green", "dark blue"]}
ITEM: Mapping[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "n": {"type": "integer", "default": 1}},
    "required": ["name"],
}
MANY: Mapping[str, Any] = {"enum": list("abcdefgh")}


def post(request: InputRequest, pairs: Sequence[tuple[str, str]]) -> Filled:
    return read_form(request, pairs, action="/answer")


def with_member(schema: Mapping[str, Any], *, required: bool = False) -> dict[str, Any]:
    return {"type": "object", "properties": {"it": schema}, "required": ["it"] if required else []}


@pytest.mark.parametrize(
    ("schema", "pairs", "value"),
    [
        pytest.param({"type": "string"}, [("f0", "a\r\nb ")], "a\nb ", id="a text"),
        pytest.param({"type": "string"}, [("f0", ""), ("f0.empty", "empty")], "", id="the empty text"),
        pytest.param({"type": "integer"}, [("f0", " 5 ")], 5, id="a number"),
        pytest.param({"type": "number"}, [("f0", "1e3")], 1000.0, id="a number with an exponent"),
        pytest.param({"type": "boolean"}, [("f0", "1")], False, id="no"),
        pytest.param({"type": ["boolean", "null"]}, [("f0", "null")], None, id="neither yes nor no"),
        pytest.param({"type": ["integer", "null"]}, [("f0", "")], None, id="nothing"),
        pytest.param(COLOURS, [("f0", "2")], "dark blue", id="a choice"),
        pytest.param(MANY, [("f0", "7")], "h", id="a choice of a list"),
        pytest.param({"oneOf": [{"const": 1}, {"const": "1"}]}, [("f0", "1")], "1", id="a choice is no text"),
        pytest.param({"const": 5}, [("f0", "0")], 5, id="a constant"),
        pytest.param({"type": "array", "items": COLOURS}, [("f0", "2"), ("f0", "0")], ["red", "dark blue"], id="ticks"),
        pytest.param({"type": "array", "items": COLOURS}, [], [], id="no ticks"),
        pytest.param(
            {"type": "array", "items": {"type": "string"}}, [("f0", "a\r\n\r\n b\r\n")], ["a", " b"], id="texts"
        ),
        pytest.param({"type": "array", "items": {"type": "integer"}}, [("f0", "1\r\n2")], [1, 2], id="numbers"),
        pytest.param({"type": ["string", "integer"]}, [("f0", "5")], 5, id="a number or a text: a number"),
        pytest.param({"type": ["string", "integer"]}, [("f0", "five")], "five", id="a number or a text: a text"),
        pytest.param({}, [("f0", "[1, 2]")], [1, 2], id="anything"),
        pytest.param({"type": "object"}, [("f0", '{"a": {"b": null}}')], {"a": {"b": None}}, id="an object as JSON"),
        pytest.param({"type": "string", "format": "date"}, [("f0", "2026-02-28")], "2026-02-28", id="a date"),
        pytest.param(
            {"type": "string", "format": "date-time"}, [("f0", "2026-02-28T10:30")], "2026-02-28T10:30:00Z", id="a time"
        ),
        pytest.param(
            {"type": "string", "format": "date-time"},
            [("f0", "2026-02-28T10:30:05+02:00")],
            "2026-02-28T10:30:05+02:00",
            id="a time with its zone",
        ),
        pytest.param(with_member({"type": "string"}), [("f0", "")], {}, id="left out"),
        pytest.param(with_member({"type": "string"}), [], {}, id="not posted"),
        pytest.param(
            with_member({"type": "string"}), [("f0", ""), ("f0.empty", "empty")], {"it": ""}, id="empty, not out"
        ),
        pytest.param(
            with_member({"type": ["string", "null"]}),
            [("f0", ""), ("f0.empty", "null")],
            {"it": None},
            id="null, not out",
        ),
        pytest.param(with_member({"type": "boolean"}), [("f0", "out")], {}, id="a choice that is left out"),
        pytest.param(
            with_member({"type": "array", "items": COLOURS}), [("f0.empty", "empty")], {"it": []}, id="an empty list"
        ),
        pytest.param(
            with_member({"type": "string", "default": "x"}), [("f0", ""), ("f0.empty", "out")], {}, id="no default"
        ),
        pytest.param(
            with_member({"type": "array", "items": ITEM}),
            [("f0.row", "0"), ("f0.0.f0", "a"), ("f0.0.f1", "5"), ("f0.row", "7"), ("f0.7.f0", "b"), ("f0.7.f1", "")],
            {"it": [{"name": "a", "n": 5}, {"name": "b"}]},
            id="rows",
        ),
        pytest.param(
            with_member({"type": "object", "properties": {"x": {"type": "integer"}}}, required=True),
            [("f0", "")],
            {"it": {}},
            id="an object without a member",
        ),
        pytest.param(
            with_member({"type": ["object", "null"], "properties": {"x": {"type": "integer"}}}, required=True),
            [("f0", "")],
            {"it": None},
            id="an object or null",
        ),
        pytest.param({"type": "integer"}, [("f0", "5"), ("f9", "x"), ("", ""), ("f0.x", "y")], 5, id="unknown names"),
        pytest.param({"type": "string"}, [("f0", "a\0b")], "a\0b", id="a text with NUL"),
    ],
)
def test_what_was_posted_is_the_answer(schema: Mapping[str, Any], pairs: Pairs, value: Any) -> None:
    filled = post(question(schema), pairs)
    assert (filled.form, dumps(filled.value, sort_keys=True)) == (None, dumps(value, sort_keys=True))


MISSING = "this must be filled in"


@pytest.mark.parametrize(
    ("schema", "pairs", "wrong"),
    [
        pytest.param({"type": "string"}, [], MISSING, id="nothing was posted"),
        pytest.param({"type": "string", "default": "x"}, [("f0", "")], MISSING, id="emptied"),
        pytest.param({"type": "boolean"}, [], "one of these must be chosen", id="nothing was chosen"),
        pytest.param(COLOURS, [("f0", "3")], "this is none of the choices", id="no choice"),
        pytest.param(COLOURS, [("f0", "-1")], "this is none of the choices", id="no number"),
        pytest.param(COLOURS, [("f0", "\u0661")], "this is none of the choices", id="no number of ASCII"),
        pytest.param(COLOURS, [("f0", "9" * 5000)], "this is none of the choices", id="no number at all"),
        pytest.param({"type": "integer"}, [("f0", "five")], '"five" is not of type "integer"', id="no number, a word"),
        pytest.param({"type": "number"}, [("f0", "1e999999")], '"1e999999" is not of type "number"', id="too large"),
        pytest.param({"type": "object"}, [("f0", "{" * 99)], "this is no JSON: ", id="no JSON"),
        pytest.param({"type": "object"}, [("f0", '{"a":' * 9999)], "this is no JSON: ", id="deep JSON"),
        pytest.param({"type": "array"}, [("f0", "[" * 99 + "]" * 99)], "this is no JSON: it is nested", id="deeper"),
        pytest.param({"type": "string"}, [("f0", "a\ud800")], "which is half of a character", id="half of a character"),
        pytest.param({"type": "array", "items": ITEM, "minItems": 1}, [], "[] has less than 1 item", id="too few rows"),
        pytest.param(
            {"type": "array", "items": ITEM},
            [("f0.row", str(row)) for row in range(10_000)],
            "a form has at most 200 rows",
            id="10,000 rows",
        ),
    ],
)
def test_what_is_no_answer_is_the_form_again(schema: Mapping[str, Any], pairs: Pairs, wrong: str) -> None:
    filled = post(question(schema), pairs)
    assert filled.form is not None
    text = filled.form.unescape()
    assert 'role="alert"' in text
    assert wrong in text
    text.encode()
