"""The schema is valid, describes every property, and has the very properties that the ``Spec`` has."""

from collections.abc import Iterator
from typing import Any, get_args, get_type_hints

import jsonschema
import msgspec
import pytest

from flowrun.errors import FAILURES
from flowrun.spec import model as spec
from flowrun.spec import parse_text
from flowrun.spec.model import Holds
from flowrun.spec.parse import SHORTHANDS
from flowrun.spec.parts import properties_with
from flowrun.spec.profiles import NOT_IN_PROFILES
from flowrun.spec.schema import FLOW_SCHEMA, read_schema

SCHEMA: dict[str, Any] = read_schema(FLOW_SCHEMA)
DEFS: dict[str, Any] = SCHEMA["$defs"]
STATES = spec.STATES


def names(definition: str | None) -> set[str]:
    """Give the properties of a definition, or of the whole."""
    return set((SCHEMA if definition is None else DEFS[definition])["properties"])


def fields(struct: type[msgspec.Struct]) -> set[str]:
    """Give a struct's fields by the names that the language has for them."""
    return {field.encode_name for field in msgspec.structs.fields(struct)}


def objects(schema: Any, path: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Walk over every subschema."""
    if isinstance(schema, dict):
        yield path, schema
        for key, value in schema.items():
            if key not in ("examples", "default", "enum", "const"):
                yield from objects(value, f"{path}/{key}")
    elif isinstance(schema, list):
        for index, item in enumerate(schema):
            yield from objects(item, f"{path}/{index}")


def resolved(schema: Any) -> Any:
    """Follow a chain of references."""
    while isinstance(schema, dict) and "$ref" in schema and "description" not in schema:
        target: Any = SCHEMA
        for part in schema["$ref"].split("/")[1:]:
            target = target[part]
        schema = target
    return schema


def test_it_is_a_json_schema_of_draft_2020_12() -> None:
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


PARTS: dict[str, type[msgspec.Struct]] = {
    "model": spec.Model,
    "tool": spec.Tool,
    "limits": spec.Limits,
    "token_limits": spec.TokenLimits,
    "retry": spec.Retry,
    "route": spec.Route,
    "response_format": spec.ResponseFormat,
    "branch": spec.ParallelBranch,
    "written_call": spec.CallTemplate,
    "repeated_messages": spec.RepeatedMessages,
    "messages_from": spec.MessagesFrom,
    "said": spec.Said,
    "window": spec.Window,
    "serve": spec.Serve,
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_has_the_properties_of_its_struct(part: str) -> None:
    assert names(part) == fields(PARTS[part])


def test_a_flow_has_the_properties_of_a_spec_and_its_shorthands_and_profiles() -> None:
    assert names(None) == fields(spec.Spec) | set(SHORTHANDS) | {"profiles"}
    assert names("local_flow") == names(None) - NOT_IN_PROFILES - {"serve"}
    assert names("profile") == names(None) - NOT_IN_PROFILES


def test_a_catch_has_the_properties_of_its_struct() -> None:
    assert set(DEFS["catch"]["items"]["properties"]) == fields(spec.Catch)


@pytest.mark.parametrize("kind", STATES)
def test_a_state_has_the_properties_of_its_struct(kind: str) -> None:
    following = set() if kind == "end" else {"next"}
    assert names(f"{kind}_state") == fields(STATES[kind]) | {"type"} | following


def test_there_are_the_states_that_the_spec_has() -> None:
    assert set(DEFS["state"]["properties"]["type"]["enum"]) == set(STATES)
    assert {condition["if"]["properties"]["type"]["const"] for condition in DEFS["state"]["allOf"]} == set(STATES)


def test_messages_have_the_properties_of_their_struct() -> None:
    kinds = ("plain_message", "assistant_message", "tool_message")
    assert set().union(*map(names, kinds)) == fields(spec.MessageTemplate)


@pytest.mark.parametrize("part", ["model", "tool", "limits", "token_limits"])
def test_a_profile_may_change_every_property_of_a_part(part: str) -> None:
    assert names(f"{part}_patch") == names(part)


def test_a_profile_may_change_every_property_of_a_state() -> None:
    assert names("state_patch") == set().union(*(names(f"{kind}_state") for kind in STATES))


def test_the_names_of_errors_are_those_of_failures_and_their_families() -> None:
    families = dict.fromkeys(f"{name.partition('.')[0]}.*" for name in FAILURES)
    assert DEFS["failure_pattern"]["enum"] == [*FAILURES, *families]


def test_the_enums_are_those_of_the_structs() -> None:
    def literal(struct: type[msgspec.Struct], field: str) -> list[str]:
        return list(get_args(get_type_hints(struct)[field]))

    assert {
        "backend": DEFS["model"]["properties"]["backend"]["anyOf"][0]["enum"],
        "role": DEFS["message"]["properties"]["role"]["enum"],
        "on_error": DEFS["tools_state"]["properties"]["on_error"]["enum"],
        "on_item_error": DEFS["map_state"]["properties"]["on_item_error"]["enum"],
        "status": DEFS["end_state"]["properties"]["status"]["enum"],
        "format": sorted(DEFS["response_format"]["properties"]["type"]["enum"]),
    } == {
        "backend": list(spec.CAPABILITIES),
        "role": literal(spec.MessageTemplate, "role"),
        "on_error": literal(spec.ToolsState, "on_error"),
        "on_item_error": literal(spec.MapState, "on_item_error"),
        "status": literal(spec.EndState, "status"),
        "format": sorted(literal(spec.ResponseFormat, "type")),
    }


ROLES = {
    "expression": Holds.EXPRESSION,
    "template": Holds.TEMPLATE,
    "content": Holds.TEMPLATE,
    "text": Holds.TEMPLATE,
    "system": Holds.TEMPLATE,
    "arguments": Holds.TEMPLATE,
    "set": Holds.TEMPLATE,
    "json_schema": Holds.SCHEMA,
    "object_schema": Holds.SCHEMA,
    "entrypoint": Holds.ENTRYPOINT,
    "flow_reference": Holds.FLOW,
    "thread": Holds.THREAD,
}
"""The definitions of values that a struct has to mark, so that checks and the compiler find them."""


@pytest.mark.parametrize("part", [*PARTS, *(f"{kind}_state" for kind in STATES)])
def test_what_a_property_holds_is_what_its_definition_says(part: str) -> None:
    struct = {**PARTS, **{f"{kind}_state": state for kind, state in STATES.items()}}[part]
    definitions = {
        name: ROLES[definition]
        for name, schema in DEFS[part]["properties"].items()
        if (definition := str(schema.get("$ref") if isinstance(schema, dict) else "").rpartition("/")[2]) in ROLES
    }
    assert {name: role for name, role in definitions.items() if name not in properties_with(struct, role)} == {}


DEFAULTS: dict[str, type[msgspec.Struct]] = {**PARTS, **{f"{kind}_state": state for kind, state in STATES.items()}}


@pytest.mark.parametrize("part", DEFAULTS)
def test_the_defaults_are_those_of_the_struct(part: str) -> None:
    from flowrun.spec.parse import parse_duration, parse_size

    documented, real = {}, {}
    for field in msgspec.structs.fields(DEFAULTS[part]):
        default = field.default_factory() if callable(field.default_factory) else field.default
        described = DEFS[part]["properties"][field.encode_name]
        if "default" not in described or default is msgspec.NODEFAULT:
            continue
        written = described["default"]
        parse = {spec.Seconds: parse_duration, spec.Size: parse_size}.get(type(default))
        documented[field.encode_name] = parse(written) if parse and isinstance(written, str) else written
        real[field.encode_name] = list(default) if isinstance(default, tuple) else default
    assert documented == real


def test_every_property_has_a_description() -> None:
    patches = tuple(f"#/$defs/{name}" for name in DEFS if name.endswith("_patch") or name == "profile")
    undescribed = [
        f"{path}/properties/{name}"
        for path, schema in objects(SCHEMA)
        if not path.startswith(patches) and "/if" not in path and "/not" not in path and "/else" not in path
        for name, described in schema.get("properties", {}).items()
        if not path.endswith("/properties") and name not in ("type", "role")
        if not (described is True and name in schema.get("required", ()))  # a condition on what is described elsewhere
        if "description" not in resolved(described)
    ]
    assert undescribed == []


def test_every_example_and_default_matches_its_schema() -> None:
    root = jsonschema.Draft202012Validator(SCHEMA)
    wrong = [
        f"{path}: {error.message}"
        for path, schema in objects(SCHEMA)
        if not path.endswith("/properties")
        for value in [*schema.get("examples", []), *([schema["default"]] if "default" in schema else [])]
        for error in root.evolve(schema={"$ref": path}).iter_errors(value)
    ]
    assert wrong == []


def test_every_object_says_whether_it_is_open() -> None:
    """Only what holds names of vLLM, of JSON Schema or of the author's own may have any key."""
    closed = {name for name, definition in DEFS.items() if definition.get("additionalProperties") is False}
    told_apart_further_in = {"state", "message", "message_entry", "say_entry"}
    open_ones = {
        name
        for name, definition in DEFS.items()
        if definition.get("type") == "object" and name not in closed | told_apart_further_in
    }
    assert open_ones == {"sampling", "arguments", "json_schema", "object_schema", "set"}


def test_the_example_of_the_inputs_is_a_spec() -> None:
    import json

    example = SCHEMA["properties"]["inputs"]["examples"][0]
    loaded = parse_text(f"flowrun: v1\nname: a\nversion: 1.0.0\ninputs: {json.dumps(example)}\n")
    assert loaded.spec.inputs == example


def test_no_default_is_null() -> None:
    """The YAML language server offers no key after one with such a default; the description says it in words."""
    nulls = [path for path, schema in objects(SCHEMA) if schema.get("default", 0) is None]
    assert nulls == []
