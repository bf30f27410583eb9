"""The schema of test files has the properties that the code reads, and describes each of them."""

import json
from typing import Any

import msgspec
import pytest
from jsonschema import Draft202012Validator

from flowrun.backends.scripted import REQUEST, ScriptedCall
from flowrun.errors import FAILURES
from flowrun.spec.schema import TEST_SCHEMA, find_schema
from flowrun.testing.suite import (
    Expectation,
    ExpectedCall,
    ExpectedFunctionCall,
    ExpectedMessage,
    ExpectedMove,
    ExpectedRequest,
    GivenAnswer,
    RawReply,
    Stub,
)
from tests.schemas import subschemas

SCHEMA: dict[str, Any] = json.loads(find_schema(TEST_SCHEMA).read_text())
DEFS = SCHEMA["$defs"]
EXPECTED = DEFS["expectation"]["properties"]


def test_it_is_a_valid_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    ("properties", "kind"),
    [
        pytest.param(DEFS["reply"]["properties"], RawReply, id="reply"),
        pytest.param(DEFS["reply"]["properties"]["tool_calls"]["items"]["properties"], ScriptedCall, id="call"),
        pytest.param(DEFS["stub"]["properties"], Stub, id="stub"),
        pytest.param(DEFS["answer"]["properties"], GivenAnswer, id="answer"),
        pytest.param(DEFS["expectation"]["properties"], Expectation, id="expectation"),
        pytest.param(DEFS["tool_call"]["properties"], ExpectedCall, id="tool-call"),
        pytest.param(EXPECTED["moves"]["items"]["properties"], ExpectedMove, id="move"),
        pytest.param(EXPECTED["requests"]["items"]["properties"], ExpectedRequest, id="request"),
        pytest.param(EXPECTED["function_calls"]["items"]["properties"], ExpectedFunctionCall, id="function-call"),
        pytest.param(DEFS["messages"]["items"]["properties"], ExpectedMessage, id="message"),
    ],
)
def test_its_properties_are_the_fields_of_the_structs(properties: dict[str, Any], kind: Any) -> None:
    assert set(properties) == {field.encode_name for field in msgspec.structs.fields(kind)}


def test_its_names_of_errors_are_the_failures() -> None:
    assert DEFS["error_name"]["enum"] == list(FAILURES)


def test_it_names_all_members_of_request() -> None:
    described = DEFS["reply"]["properties"]["when"]["description"]
    assert [name for name in REQUEST if f"request.{name}" not in described] == []


def test_every_property_is_described() -> None:
    properties = [
        (f"{path}/{name}", schema)
        for path, parent in subschemas(SCHEMA)
        for name, schema in parent.get("properties", {}).items()
        if not (schema is True and name in parent["required"])  # a condition on what is described elsewhere
    ]
    assert [path for path, schema in properties if "description" not in _resolved(schema)] == []


def _resolved(schema: dict[str, Any]) -> dict[str, Any]:
    target = DEFS[schema["$ref"].rsplit("/", 1)[1]] if "$ref" in schema else {}
    return {**target, **schema}


def test_examples_match_their_schemas() -> None:
    invalid = [
        path
        for path, schema in subschemas(SCHEMA)
        for example in schema.get("examples", ())
        if not Draft202012Validator({**schema, "$defs": DEFS}).is_valid(example)
    ]
    assert invalid == []
