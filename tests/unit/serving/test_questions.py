"""Questions of runs as flat forms, which clients of MCP can show."""

from typing import Any

import msgspec
import pytest

from flowrun.core.approvals import answer_schema
from flowrun.core.events import RequestInput
from flowrun.core.json_schema import compile_schema
from flowrun.core.machine import Run
from flowrun.runtime.run_result import InputRequest, RunResult
from flowrun.serving.questions import answer_of_form, describe_questions, flat_form, question_text


def question(schema: dict[str, Any], call: dict[str, Any] | None = None) -> InputRequest:
    return InputRequest(id="r/1/0", run="r", state="ask", prompt="Well?", schema=schema, call=call)


TEXT = {"type": "string"}

DECEIVES = "Pay \u202e05\u202c?\x1b[2K"
SHOWN = "Pay \ufffd05\ufffd?\ufffd[2K"


def test_characters_that_deceive_are_shown_as_marks() -> None:
    """Texts of models and rows may turn the order of what stands on a screen, or wipe it."""
    ask = question(TEXT, call={"id": "c", "name": "pay", "arguments": {"to": DECEIVES}, "hidden": {}})
    ask = msgspec.structs.replace(ask, prompt=DECEIVES, schema={**TEXT, "description": DECEIVES})
    asks = RequestInput(
        run="r", step=1, index=0, state="ask", prompt=DECEIVES, schema=ask.schema, call=ask.call, timeout=None
    )
    described = describe_questions(RunResult(run=Run(id="r"), waiting=(asks,)), "http://a", {})
    assert question_text(ask).startswith(f"{SHOWN}\n")
    assert described.startswith(f"{question_text(ask)}\n\n(Run r waits")
    assert all(character.isprintable() or character == "\n" for character in described)
    secret = "\u202e05\u202c"
    shown = describe_questions(RunResult(run=Run(id="r"), waiting=(asks,)), "http://a", {secret: "${PRICE}"})
    assert "05" not in shown
    assert shown.startswith("Pay ${PRICE}?")


@pytest.mark.parametrize(
    ("schema", "form", "content", "answer"),
    [
        pytest.param(TEXT, {"answer": TEXT}, {"answer": "x"}, "x", id="a text"),
        pytest.param({"type": "boolean"}, {"answer": {"type": "boolean"}}, {"answer": False}, False, id="yes or no"),
        pytest.param(
            {
                "type": "object",
                "properties": {"a": {**TEXT, "pattern": "x"}, "n": {"type": "integer"}},
                "required": ["a"],
            },
            {"a": TEXT, "n": {"type": "integer"}},
            {"a": "x"},
            {"a": "x"},
            id="an object",
        ),
    ],
)
def test_a_flat_form_and_its_answer(schema: dict[str, Any], form: dict[str, Any], content: Any, answer: Any) -> None:
    ask = question(schema)
    found = flat_form(ask)
    assert found is not None
    assert found["properties"] == form
    assert answer_of_form(ask, content) == answer
    assert compile_schema(schema)(answer) is None


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"type": "object", "properties": {"a": {"type": "array"}}}, id="a list"),
        pytest.param({"type": "object", "properties": {"a": {"type": "object"}}}, id="an object in it"),
        pytest.param({"type": "object"}, id="no properties"),
        pytest.param({"type": "object", "properties": {"a": TEXT}, "if": {}}, id="conditions"),
        pytest.param({"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": TEXT}}, id="refers"),
        pytest.param({"type": ["string", "integer"]}, id="two types"),
        pytest.param({}, id="anything"),
    ],
)
def test_some_questions_have_no_flat_form(schema: dict[str, Any]) -> None:
    assert flat_form(question(schema)) is None


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        pytest.param({"ok": True, "reason": ""}, {"ok": True}, id="yes"),
        pytest.param({"ok": False, "reason": "too much"}, {"ok": False, "reason": "too much"}, id="no"),
        pytest.param({"ok": False}, {"ok": False}, id="no, without a reason"),
    ],
)
def test_consent_is_a_flat_form(content: dict[str, Any], answer: dict[str, Any]) -> None:
    schema = answer_schema({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}, ())
    ask = question(schema, call={"id": "c", "name": "pay", "arguments": {"n": 1}, "hidden": {}})
    form = flat_form(ask)
    assert form is not None
    assert list(form["properties"]) == ["ok", "reason"]
    assert answer_of_form(ask, content) == answer
    assert compile_schema(schema)(answer) is None
