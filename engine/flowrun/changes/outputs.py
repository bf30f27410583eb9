"""Compares the outputs of end states. An output is a template: its shape is known, its values are not."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from flowrun.changes.change import Change
from flowrun.errors import Path
from flowrun.spec.model import JSON, Template

_ONE_EXPRESSION: Final = re.compile(r"\s*\{\{(?:(?!\}\}).)*\}\}\s*", re.DOTALL)

_TYPES: Final[tuple[tuple[type | tuple[type, ...], str], ...]] = (
    (Mapping, "object"),
    (list, "list"),
    (bool, "boolean"),
    ((int, float), "number"),
    (str, "text"),
)


def compare_outputs(old: Template, new: Template, path: Path) -> Iterator[Change]:
    """Yield the changes of an end state's output; a removed key is breaking."""
    was, now = _shape(old), _shape(new)
    if was == now == "object":
        yield from _members(old, new, path)
    elif was == now == "list":
        yield from _members(dict(enumerate(old)), dict(enumerate(new)), path)
    elif old == new and was == now:
        return
    elif {was, now} <= {"text", "value"} or was == now:
        yield Change(impact="internal", path=path, what="output changed", old=old, new=new)
    elif was == "nothing":
        yield Change(impact="compatible", path=path, what="output added", new=new)
    elif now == "nothing":
        yield Change(impact="breaking", path=path, what="output removed", old=old)
    else:
        yield Change(impact="breaking", path=path, what=f"output is no longer of type {was}", old=old, new=new)


def _members(old: Mapping[str | int, Template], new: Mapping[str | int, Template], path: Path) -> Iterator[Change]:
    for key in {**old, **new}:
        member_path = (*path, key)
        if key not in new:
            yield Change(impact="breaking", path=member_path, what="output removed", old=old[key])
        elif key not in old:
            yield Change(impact="compatible", path=member_path, what="output added", new=new[key])
        else:
            yield from compare_outputs(old[key], new[key], member_path)


def _shape(output: JSON) -> str:
    """Return the known type of an output; ``value`` stands for an expression, whose value may have any type."""
    if output is None or output is msgspec.UNSET:
        return "nothing"
    if isinstance(output, str) and _ONE_EXPRESSION.fullmatch(output):
        return "value"
    return next(name for kind, name in _TYPES if isinstance(output, kind))
