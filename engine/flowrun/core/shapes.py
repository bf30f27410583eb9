"""Shapes: JSON Schemas of the values that templates see, made from Python types and from the schemas of a spec."""

from collections.abc import Mapping
from functools import cache
from types import NoneType
from typing import Any, Final, get_args, get_origin, get_type_hints, is_typeddict

import msgspec

from flowrun.spec.json_types import JSON_TYPES
from flowrun.spec.model import JSON, EndState, Spec

Shape = JSON

ROOT: Final = "(root)"
"""The key that holds a full JSON Schema of a spec. The references in that schema are resolved in it."""

ANY: Final[Mapping[str, JSON]] = {}
NULL: Final = {"type": "null"}


def closed(**properties: Shape) -> dict[str, Shape]:
    """Return the shape of a mapping that has these members and no others."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


def one_of(shapes: list[Shape]) -> Shape:
    """Return the shape of a value that has one of these shapes; any shape if there are none."""
    return {"anyOf": shapes} if shapes else ANY


def is_view(kind: Any) -> bool:
    """Return whether a type is a mapping whose members are declared: a typed dict or a struct."""
    return is_typeddict(kind) or (isinstance(kind, type) and issubclass(kind, msgspec.Struct))


@cache
def shape_of(kind: Any) -> Shape:
    """Return the shape of the values of a type: a view, a list of views, a type of JSON, or one of these or None.

    The shape is shared: it must not be changed.
    """
    if is_view(kind):
        return closed(**{name: shape_of(member) for name, member in get_type_hints(kind).items()})
    if get_origin(kind) is list:
        return {"type": "array", "items": shape_of(get_args(kind)[0])}
    if NoneType in get_args(kind):
        shape = shape_of(next(arg for arg in get_args(kind) if arg is not NoneType))
        return {**shape, "type": [shape["type"], "null"]}
    return {"type": JSON_TYPES[kind]} if kind in JSON_TYPES else ANY


def shape_of_output(flow: Spec | None, *, failed: bool = False) -> Shape:
    """Return the shape of a flow's output: that of its end states.

    Args:
        failed: include those with status ``failed``.
    """
    if flow is None:
        return ANY
    states = [state for state in flow.states.values() if isinstance(state, EndState)]
    ends = [state for state in states if failed or state.status == "succeeded"]
    return one_of([_shape_of_template(end.output) for end in ends])


def _shape_of_template(output: JSON) -> Shape:
    if output is None:
        return NULL
    return closed(**dict.fromkeys(output, ANY)) if isinstance(output, Mapping) else ANY
