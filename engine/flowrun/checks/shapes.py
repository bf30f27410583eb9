"""JSON Schemas of the values that templates see, and the search for paths that cannot exist in them.

A path is reported only if no value that matches the schema has it. A member that the schema leaves open may exist.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from flowrun.checks.dataflow import repliers
from flowrun.core.shapes import ANY, ROOT, Shape, closed, shape_of
from flowrun.core.states import KINDS
from flowrun.core.states.chat import shape_of_reply
from flowrun.core.texts import Text, states_of
from flowrun.core.views import CallView, MessageView, RequestView, ScopeView
from flowrun.spec.json_types import declared_types
from flowrun.spec.model import JSON, MAIN, ChatState, Spec
from flowrun.spec.references import find_target
from flowrun.templates.reads import Keys

if TYPE_CHECKING:
    from flowrun.checks.subject import Subject

_OPEN: Final = frozenset(
    {"allOf", "if", "not", "dependentSchemas", "patternProperties", "$dynamicRef", "enum", "const"}
)
"""Keywords of schemas that may have members which ``properties`` does not list."""

_MAX_REFERENCES: Final = 20


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


def shapes_at(subject: "Subject", text: Text) -> dict[str, Shape]:
    """Return the schemas of the names that a text sees, without those of unknown schema, such as ``vars``."""
    shapes = {**subject.shapes, "reply": shape_of_reply([*chats_behind(subject, text, ("reply",)).values()])}
    if text.moment == "served":
        shapes["request"] = shape_of(RequestView)
    if text.moment == "called":
        arguments = subject.parameters_of(subject.spec.tools[str(text.path[1])])
        call = shape_of(CallView)
        known = {} if arguments is None else {"arguments": {ROOT: arguments}}
        shapes["call"] = {**call, "properties": {**call["properties"], **known}}
    return shapes


def shapes_everywhere(spec: Spec, flows: Mapping[str, Spec]) -> dict[str, Shape]:
    """Return the shapes of the names that have the same one in all texts of a spec.

    Args:
        flows: the specs of the sub-flows, by the texts that refer to them.
    """
    states = [(name, state, KINDS[state.type]) for name, state in spec.states.items()]
    return {
        **shape_of(ScopeView)["properties"],
        "inputs": closed(**{name: {ROOT: schema} for name, schema in spec.inputs.items()}),
        "threads": closed(**dict.fromkeys((MAIN, *spec.threads), shape_of(list[MessageView]))),
        "outputs": closed(**{name: kind.shape(state, flows) for name, state, kind in states if kind.output}),
    }


def chats_behind(subject: "Subject", text: Text, keys: Keys) -> dict[str, ChatState]:
    """Return the chat states that may have given the reply at a path, ``reply`` or ``outputs.<state>``; else none."""
    states = subject.spec.states
    match keys:
        case ("reply",):
            repliers = (_repliers(subject, text, name) for name in states_of(subject.spec, text))
            names: Iterable[str] = sorted(frozenset().union(*repliers))
        case ("outputs", str(name)) if name in states:
            names = [name]
        case _:
            names = ()
    return {name: chat for name in names if isinstance(chat := states[name], ChatState)}


def _repliers(subject: "Subject", text: Text, name: str) -> frozenset[str]:
    """Return the states that may have given the last reply when a text is evaluated in a state."""
    facts = subject.state_graph.facts.get(name)
    before = frozenset() if facts is None else facts.reply_states
    return repliers(subject.spec, name, before, done=text.moment in ("set", "said", "left", "called"))


# --- following a path ---------------------------------------------------------------------------------------------


def find_missing_member(shape: Shape, path: Keys) -> MissingMember | None:
    """Return the first member on a path that cannot exist or is not declared; None if there is no such member.

    Args:
        shape: the schema of the value with the name ``path[0]``.
    """
    return _find_missing(shape, shape, path, 1)


def schema_at(shape: Shape, path: Keys) -> Mapping[str, Any] | None:
    """Return the schema of the value at a path; None if it is unknown or a union."""
    root = shape
    for key in path[1:]:
        shape, root = _resolve(shape, root)
        shape = _member(shape, key)
    shape, _ = _resolve(shape, root)
    return shape if isinstance(shape, Mapping) else None


def _find_missing(shape: Shape, root: Shape, path: Keys, at: int) -> MissingMember | None:
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


def _member(shape: Shape, key: str | int) -> Shape:
    """Return the schema of a member, or None if the schema does not declare it."""
    if not isinstance(shape, Mapping):
        return None
    if isinstance(key, int):
        return shape.get("items") if "prefixItems" not in shape else None
    return shape.get("properties", {}).get(key)


def _resolve(shape: Shape, root: Shape) -> tuple[Shape, Shape]:
    """Return the schema that references lead to, and its root; an open schema if a reference cannot be resolved."""
    for _ in range(_MAX_REFERENCES):
        if not isinstance(shape, Mapping):
            return shape, root
        if list(shape) == ["anyOf"] and len(shape["anyOf"]) == 1:
            shape = shape["anyOf"][0]
        elif ROOT in shape:
            shape = root = shape[ROOT]
        elif isinstance(reference := shape.get("$ref"), str):
            target = find_target(root, reference)
            shape = ANY if target is None else target
        else:
            return shape, root
    return ANY, root
