"""What holds for any schema, any default and anything that is posted."""

from collections.abc import Mapping
from json import dumps
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flowrun.core.approvals import compile_approval
from flowrun.core.json_schema import compile_schema
from flowrun.serving.pages.answer_fields import read_form, render_form
from flowrun.spec.model import Approval
from tests.unit.serving.pages.forms import question, sent_by, untouched

Pair = tuple[dict[str, Any], Any]
"""A schema, and a value that it allows."""

TEXTS = st.text(st.sampled_from('ab 1"\n\r\t\0\\<&,.\u202e\u200d\ufffd\U0001f469\x85'), max_size=8)
NUMBERS = st.integers(-3, 10**20) | st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | NUMBERS | TEXTS
ANY = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS, inner, max_size=2))


@st.composite
def choices(draw: st.DrawFn) -> Pair:
    values = draw(st.lists(SCALARS, min_size=1, max_size=7))
    kinds: list[dict[str, Any]] = [{"enum": values}, {"oneOf": [{"const": v} for v in values]}, {"const": values[0]}]
    return draw(st.sampled_from(kinds)), values[0]


@st.composite
def lists(draw: st.DrawFn, inner: st.SearchStrategy[Pair]) -> Pair:
    schema, value = draw(inner)
    return {"type": "array", "items": schema}, [value] * draw(st.integers(0, 3))


@st.composite
def objects(draw: st.DrawFn, inner: st.SearchStrategy[Pair]) -> Pair:
    names = draw(st.lists(st.sampled_from(["a", "b.c", "ok", "<i>", "arguments"]), unique=True, max_size=3))
    parts = {name: draw(inner) for name in names}
    given = {name: value for name, (_, value) in parts.items() if draw(st.booleans())}
    more = draw(st.sampled_from([{}, {"more": "x\n"}]))
    required = [name for name in given if draw(st.booleans())]
    properties = {name: schema for name, (schema, _) in parts.items()}
    return {"type": "object", "properties": properties, "required": required}, {**given, **more}


@st.composite
def nullable(draw: st.DrawFn, inner: st.SearchStrategy[Pair]) -> Pair:
    schema, value = draw(inner)
    return {"anyOf": [schema, {"type": "null"}]}, draw(st.sampled_from([value, None]))


def typed(kind: str | list[str], values: st.SearchStrategy[Any]) -> st.SearchStrategy[Pair]:
    return values.map(lambda value: ({"type": kind}, value))


LEAVES: st.SearchStrategy[Pair] = st.one_of(
    typed("string", TEXTS),
    typed("number", NUMBERS),
    typed("boolean", st.booleans()),
    typed(["string", "integer", "null"], TEXTS | st.integers(0, 9) | st.none()),
    ANY.map(lambda value: ({}, value)),
    choices(),
)
PAIRS = st.recursive(LEAVES, lambda inner: lists(inner) | objects(inner) | nullable(inner), max_leaves=6)


@given(PAIRS)
@settings(deadline=None, max_examples=300)
def test_what_nobody_changed_is_the_default(pair: Pair) -> None:
    schema, default = pair
    valid = compile_schema(schema)(default) is None
    request = question({"type": "object", "properties": {"it": {**schema, "default": default}}, "required": ["it"]})
    filled = read_form(request, untouched(request), action="/answer")
    if valid:
        assert dumps(filled.value, sort_keys=True) == dumps({"it": default}, sort_keys=True)


@given(objects(PAIRS))
@settings(deadline=None, max_examples=300)
def test_a_call_that_nobody_changed_is_that_of_the_model(pair: Pair) -> None:
    parameters, arguments = pair
    if compile_schema(parameters)(arguments) is not None:
        return
    approval = compile_approval("call", Approval(), parameters, [])
    call = {"id": "1", "name": "call", "arguments": arguments, "hidden": {}}
    request = question(approval.schema_with(arguments), call=call)
    filled = read_form(request, [("f0", "0"), *untouched(request)], action="/answer")
    assert dumps(filled.value, sort_keys=True) == dumps({"ok": True, "arguments": arguments}, sort_keys=True)


NAMES = st.from_regex(r"f[0-2](\.[0-3]\.f[01])?(\.row|\.empty)?", fullmatch=True) | st.sampled_from(["change", "", "x"])
WORDS = [
    "",
    "0",
    "1",
    "out",
    "null",
    "empty",
    "add f0",
    "remove f0.0",
    "[" * 99,
    "1e999999",
    "9" * 5000,
    "\ud800",
    "\0",
]


@given(PAIRS, st.lists(st.tuples(NAMES, st.sampled_from(WORDS) | st.text(max_size=5)), max_size=12))
@settings(deadline=None, max_examples=500)
def test_whatever_is_posted_is_an_answer_or_the_form_again(pair: Pair, posted: list[tuple[str, str]]) -> None:
    schema: Mapping[str, Any] = {"type": "object", "properties": {"it": pair[0]}}
    request = question(schema)
    filled = read_form(request, posted, action="/answer")
    if filled.form is None:
        assert compile_schema(schema)(filled.value) is None
    else:
        filled.form.encode()
        sent_by(filled.form)
        render_form(request, action="/answer")
