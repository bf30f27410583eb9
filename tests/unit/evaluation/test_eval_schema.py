"""The schema of eval files has the properties that the code reads, and describes each of them."""

import json
from typing import Any, get_args

import msgspec
import pytest
from jsonschema import Draft202012Validator

from flowrun.evaluation.comparisons import Comparison
from flowrun.evaluation.eval_file import EvalFile, Gate, ScoreScope
from flowrun.evaluation.load import KINDS, WORDS
from flowrun.spec.schema import EVAL_SCHEMA, TEST_SCHEMA, find_schema, read_schema
from tests.schemas import subschemas

SCHEMA: dict[str, Any] = json.loads(find_schema(EVAL_SCHEMA).read_text())
DEFS = SCHEMA["$defs"]
SCORE = DEFS["score"]["properties"]


def test_it_is_a_valid_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def test_a_score_has_the_keys_of_its_kinds_and_the_words_of_expect() -> None:
    assert set(SCORE) == {*KINDS, "value", "expected", "with", *WORDS}
    assert set(read_schema(TEST_SCHEMA)["$defs"]["expectation"]["properties"]) == WORDS


def test_a_file_and_a_gate_have_the_fields_of_their_structs() -> None:
    fields = {field.name for field in msgspec.structs.fields(EvalFile)} - {"path", "document"}
    assert {"gates" if name == "gate" else name for name in SCHEMA["properties"]} == fields
    assert set(DEFS["gate"]["properties"]) == {field.name for field in msgspec.structs.fields(Gate)}


def test_comparisons_are_those_that_there_are() -> None:
    assert SCORE["compare"]["enum"] == list(get_args(Comparison))


def test_it_names_all_that_scores_see() -> None:
    assert [name for name in ScoreScope.__annotations__ if name not in SCHEMA["description"]] == []


def test_every_property_is_described() -> None:
    properties = [
        (f"{path}/{name}", schema)
        for path, parent in subschemas(SCHEMA)
        for name, schema in parent.get("properties", {}).items()
    ]
    assert [path for path, schema in properties if "description" not in schema] == []


@pytest.mark.parametrize("path", [path for path, schema in subschemas(SCHEMA) if "examples" in schema])
def test_examples_match_their_schemas(path: str) -> None:
    schema = dict(subschemas(SCHEMA))[path]
    for example in schema["examples"]:
        assert Draft202012Validator({**schema, "$defs": DEFS}).is_valid(example), example
