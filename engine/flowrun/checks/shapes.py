"""What is known of the values that templates see, as JSON Schemas, and whether a path into one can lead anywhere.

A path is called wrong only if no value that matches the schema has it; what the schema leaves open may be there.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from flowrun.checks.subject import Subject
from flowrun.core.texts import Text
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
from flowrun.templates.reads import Keys

Schema = JSON

_ROOT: Final = "(root)"
"""Under this key stands a whole schema, to which the references inside of it count."""

_ANY: Final[Mapping[str, JSON]] = {}
_NULL: Final = {"type": "null"}
_OPEN: Final = frozenset(
    {"allOf", "if", "not", "dependentSchemas", "patternProperties", "$dynamicRef", "enum", "const"}
)
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


class Lack(NamedTuple):
    """A member that is not there: of what path, and what is there instead. ``sure`` False: it is only not declared."""

    owner: Keys
    key: str | int
    kind: str
    known: tuple[str, ...]
    sure: bool


def shapes_at(subject: Subject, text: Text) -> dict[str, Schema]:
    """Give the schemas of the names that a text sees, where anything is known of them."""
    spec = subject.spec
    return {
        "inputs": _closed(**{name: {_ROOT: schema} for name, schema in spec.inputs.items()}),
        "reply": _reply_shape(_speakers(subject, text)),
        "results": _RESULTS,
        "error": _ERROR,
        "run": _RUN,
        "outputs": _closed(**{name: _output(subject, state) for name, state in spec.states.items()}),
    }


def _speakers(subject: Subject, text: Text) -> list[ChatState]:
    """Give the chat states of which one has given the last reply."""
    spec = subject.spec
    state = spec.states.get(text.state)
    if text.moment in ("set", "left") and isinstance(state, ChatState):
        return [state]
    facts = subject.ways.facts.get(text.state)
    names: Iterable[str] = () if facts is None else sorted(facts.speakers)
    return [speaker for name in names if isinstance(speaker := spec.states[name], ChatState)]


def _reply_shape(speakers: list[ChatState]) -> Schema:
    parsed = {"anyOf": [_parsed(chat.response_format) for chat in speakers]} if speakers else _ANY
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


def _output(subject: Subject, state: State) -> Schema:
    match state:
        case ChatState():
            return _reply_shape([state])
        case ToolsState():
            return _RESULTS
        case WaitState():
            return {_ROOT: state.schema}
        case FlowState():
            return _flow_output(subject.flows.get(state.flow))
        case ParallelState():
            return _closed(**{name: _flow_output(subject.flows.get(b.flow)) for name, b in state.branches.items()})
        case MapState():
            each = _flow_output(subject.flows.get(state.flow))
            collected = _closed(output=each, error={"anyOf": [_ERROR, _NULL]})
            return {"type": "array", "items": collected if state.on_item_error == "collect" else each}
        case _:
            return _ANY


def _flow_output(flow: Spec | None) -> Schema:
    """Give what a flow's ends give; those that fail give nothing."""
    if flow is None:
        return _ANY
    ends = [state for state in flow.states.values() if isinstance(state, EndState) and state.status == "succeeded"]
    return {"anyOf": [_template_shape(end.output) for end in ends]} if ends else _ANY


def _template_shape(output: JSON) -> Schema:
    if output is None:
        return _NULL
    return _closed(**dict.fromkeys(output, _ANY)) if isinstance(output, Mapping) else _ANY


# --- following a path ---------------------------------------------------------------------------------------------


def find_lack(shape: Schema, path: Keys) -> Lack | None:
    """Give the first member on a path that cannot be there, or is not declared; ``path[0]`` is the value's name."""
    return _lack(shape, shape, path, 1)


def schema_at(shape: Schema, path: Keys) -> Mapping[str, Any] | None:
    """Give the schema of what a path leads to, where it is one single schema."""
    root = shape
    for key in path[1:]:
        shape, root = _resolved(shape, root)
        shape = _member(shape, key)
    shape, _ = _resolved(shape, root)
    return shape if isinstance(shape, Mapping) else None


def _lack(shape: Schema, root: Schema, path: Keys, at: int) -> Lack | None:
    if at == len(path):
        return None
    shape, root = _resolved(shape, root)
    if not isinstance(shape, Mapping) or _OPEN & shape.keys():
        return None
    for union in ("anyOf", "oneOf"):
        if union in shape:
            lacks = [_lack(branch, root, path, at) for branch in shape[union]]
            found = [lack for lack in lacks if lack is not None]
            return min(found, key=lambda lack: lack.sure) if lacks and len(found) == len(lacks) else None
    member = _member(shape, path[at])
    if member is not None:
        return _lack(member, root, path, at + 1)
    return _lack_in(shape, path, at)


def _lack_in(shape: Mapping[str, JSON], path: Keys, at: int) -> Lack | None:
    key, declared = path[at], shape.get("type")
    kinds = set(declared) if isinstance(declared, list) else {declared}
    kinds = kinds - {"null"} or kinds
    if None in kinds or (isinstance(key, int) and kinds & {"array", "string"}):
        return None
    if "object" not in kinds:
        return Lack(path[:at], key, " or ".join(sorted(map(str, kinds))), (), True)
    if kinds != {"object"} or not isinstance(key, str):
        return None
    properties, others = shape.get("properties", {}), shape.get("additionalProperties")
    if others is False or (others is None and properties):
        return Lack(path[:at], key, "object", tuple(properties), others is False)
    return None


def _member(shape: Schema, key: str | int) -> Schema:
    """Give the schema of a member, or None if there is none for it."""
    if not isinstance(shape, Mapping):
        return None
    if isinstance(key, int):
        return shape.get("items") if "prefixItems" not in shape else None
    return shape.get("properties", {}).get(key)


def _resolved(shape: Schema, root: Schema) -> tuple[Schema, Schema]:
    """Follow references; one that leads nowhere gives an open schema."""
    for _ in range(_MAX_REFERENCES):
        if not isinstance(shape, Mapping):
            return shape, root
        if list(shape) == ["anyOf"] and len(shape["anyOf"]) == 1:
            shape = shape["anyOf"][0]
        elif _ROOT in shape:
            shape = root = shape[_ROOT]
        elif isinstance(reference := shape.get("$ref"), str):
            shape = _pointed(root, reference)
        else:
            return shape, root
    return _ANY, root


def _pointed(root: Schema, reference: str) -> Schema:
    if not reference.startswith("#"):
        return _ANY
    node = root
    for part in reference[1:].split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(node, Mapping) or key not in node:
            return _ANY
        node = node[key]
    return node
