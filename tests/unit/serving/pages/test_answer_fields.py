"""A person answers in a browser: what was posted for a schema, and the answer, or what is wrong."""

from collections.abc import Mapping, Sequence
from json import dumps
from typing import Any

import pytest

from flowrun.core.approvals import compile_approval
from flowrun.core.json_schema import compile_schema
from flowrun.runtime.run_result import InputRequest
from flowrun.serving.pages.answer_fields import Filled, read_form, render_form
from flowrun.spec.model import Approval
from tests.unit.serving.pages.forms import Pairs, question, sent_by, untouched

TEXTS: Mapping[str, Any] = {"type": "array", "items": {"type": "string"}}
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
        pytest.param({"type": "array", "items": ITEM}, [("f0", "0")], [], id="a text for a list of objects"),
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
            [("f0.row", str(row)) for row in range(201)],
            "a form has at most 200 rows",
            id="201 rows",
        ),
        pytest.param(
            {"type": "array", "items": ITEM},
            [("f0.row", str(row)) for row in range(10_000)],
            "a form has at most 1000 rows more than it had at first",
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


# --- what nobody changed ------------------------------------------------------------------------------------------

SHY = "a\u202eb \U0001f469\u200d\U0001f4bb\tc"  # an order of the text, a joiner and a tab


@pytest.mark.parametrize(
    ("schema", "default"),
    [
        pytest.param({"type": "string"}, "a\nb\n\n", id="trailing line breaks"),
        pytest.param({"type": "string"}, "\n\na", id="leading line breaks"),
        pytest.param({"type": "string"}, "  a  ", id="blanks"),
        pytest.param({"type": "string"}, "a\r\nb\rc\nd", id="all line breaks"),
        pytest.param({"type": "string"}, SHY, id="what is not displayed"),
        pytest.param({"type": "string"}, '""', id="two quotes"),
        pytest.param({"type": "string"}, "</textarea><script>", id="markup"),
        pytest.param({"type": "string", "maxLength": 20}, 'x" autofocus', id="quotes"),
        pytest.param({"type": "string"}, "", id="an empty text"),
        pytest.param({"type": ["string", "null"]}, None, id="null"),
        pytest.param({"type": "string", "format": "email"}, "a@example.org", id="an address"),
        pytest.param({"type": "string", "format": "date-time"}, "2026-01-31T09:30:00Z", id="a point in time"),
        pytest.param({"type": "string", "format": "date"}, "0000-01-01", id="a date that browsers do not know"),
        pytest.param({"type": "number"}, 1, id="1"),
        pytest.param({"type": "number"}, 1.0, id="1.0"),
        pytest.param({"type": "number"}, 1e300, id="a large number"),
        pytest.param({"type": "integer"}, 10**40, id="a large whole number"),
        pytest.param({"type": ["string", "integer"]}, "5", id="a text that looks like a number"),
        pytest.param({"type": ["string", "integer"]}, 5, id="a number that may be a text"),
        pytest.param({}, "true", id="a text that looks like a boolean"),
        pytest.param({"enum": [1, 2]}, 1.0, id="a choice that is written in another way"),
        pytest.param({"enum": [1, "1", True, None]}, "1", id="choices that look alike"),
        pytest.param({"type": "array", "items": COLOURS}, ["green", "red"], id="ticks in another order"),
        pytest.param({"type": "array", "items": COLOURS}, ["red", "red"], id="a choice twice"),
        pytest.param({"type": "array", "items": COLOURS}, [], id="no ticks"),
        pytest.param(TEXTS, ["a", "b"], id="texts"),
        pytest.param(TEXTS, ["a\nb", "", " "], id="texts that are no lines"),
        pytest.param(TEXTS, [SHY], id="a text of a list that is not displayed"),
        pytest.param({"type": "array", "items": {"type": "number"}}, [1, 1.0], id="numbers"),
        pytest.param({"type": "array", "items": ITEM}, [{"name": "a"}, {"name": "b", "n": 1.0}], id="rows"),
        pytest.param({"type": "array", "items": ITEM}, [{"name": "a", "more": 5}], id="rows with other members"),
        pytest.param({"type": "array", "items": ITEM}, [{"name": "a"}] * 300, id="many rows"),
        pytest.param({"type": "array", "items": ITEM}, [], id="no rows"),
        pytest.param({"type": "object", "properties": {"a": ITEM}}, {"a": {"name": ""}}, id="an object in an object"),
        pytest.param({"type": "object", "properties": {"a": {"type": "object"}}}, {"a": {}}, id="an empty object"),
        pytest.param(
            {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"const": 5}}}}},
            {"a": {}},
            id="an object whose members are left out",
        ),
        pytest.param(
            {"type": "object", "properties": {"a": {"type": ["object", "null"], "properties": {"b": {}}}}},
            {"a": None},
            id="null for an object",
        ),
        pytest.param({"type": "object", "properties": {"a": {"const": 5}}}, {}, id="a constant that is left out"),
        pytest.param({"type": "object", "properties": {"a": {}}}, {"a": 1, "more": [1.0]}, id="other members"),
    ],
)
def test_what_nobody_changed_comes_back_exactly(schema: Mapping[str, Any], default: Any) -> None:
    assert compile_schema(schema)(default) is None
    request = question(with_member({**schema, "default": default}, required=True))
    assert dumps(post(request, untouched(request)).value, sort_keys=True) == dumps({"it": default}, sort_keys=True)


# --- calls --------------------------------------------------------------------------------------------------------


def consent(
    arguments: Mapping[str, Any], properties: Mapping[str, Any], hidden: Mapping[str, Any] = {}, **schema: Any
) -> InputRequest:
    """Return the question whether a call is made."""
    parameters = {"type": "object", "properties": properties, **schema}
    approval = compile_approval("refund", Approval(), parameters, list(hidden))
    call = {"id": "c1", "name": "refund", "arguments": dict(arguments), "hidden": dict(hidden)}
    return question(approval.schema_with(arguments), call=call)


def approved(request: InputRequest, *changes: tuple[str, str]) -> Filled:
    """Post the form of a call with "Approve" chosen and some texts changed."""
    names = {name for name, _ in changes}
    return post(request, [("f0", "0"), *(pair for pair in untouched(request) if pair[0] not in names), *changes])


REFUND: Mapping[str, Any] = {
    "amount": {"type": "number", "minimum": 0, "default": 3},
    "note": {"type": "string"},
    "kind": {"const": "full"},
    "lines": {"type": "array", "items": ITEM},
}


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"amount": 1}, id="1"),
        pytest.param({"amount": 1.0}, id="1.0"),
        pytest.param({}, id="none"),
        pytest.param({"note": f"{SHY}\r\n\n x \n", "kind": "full"}, id="a text"),
        pytest.param({"lines": [{"name": "a", "n": 5}, {"name": ""}]}, id="a list"),
        pytest.param({"note": "x", "amount": 2, "more": {"a": [1, "1", 1.0]}}, id="other arguments"),
    ],
)
def test_the_arguments_of_a_call_come_back_as_the_model_gave_them(arguments: Mapping[str, Any]) -> None:
    filled = approved(consent(arguments, REFUND))
    assert dumps(filled.value, sort_keys=True) == dumps({"ok": True, "arguments": arguments}, sort_keys=True)


@pytest.mark.parametrize(
    ("changes", "arguments"),
    [
        pytest.param([("f1", "2.5")], {"amount": 2.5, "note": "a\nb"}, id="a number"),
        pytest.param([("f2", "a\r\nc ")], {"amount": 1, "note": "a\nc "}, id="a text"),
        pytest.param([("f2", ""), ("f2.empty", "out")], {"amount": 1}, id="an argument less"),
        pytest.param([("f3", "0")], {"amount": 1, "note": "a\nb", "kind": "full"}, id="an argument more"),
    ],
)
def test_the_arguments_of_a_call_are_edited(changes: Sequence[tuple[str, str]], arguments: Mapping[str, Any]) -> None:
    filled = approved(consent({"amount": 1, "note": "a\nb"}, REFUND), *changes)
    assert dumps(filled.value) == dumps({"ok": True, "arguments": arguments})


def test_who_refuses_needs_no_valid_arguments() -> None:
    request = consent({"amount": 1}, REFUND)
    pairs = [("f0", "1"), ("f1", "none"), ("f5", "too much")]
    assert post(request, pairs) == Filled(value={"ok": False, "reason": "too much"})
    assert post(request, [("f0", "1")]) == Filled(value={"ok": False})


def test_a_call_is_shown_with_all_its_arguments_and_those_of_the_flow_cannot_be_edited() -> None:
    request = consent({"amount": 1, "note": "<b>a</b>\nb"}, {"amount": {}, "note": {"type": "string"}}, {"key": "k-1"})
    form = render_form(request, action="/answer")
    assert "<code>key</code> <span" in form
    assert "&#34;k-1&#34;" in form
    assert "&lt;b&gt;a&lt;/b&gt;\nb</div>" in form
    assert [name for name, _ in sent_by(form)] == ["question", "f1", "f2", "f2.empty", "f3"]
    assert "Approve" in form
    assert "Refuse" in form


def test_the_marks_of_an_edited_text_are_the_characters_that_they_stand_for() -> None:
    request = question({"type": "string", "default": "a\u202eb\u200dc"})
    assert post(request, [("f0", "x a\ufffdb\ufffd")]).value == "x a\u202eb\u200d"
    assert post(request, [("f0", "x")]).value == "x"
    form = post(request, [("f0", "x a\ufffdb")]).form
    assert form is not None
    assert "of the 2 characters shown as \ufffd, keep all or none" in form


def test_a_text_keeps_the_line_breaks_of_windows() -> None:
    request = question({"type": "string", "default": "a\r\nb"})
    assert post(request, [("f0", "a\r\nb\r\nc")]).value == "a\r\nb\r\nc"


@pytest.mark.parametrize(
    ("change", "names"),
    [
        pytest.param("add f0", ["a", "b", ""], id="a row more"),
        pytest.param("remove f0.0", ["b"], id="a row less"),
        pytest.param("remove f0.9", ["a", "b"], id="no such row"),
        pytest.param("add f7", ["a", "b"], id="no such list"),
        pytest.param("\ud800 f0", ["a", "b"], id="no such change"),
    ],
)
def test_a_button_adds_or_removes_a_row_and_keeps_what_was_typed(change: str, names: list[str]) -> None:
    request = question({"type": "array", "items": ITEM, "default": [{"name": "a"}]})
    typed = [*untouched(request), ("f0.row", "5"), ("f0.5.f0", "b"), ("f0.5.f1", "five")]
    form = post(request, [*typed, ("change", change)]).form
    assert form is not None
    assert 'role="alert"' not in form
    sent = sent_by(form)
    assert [text for name, text in sent if name.endswith(".f0")] == names
    assert ("five" in dict(sent).values()) is ("b" in names)


def test_what_was_typed_is_kept_and_the_error_beside_its_field() -> None:
    request = question({"type": "object", "properties": {"n": {"type": "integer"}, "t": {"type": "string"}}})
    form = post(request, [("f0", "<i>\0\ud800"), ("f1", "x\r\n y"), ("f1.empty", "out")]).form
    assert form is not None
    prefix = form.split('id="', 1)[1].split('"', 1)[0]
    assert f'<a href="#{prefix}-f0">n</a>' in form
    assert f'<p class="wrong" id="{prefix}-f0-wrong">' in form
    assert f'aria-describedby="{prefix}-f0-wrong {prefix}-f0-hint" aria-invalid="true"' in form
    assert sent_by(form)[1:] == [("f0", "<i>\ufffd\ufffd"), ("f1", "x\r\n y"), ("f1.empty", "out")]


def test_an_error_of_no_field_is_in_the_summary() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "minProperties": 1}
    form = post(question(schema), [("f0", ""), ("f1", "")]).form
    assert form is not None
    assert "<li>{} has less than 1 property</li>" in form


def test_the_texts_of_a_question_are_escaped_and_defused() -> None:
    hostile = "</form><script>alert(1)</script>\u202e"
    schema = {"type": "object", "properties": {hostile: {"type": "string", "title": hostile, "description": hostile}}}
    form = render_form(question(schema, prompt=hostile, state=hostile, id=hostile), action='/a"b')
    assert (form.count("<script"), form.count("</form>"), form.count("\u202e")) == (
        0,
        1,
        1,
    )  # its id comes back as it is
    assert 'action="/a&#34;b"' in form


def test_what_depends_on_another_answer_is_marked_for_the_script_and_for_people() -> None:
    form = render_form(consent({"amount": 1}, {"amount": {"type": "number"}}), action="/answer")
    rules = [part.split('"', 1)[0] for part in form.unescape().split('data-rules="')[1:]]
    assert len(rules) == 2
    assert "only if you approve" in form
    assert "Only if you refuse." in form
