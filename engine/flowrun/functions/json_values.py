"""Converts the return value of a Python function to JSON, or explains why it has no JSON form.

The result is always a copy: later changes of the function's own objects change nothing in the run. Types with a defined
JSON form are converted to it (dataclasses, named tuples, enums, dates, sets, bytes in base64, pydantic models, arrays):
the form that ``spec.python_types`` takes. Types without one (objects, iterators) are refused.
"""

import base64
import dataclasses
import datetime
import decimal
import enum
import math
import sys
import types
import uuid
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import PurePath
from typing import Any, Final

import msgspec

from flowrun.errors import dotted
from flowrun.spec.model import JSON

MAX_DEPTH: Final = 100
"""Levels of nested lists and mappings; a value that contains itself exceeds any limit."""

_SMALLEST, _LARGEST = -(2**63), 2**64 - 1
"""The range of integers that JSON codecs carry without loss."""


_NESTED: Final = frozenset({dict, list})

_KEYS: Final = (int, enum.Enum, datetime.date, datetime.time, uuid.UUID, decimal.Decimal)
"""Types of keys, besides text, that have a text in JSON."""


class NotJSON(ValueError):
    """A value has no JSON form. ``path`` leads to the part at fault, innermost step first."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.path: list[str | int] = []

    def __str__(self) -> str:
        where = f", at path {dotted(tuple(reversed(self.path)))}" if self.path else ""
        return f"{self.what}, which is no JSON value{where}: {self.remedy}"


def to_json(value: object, depth: int = 0) -> JSON:
    """Return a copy of a value as JSON: None, bool, int, float, str, list, dict with text keys.

    Args:
        depth: the number of lists and mappings around the value.

    Raises:
        NotJSON: the value has no JSON form. Errors of the value's own methods are not caught.
    """
    convert = _EXACT.get(type(value))
    if convert is not None:
        return convert(value, depth)
    return _convert_by_base(value, depth)


def copy_json(value: JSON) -> JSON:
    """Return a copy of a JSON value; changes to it leave the original as it is."""
    if type(value) is dict:
        return {key: copy_json(item) if type(item) in _NESTED else item for key, item in value.items()}
    if type(value) is list:
        return [copy_json(item) if type(item) in _NESTED else item for item in value]
    return value


def _unchanged(value: JSON, depth: int) -> JSON:
    return value


def _text(value: str, depth: int) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise NotJSON("text with half a surrogate pair", "decode it with errors='replace'") from None
    return value if type(value) is str else str.__str__(value)


def _integer(value: int, depth: int) -> int:
    if not _SMALLEST <= value <= _LARGEST:
        raise NotJSON("a whole number of more than 64 bits", "return it as text")
    return value if type(value) is int else int(value)


def _float(value: float, depth: int) -> float:
    if not math.isfinite(value):
        raise NotJSON(float.__repr__(value), "return None or a text in its place")
    return value if type(value) is float else float.__float__(value)


def _list(value: list[Any] | tuple[Any, ...], depth: int) -> list[JSON]:
    _check_depth(depth)
    out: list[JSON] = []
    try:
        for item in value:
            out.append(to_json(item, depth + 1))  # noqa: PERF401 - its length is the index of the item that failed
    except NotJSON as exc:
        exc.path.append(len(out))
        raise
    return out


def _mapping(value: Mapping[Any, Any], depth: int) -> dict[str, JSON]:
    _check_depth(depth)
    out: dict[str, JSON] = {}
    for key, item in value.items():
        name = _key(key)
        try:
            out[name] = to_json(item, depth + 1)
        except NotJSON as exc:
            exc.path.append(name)
            raise
    if len(out) < len(value):
        raise NotJSON("a mapping with two keys that have the same text", "make every key a text of its own")
    return out


def _key(key: object) -> str:
    if isinstance(key, str):
        return _text(key, 0)
    if isinstance(key, _KEYS) and type(text := to_json(key)) in (str, int):
        return str(text)
    raise NotJSON(f"a mapping with a key of type {type(key).__name__}", "make every key a text")


def _set(value: Set[Any], depth: int) -> list[JSON]:
    """Convert a set to a list whose order is the same in each process."""
    items = _list(list(value), depth)
    return sorted(items, key=msgspec.json.encode) if isinstance(value, (set, frozenset)) else items


def _named_tuple(value: Any, depth: int) -> dict[str, JSON]:
    return _mapping(value._asdict(), depth)


def _dataclass(value: Any, depth: int) -> dict[str, JSON]:
    return _mapping({f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.name[0] != "_"}, depth)


def _base64(value: bytes | bytearray | memoryview, depth: int) -> str:
    return base64.b64encode(value).decode()


def _check_depth(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise NotJSON(
            f"a value nested more than {MAX_DEPTH} levels deep", "return a flatter one that does not hold itself"
        )


_EXACT: Final[Mapping[type, Callable[[Any, int], JSON]]] = {
    str: _text,
    int: _integer,
    float: _float,
    bool: _unchanged,
    types.NoneType: _unchanged,
    dict: _mapping,
    list: _list,
    tuple: _list,
}


def _by_value(value: enum.Enum, depth: int) -> JSON:
    return to_json(value.value, depth)


def _by_msgspec(value: object, depth: int) -> JSON:
    return to_json(msgspec.to_builtins(value, str_keys=True, enc_hook=to_json), depth)


def _by_str(value: object, depth: int) -> str:
    return _text(str(value), depth)


_BASES: Final[tuple[tuple[type | tuple[type, ...], Callable[[Any, int], JSON]], ...]] = (
    (enum.Enum, _by_value),
    (str, _text),
    (int, _integer),
    (float, _float),
    (list, _list),
    ((msgspec.Struct, datetime.date, datetime.time, datetime.timedelta, uuid.UUID, decimal.Decimal), _by_msgspec),
    (PurePath, _by_str),
    (Mapping, _mapping),
    (Set, _set),
    ((bytes, bytearray, memoryview), _base64),
)
"""Converters of types that are not in ``_EXACT``, by base class; the first row that fits counts."""

_REFUSED: Final[tuple[tuple[type | tuple[type, ...], str, str], ...]] = (
    (types.CoroutineType, "a coroutine", "declare the function with async def, and await what it calls"),
    (types.AsyncGeneratorType, "an async generator", "return a list of what it yields"),
    (types.GeneratorType, "a generator", "return a list of what it yields"),
    (Iterator, "an iterator", "return a list of what it yields"),
)
"""Refused types, their names in an error, and the remedies."""


def _convert_by_base(value: Any, depth: int) -> JSON:
    for kinds, convert in _BASES:
        if isinstance(value, kinds):
            return convert(value, depth)
    for kinds, what, remedy in _REFUSED:
        if isinstance(value, kinds):
            if isinstance(value, types.CoroutineType):
                value.close()  # otherwise Python warns that it was never awaited
            raise NotJSON(what, remedy)
    kind = type(value)
    _check_depth(depth)
    if isinstance(value, tuple):
        return _named_tuple(value, depth) if hasattr(kind, "_fields") else _list(value, depth)
    if dataclasses.is_dataclass(kind):
        return _dataclass(value, depth)
    if hasattr(kind, "__attrs_attrs__"):
        return _by_msgspec(value, depth)
    if hasattr(kind, "model_dump"):  # pydantic
        return to_json(value.model_dump(mode="json"), depth + 1)
    if hasattr(kind, "__get_pydantic_core_schema__") and "pydantic" in sys.modules:  # such as its URLs
        return to_json(sys.modules["pydantic"].TypeAdapter(kind).dump_python(value, mode="json"), depth + 1)
    if hasattr(kind, "tolist"):  # numpy, torch, pandas
        return to_json(value.tolist(), depth + 1)
    raise NotJSON(f"an object of type {kind.__qualname__}", "return text, numbers, lists or dicts in its place")
