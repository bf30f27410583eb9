"""JSON Schemas of the values that templates see, and the search for paths that cannot exist in them.

A path is reported only if no value that matches the schema has it. A member that the schema leaves open may exist.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flowrun.core.texts import Text
from flowrun.spec.json_types import declared_types
from flowrun.spec.model import (
    JSON,
    ChatState,
    EndState,
    FlowState,
    MapState,
    ParallelState,
    ResponseFormat,
    Spec,
    State,
    ToolsState,
    WaitState,
)
from flowrun.spec.references import find_target
from flowrun.templates.reads import Keys

if TYPE_CHECKING:
    from flowrun.checks.subject import Subject

Schema = JSON

_ROOT: Final = "(root)"
"""The key that holds a full JSON Schema. The references in that schema are resolved in it."""

_ANY: Final[Mapping[str, JSON]] = {}
_NULL: Final = {"type": "null"}
_OPEN: Final = frozenset(
    {"allOf", "if", "not", "dependentSchemas", "patternProperties", "$dynamicRef", "enum", "const"}
)
"""Keywords of schemas that may have members which ``properties`` does not list."""

_MAX_REFERENCES: Final = 20


def _closed(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


_COUNT: Final = {"type": "integer"}
_USAGE: Final = _closed(prompt_tokens=_COUNT, completion_tokens=_COUNT, cached_tokens={}, rerendered=_COUNT)
_CALL: Final = _closed(id={"type": "string"}, name={"type": "string"}, arguments=_ANY)
_ERROR: Final = _closed(name={"type": "string"}, message={"type": "string"}, state={"type": "string"})
_RESULTS: Final = {
    "type": "array",
    "items": _closed(
        id={"type": "string"},
        name={"type": "string"},
        arguments=_ANY,
        value=_ANY,
        error=_closed(name={"type": "string"}, message={"type": "string"}),
    ),
}
_RUN: Final = _closed(
    id={"type": "string"},
    state={"type": "string"},
    step={"type": "integer"},
    rounds={"type": "integer"},
    attempt={"type": "integer"},
)


class MissingMember(NamedTuple):
    """A member ``key`` that the value at the path ``owner`` does not have.

    ``kind`` is the JSON type of that value, ``known`` are the members that its schema declares. ``sure`` is False if
    the schema does not declare the member, but does not forbid it.
    """

    owner: Keys
    key: str | int
    kind: str
    known: tuple[str, ...]
    sure: bool


def shapes_at(subject: "Subject", text: Text) -> dict[str, Schema]:
    """Return the schemas of the names that a text sees, without those of unknown schema, such as ``vars``."""
    return {**subject.shapes, "reply": _reply_shape(_reply_states(subject, text))}


def shapes_everywhere(spec: Spec, flows: Mapping[str, Spec]) -> dict[str, Schema]:
    """Return the schemas of the names that have the same one in all texts of a spec.

    Args:
        flows: the specs of the sub-flows, by the texts that refer to them.
    """
    return {
        "inputs": _closed(**{name: {_ROOT: schema} for name, schema in spec.inputs.items()}),
        "results": _RESULTS,
        "error": _ERROR,
        "run": _RUN,
        "outputs": _closed(**{name: _output(flows, state) for name, state in spec.states.items()}),
    }


def _reply_states(subject: "Subject", text: Text) -> list[ChatState]:
    """Return the chat states that may have given the last reply."""
    spec = subject.spec
    state = spec.states.get(text.state)
    if text.moment in ("set", "left") and isinstance(state, ChatState):
        return [state]
    facts = subject.state_graph.facts.get(text.state)
    names: Iterable[str] = () if facts is None else sorted(facts.reply_states)
    return [chat for name in names if isinstance(chat := spec.states[name], ChatState)]


def _reply_shape(chats: list[ChatState]) -> Schema:
    parsed = {"anyOf": [_parsed(chat.response_format) for chat in chats]} if chats else _ANY
    return _closed(
        content={"type": ["string", "null"]},
        reasoning={"type": ["string", "null"]},
        tool_calls={"type": "array", "items": _CALL},
        parsed=parsed,
        finish_reason={"type": "string"},
        usage=_USAGE,
    )


def _parsed(form: ResponseFormat | None) -> Schema:
    if form is None:
        return _NULL
    return {"type": "object"} if form.schema is None else {_ROOT: form.schema}


def _output(flows: Mapping[str, Spec], state: State) -> Schema:
    match state:
        case ChatState():
            return _reply_shape([state])
        case ToolsState():
            return _RESULTS
        case WaitState():
            return {_ROOT: state.schema}
        case FlowState():
            return _flow_output(flows.get(state.flow))
        case ParallelState():
            return _closed(**{name: _flow_output(flows.get(b.flow)) for name, b in state.branches.items()})
        case MapState():
            each = _flow_output(flows.get(state.flow))
            collected = _closed(output=each, error={"anyOf": [_ERROR, _NULL]})
            return {"type": "array", "items": collected if state.on_item_error == "collect" else each}
        case _:
            return _ANY


def _flow_output(flow: Spec | None) -> Schema:
    """Return the schema of a flow's output: that of its end states, except those with status ``failed``."""
    if flow is None:
        return _ANY
    ends = [state for state in flow.states.values() if isinstance(state, EndState) and state.status == "succeeded"]
    return {"anyOf": [_template_shape(end.output) for end in ends]} if ends else _ANY


def _template_shape(output: JSON) -> Schema:
    if output is None:
        return _NULL
    return _closed(**dict.fromkeys(output, _ANY)) if isinstance(output, Mapping) else _ANY


# --- following a path ---------------------------------------------------------------------------------------------


def find_missing_member(shape: Schema, path: Keys) -> MissingMember | None:
    """Return the first member on a path that cannot exist or is not declared; None if there is no such member.

    Args:
        shape: the schema of the value with the name ``path[0]``.
    """
    return _find_missing(shape, shape, path, 1)


def schema_at(shape: Schema, path: Keys) -> Mapping[str, Any] | None:
    """Return the schema of the value at a path; None if it is unknown or a union."""
    root = shape
    for key in path[1:]:
        shape, root = _resolve(shape, root)
        shape = _member(shape, key)
    shape, _ = _resolve(shape, root)
    return shape if isinstance(shape, Mapping) else None


def _find_missing(shape: Schema, root: Schema, path: Keys, at: int) -> MissingMember | None:
    if at == len(path):
        return None
    shape, root = _resolve(shape, root)
    if not isinstance(shape, Mapping) or _OPEN & shape.keys():
        return None
    for union in ("anyOf", "oneOf"):
        if union in shape:
            of_branches = [_find_missing(branch, root, path, at) for branch in shape[union]]
            found = [missing for missing in of_branches if missing is not None]
            return (
                min(found, key=lambda missing: missing.sure) if of_branches and len(found) == len(of_branches) else None
            )
    member = _member(shape, path[at])
    if member is not None:
        return _find_missing(member, root, path, at + 1)
    return _missing_in(shape, path, at)


def _missing_in(shape: Mapping[str, JSON], path: Keys, at: int) -> MissingMember | None:
    key, declared = path[at], declared_types(shape)
    types = declared - {"null"} or declared
    if not types or (isinstance(key, int) and types & {"array", "string"}):
        return None
    if "object" not in types:
        return MissingMember(path[:at], key, " or ".join(sorted(types)), (), True)
    if types != {"object"} or not isinstance(key, str):
        return None
    if key in shape.get("required", ()):
        return None
    properties, others = shape.get("properties", {}), shape.get("additionalProperties")
    if others is False or (others is None and properties):
        return MissingMember(path[:at], key, "object", tuple(properties), others is False)
    return None


def _member(shape: Schema, key: str | int) -> Schema:
    """Return the schema of a member, or None if the schema does not declare it."""
    if not isinstance(shape, Mapping):
        return None
    if isinstance(key, int):
        return shape.get("items") if "prefixItems" not in shape else None
    return shape.get("properties", {}).get(key)


def _resolve(shape: Schema, root: Schema) -> tuple[Schema, Schema]:
    """Return the schema that references lead to, and its root; an open schema if a reference cannot be resolved."""
    for _ in range(_MAX_REFERENCES):
        if not isinstance(shape, Mapping):
            return shape, root
        if list(shape) == ["anyOf"] and len(shape["anyOf"]) == 1:
            shape = shape["anyOf"][0]
        elif _ROOT in shape:
            shape = root = shape[_ROOT]
        elif isinstance(reference := shape.get("$ref"), str):
            target = find_target(root, reference)
            shape = _ANY if target is None else target
        else:
            return shape, root
    return _ANY, root
