"""The table of vLLM's names, the ranges and the rules for schemas match the installed vLLM."""

from typing import Any

import pytest

from flowrun.backends.vllm import names as runtime
from flowrun.checks.grammar import FORMATS, unenforced
from flowrun.checks.models import FIXED, OWN_PLACES, RANGES
from flowrun.checks.vllm_names import SAMPLING

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.usefixtures("needs_vllm"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # raised by the imports of torch and vLLM
]


def test_the_table_is_that_of_the_installed_vllm() -> None:
    from tests.unit.checks.write_vllm_names import TABLE, table

    assert TABLE.read_text(encoding="utf-8") == table()


def test_the_checks_know_what_the_adapter_knows() -> None:
    assert (FIXED, OWN_PLACES) == (runtime.FIXED_SAMPLING, runtime.OWN_ENGINE_ARGUMENTS)
    assert SAMPLING.keys() - FIXED == runtime.sampling_names()


@pytest.mark.parametrize("name", [name for name in RANGES if name in SAMPLING])  # the others are those of servers
def test_ranges_end_where_vllm_refuses(name: str) -> None:
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError

    bounds = RANGES[name]
    step = 1 if "integer" in SAMPLING[name] else 0.001
    ends = [(end, sign) for end, sign in ((bounds.least, -1), (bounds.above, -1), (bounds.most, 1)) if end is not None]
    assert ends
    for end, sign in ends:
        inside = end - sign * step if bounds.above == end else end
        outside = end if bounds.above == end else end + sign * step
        taken: Any = SamplingParams.from_optional(**{"max_tokens": 99, name: type(step)(inside)})
        assert getattr(taken, name) == inside
        assert bounds.admits(inside)
        assert not bounds.admits(outside)
        with pytest.raises(VLLMValidationError, match=name):
            SamplingParams.from_optional(**{"max_tokens": 99, name: type(step)(outside)})


SCHEMAS: list[dict[str, Any]] = [
    {"type": "integer", "multipleOf": 2},
    {"type": "string", "multipleOf": 2},
    {"type": "array", "uniqueItems": True},
    {"type": "array", "contains": {"const": 1}},
    {"type": ["array", "null"], "minContains": 1},
    {"type": "string", "format": "email"},
    {"type": "string", "format": "colour"},
    {"type": "string", "pattern": "a", "maxLength": 3},
    {"type": "string", "format": "date", "minLength": 3},
    {"type": "string", "pattern": "a"},
    {"type": "object", "propertyNames": {"pattern": "a"}},
    {"type": "object", "propertyNames": {"pattern": "a", "maxLength": 2}},
    {"type": "object", "propertyNames": {}, "properties": {}},
    {"type": "object", "propertyNames": {}, "unevaluatedProperties": False},
    {"type": "object", "patternProperties": {"a": {}}},
    {"type": "object", "patternProperties": {"a": {}, "b": {}}},
    {"type": "object", "patternProperties": {"a": {}}, "properties": {}},
    {"allOf": [{"type": "string"}]},
    {"allOf": [{"type": "string"}, {"minLength": 1}]},
    {"type": "object", "properties": {"a": {"anyOf": [{"type": "number", "multipleOf": 0.5}]}}},
    {"type": "object", "properties": {"a": {"type": "string"}}},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=str)
def test_a_schema_is_called_unenforceable_just_where_vllm_calls_it_so(schema: dict[str, Any]) -> None:
    from vllm.v1.structured_output.backend_xgrammar import has_xgrammar_unsupported_json_features

    assert bool(list(unenforced(schema))) == has_xgrammar_unsupported_json_features(schema)


def test_the_formats_are_those_of_vllm() -> None:
    from vllm.v1.structured_output.backend_xgrammar import STRING_SUPPORTED_FORMATS

    assert FORMATS == STRING_SUPPORTED_FORMATS
