"""A person answers field by field: each schema as the lines that are shown, and what is typed as the value."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from flowrun.runtime.answer_form import assemble, fields_of
from flowrun.runtime.typed_answers import read_answer

COLOURS: Mapping[str, Any] = {"enum": ["red", "green", "dark blue"]}
LABELLED: Mapping[str, Any] = {
    "oneOf": [{"const": "a", "title": "Ann"}, {"const": "b", "description": "Bob, the cook"}]
}


ITEM: Mapping[str, Any] = {"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "integer"}}}


@pytest.mark.parametrize(
    ("schema", "prompt"),
    [
        pytest.param({}, "answer", id="anything"),
        pytest.param({"type": "string"}, "answer", id="a text"),
        pytest.param({"type": "string", "default": "no"}, "answer (Enter is no)", id="a text with a default"),
        pytest.param({"type": "string", "format": "date"}, "a date", id="a format"),
        pytest.param({"type": "boolean"}, "yes or no", id="a boolean"),
        pytest.param({"type": "boolean", "default": True}, "yes or no (Enter is yes)", id="a boolean with a default"),
        pytest.param({"type": "integer", "minimum": 1, "maximum": 5}, "a whole number from 1 to 5", id="between"),
        pytest.param({"type": "number", "minimum": 0.5}, "a number of at least 0.5", id="at least"),
        pytest.param({"type": ["integer", "null"]}, "a whole number (Enter is nothing)", id="or null"),
        pytest.param(
            {"anyOf": [{"type": "integer"}, {"type": "null"}]}, "a whole number (Enter is nothing)", id="any of"
        ),
        pytest.param(COLOURS, "1 to 3, or a name", id="choices"),
        pytest.param(
            {"anyOf": [COLOURS, {"type": "null"}]}, "1 to 3, or a name (Enter is nothing)", id="a choice or none"
        ),
        pytest.param(
            {"anyOf": [{"type": ["integer", "null"]}, {"type": "null"}]},
            "a whole number (Enter is nothing)",
            id="null twice",
        ),
        pytest.param({"type": "number", "exclusiveMinimum": 0}, "a number above 0", id="above"),
        pytest.param(
            {"type": "number", "minimum": 1, "multipleOf": 0.5}, "a number of at least 1, a multiple of 0.5", id="steps"
        ),
        pytest.param({"const": 5}, "only 5 (Enter is 5)", id="one value"),
        pytest.param({"enum": [3, 2, 1]}, "one of these", id="choices that are numbers have none"),
        pytest.param({"type": "array", "items": COLOURS}, "numbers or names, with commas between them", id="several"),
        pytest.param({"type": "array", "items": {"type": "object"}}, "a list, as JSON", id="a list of unknown objects"),
        pytest.param({"type": "array", "items": ITEM}, "how many", id="a list of objects"),
        pytest.param({"type": "object"}, "an object, as JSON", id="an object of unknown members"),
        pytest.param({"$ref": "#/$defs/n", "$defs": {"n": {"type": "integer"}}}, "a whole number", id="a reference"),
        pytest.param({"type": "string", "default": 3}, "answer", id="a default that does not match is none"),
    ],
)
def test_how_one_value_is_asked_for(schema: Mapping[str, Any], prompt: str) -> None:
    (field,) = fields_of(schema)
    assert field.prompt({}) == prompt


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        pytest.param("2", COLOURS, "green", id="a choice by number"),
        pytest.param("Dark Blue", COLOURS, "dark blue", id="a choice by name"),
        pytest.param("ann", LABELLED, "a", id="a choice by title"),
        pytest.param("1", {"enum": [3, 2, 1]}, 1, id="a choice that is a number"),
        pytest.param("4", COLOURS, "4", id="no choice, which the schema will refuse"),
        pytest.param("y", {"type": ["boolean", "null"]}, True, id="yes or nothing"),
        pytest.param('""', {"type": "string"}, "", id="the empty text"),
        pytest.param("1, Green", {"type": "array", "items": COLOURS}, ["red", "green"], id="several choices"),
        pytest.param("a, b c", {"type": "array", "items": {"type": "string"}}, ["a", "b c"], id="texts"),
        pytest.param('["a, b"]', {"type": "array", "items": {"type": "string"}}, ["a, b"], id="texts as JSON"),
        pytest.param("1, 2.5", {"type": "array", "items": {"type": "number"}}, [1, 2.5], id="numbers"),
        pytest.param("5", {"type": ["string", "integer"]}, 5, id="a number or a text: a number"),
        pytest.param("five", {"type": ["string", "integer"]}, "five", id="a number or a text: a text"),
        pytest.param("1e999", {"type": "number"}, "1e999", id="no finite number, which the schema will refuse"),
    ],
)
def test_reading_what_is_typed(text: str, schema: Mapping[str, Any], value: Any) -> None:
    assert read_answer(text, schema) == value


ORDER: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "how": {"enum": ["post", "courier"], "title": "Delivery"},
        "to": {
            "type": "object",
            "properties": {"street": {"type": "string"}, "floor": {"$ref": "#/$defs/floor"}},
            "required": ["street"],
        },
        "tree": {"$ref": "#/$defs/tree"},
    },
    "required": ["how", "to"],
    "$defs": {
        "floor": {"type": "integer"},
        "tree": {"type": "object", "properties": {"left": {"$ref": "#/$defs/tree"}}},
    },
}


def test_a_reference_means_what_it_means_in_the_whole_schema() -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}, "more": {"type": "array", "items": {"$ref": "#"}}},
    }
    n, more = fields_of(schema)
    assert (n.validate("x") is None, more.validate([{"n": 1}])) == (False, None)
    assert [field.path for field in more.rows] == [("n",), ("more",)]


def test_an_object_is_asked_for_field_by_field() -> None:
    fields = fields_of(ORDER)
    assert [(".".join(field.path), field.optional) for field in fields] == [
        ("how", False),
        ("to.street", False),
        ("to.floor", True),
        ("tree.left", True),
    ]
    assert list(fields[0].lines()) == ["how: Delivery", "  1  post", "  2  courier"]
    assert [field.prompt({}) for field in fields] == [
        "how, 1 or 2, or a name",
        "to.street, text",
        "to.floor, a whole number (Enter leaves it out)",
        "tree.left, an object, as JSON (Enter leaves it out)",
    ]
    assert fields[1].prompt({("to", "street"): "Main St"}) == "to.street, text (Enter keeps Main St)"


def test_the_default_of_an_object_is_that_of_its_fields() -> None:
    inner = {"type": "object", "properties": {"a": {"type": "integer"}, "b": True}, "default": {"a": 3, "b": "x"}}
    fields = fields_of({"type": "object", "properties": {"in": inner}, "default": {"in": {"a": 4}}})
    assert [field.prompt({}) for field in fields] == [
        "in.a, a whole number (Enter is 4)",
        "in.b, text (Enter leaves it out)",
    ]


def test_a_default_with_members_that_the_schema_does_not_name_is_asked_for_as_a_whole() -> None:
    inner = {"type": "object", "properties": {"a": {"type": "integer"}}, "default": {"a": 3, "more": "x"}}
    (field,) = fields_of({"type": "object", "properties": {"in": inner}})
    assert field.prompt({}) == 'in, an object, as JSON (Enter is {"a": 3, "more": "x"})'


CONSENT: Mapping[str, Any] = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "if": {"properties": {"ok": {"const": True}}},
    "then": {
        "properties": {
            "arguments": {
                "type": "object",
                "properties": {"amount": {"type": "number"}, "note": {"type": "string"}},
                "required": ["amount"],
                "default": {"amount": 500},
            }
        }
    },
    "else": {"properties": {"reason": {"type": "string"}}},
}


def test_what_depends_on_an_answer_is_asked_for_if_it_was_given() -> None:
    fields = fields_of(CONSENT)
    asked = {ok: [field.prompt({}) for field in fields if field.is_asked({("ok",): ok})] for ok in (True, False)}
    assert asked == {
        True: [
            "ok, yes or no",
            "arguments.amount, a number (Enter is 500)",
            "arguments.note, text (Enter leaves it out)",
        ],
        False: ["ok, yes or no", "reason, text (Enter leaves it out)"],
    }


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        pytest.param({("ok",): True}, {"ok": True}, id="yes"),
        pytest.param(
            {("ok",): True, ("arguments", "amount"): 5, ("reason",): "x"},
            {"ok": True, "arguments": {"amount": 5}},
            id="a reason of before one went back",
        ),
        pytest.param({("ok",): False, ("reason",): "x"}, {"ok": False, "reason": "x"}, id="no"),
    ],
)
def test_only_what_is_asked_for_is_part_of_the_answer(values: Mapping[tuple[str, ...], Any], answer: Any) -> None:
    assert assemble(fields_of(CONSENT), values) == answer


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        pytest.param(
            {("how",): "post", ("to", "street"): "Main"}, {"how": "post", "to": {"street": "Main"}}, id="some"
        ),
        pytest.param({}, {"to": {}}, id="an object that is required, without a field"),
        pytest.param({("to", "floor"): 0, ("how",): "post"}, {"how": "post", "to": {"floor": 0}}, id="zero is a value"),
    ],
)
def test_the_fields_make_the_answer(values: Mapping[tuple[str, ...], Any], answer: Any) -> None:
    assert assemble(fields_of(ORDER), values) == answer


@pytest.mark.parametrize("schema", [{"type": "boolean"}, COLOURS, LABELLED], ids=str)
def test_an_answer_of_one_value_is_that_value(schema: Mapping[str, Any]) -> None:
    fields: Sequence[Any] = fields_of(schema)
    assert assemble(fields, {(): True}) is True


def test_an_object_or_null_is_null_if_all_its_fields_are_left_out() -> None:
    inner = {"type": ["object", "null"], "properties": {"a": {"type": "integer"}}}
    fields = fields_of({"type": "object", "properties": {"in": inner, "more": inner}, "required": ["in"]})
    assert assemble(fields, {}) == {"in": None}
    assert assemble(fields, {("in", "a"): 1, ("more", "a"): 2}) == {"in": {"a": 1}, "more": {"a": 2}}


def test_a_default_of_an_object_is_all_that_is_given_of_its_optional_members() -> None:
    properties = {"a": {"type": "integer", "default": 1}, "b": {"const": 2}, "c": {"type": "string"}}
    a, b, c = fields_of({"type": "object", "properties": properties, "default": {"c": "x"}})
    assert [field.has_default for field in (a, b, c)] == [False, False, True]


def test_a_part_that_may_be_null_allows_null_whatever_else_its_schema_says() -> None:
    (field,) = fields_of({"properties": {"a": {"anyOf": [{"type": "string", "const": "x"}, {"type": "null"}]}}})
    assert [field.validate(value) is None for value in ("x", None, "y")] == [True, True, False]


def test_the_objects_of_a_list_have_the_members_of_its_default() -> None:
    (field,) = fields_of({"type": "array", "items": ITEM})
    assert [one.has_default for one in field.row_of({"n": 1})] == [False, True]
    assert field.row_of({"other": 1}) == ()


def test_a_branch_has_its_own_required_fields_and_is_no_part_of_another_answer() -> None:
    inner = {"type": "object", "properties": {"a": {"type": "integer"}}}
    tested = {"if": {"properties": {"ok": {"const": True}}}, "then": {"properties": {"in": inner}, "required": ["in"]}}
    fields = fields_of({"type": "object", "properties": {"ok": {"type": "boolean"}}, **tested})
    assert assemble(fields, {("ok",): True}) == {"ok": True, "in": {}}
    assert assemble(fields, {("ok",): False}) == {"ok": False}
