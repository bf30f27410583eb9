"""What a Python function gives back becomes a JSON value here, or a reason why it is none.

The value is always a copy: what the function does to its own objects later changes nothing in the run. Types that say
themselves how they look as JSON are taken at their word (dataclasses, enums, dates, pydantic models, arrays); a value
that would have to be guessed at (bytes, sets, objects) is refused.
"""

import dataclasses
import datetime
import decimal
import enum
import math
import types
import uuid
from collections.abc import Callable, Iterator, Mapping, Set
from pathlib import PurePath
from typing import Any, Final

import msgspec

from flowrun.errors import dotted
from flowrun.spec.model import JSON

MAX_DEPTH: Final = 100
"""Lists and mappings may be nested this deeply; what holds itself is deeper than any bound."""

_SMALLEST, _LARGEST = -(2**63), 2**64 - 1
"""The whole numbers that JSON codecs carry without loss."""


class NotJSON(ValueError):
    """A value is no JSON. ``path`` leads to the part that is to blame, innermost step first."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy
        self.path: list[str | int] = []

    def __str__(self) -> str:
        where = f", at path {dotted(tuple(reversed(self.path)))}" if self.path else ""
        return f"{self.what}, which is no JSON value{where}: {self.remedy}"


def to_json(value: object, depth: int = 0) -> JSON:
    """Copy a value as JSON: None, bool, int, float, str, list, dict with text keys.

    Raises:
        NotJSON: it is none. What the value's own methods raise comes through as it is.
    """
    convert = _EXACT.get(type(value))
    if convert is not None:
        return convert(value, depth)
    return _convert_kin(value, depth)


def copy_json(value: JSON) -> JSON:
    """Copy what is JSON already, so that nobody can change the original."""
    if type(value) is dict:
        return {key: copy_json(item) for key, item in value.items()}
    if type(value) is list:
        return [copy_json(item) for item in value]
    return value


def _same(value: JSON, depth: int) -> JSON:
    return value


def _text(value: str, depth: int) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise NotJSON("text with half a surrogate pair", "decode it with errors='replace'") from None
    return value if type(value) is str else str.__str__(value)


def _whole_number(value: int, depth: int) -> int:
    if not _SMALLEST <= value <= _LARGEST:
        raise NotJSON("a whole number of more than 64 bits", "return it as text")
    return value if type(value) is int else int(value)


def _real_number(value: float, depth: int) -> float:
    if not math.isfinite(value):
        raise NotJSON(float.__repr__(value), "return None or a text in its place")
    return value if type(value) is float else float.__float__(value)


def _items(value: list[Any] | tuple[Any, ...], depth: int) -> list[JSON]:
    _check_depth(depth)
    out: list[JSON] = []
    try:
        for item in value:
            out.append(to_json(item, depth + 1))  # noqa: PERF401 - how many there are is where it failed
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
    return out


def _key(key: object) -> str:
    if isinstance(key, str):
        return _text(key, 0)
    raise NotJSON(f"a mapping with a key of type {type(key).__name__}", "make every key a text")


def _check_depth(depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise NotJSON(
            f"a value nested more than {MAX_DEPTH} levels deep", "return a flatter one that does not hold itself"
        )


_EXACT: Final[Mapping[type, Callable[[Any, int], JSON]]] = {
    str: _text,
    int: _whole_number,
    float: _real_number,
    bool: _same,
    types.NoneType: _same,
    dict: _mapping,
    list: _items,
    tuple: _items,
}


def _enumerated(value: enum.Enum, depth: int) -> JSON:
    return to_json(value.value, depth)


def _encoded(value: object, depth: int) -> JSON:
    """Take msgspec's word for it; what it would turn into base64 is left, to be refused."""
    plain = msgspec.to_builtins(value, builtin_types=(bytes, bytearray, memoryview), enc_hook=to_json)
    return to_json(plain, depth)


def _spelled(value: object, depth: int) -> str:
    return _text(str(value), depth)


_KIN: Final[tuple[tuple[type | tuple[type, ...], Callable[[Any, int], JSON]], ...]] = (
    (enum.Enum, _enumerated),
    (str, _text),
    (int, _whole_number),
    (float, _real_number),
    ((list, tuple), _items),
    ((msgspec.Struct, datetime.date, datetime.time, datetime.timedelta, uuid.UUID, decimal.Decimal), _encoded),
    (PurePath, _spelled),
    (Mapping, _mapping),
)
"""How the types that are not exactly JSON's own are written; the first row that fits."""

_REFUSED: Final[tuple[tuple[type | tuple[type, ...], str, str], ...]] = (
    ((bytes, bytearray, memoryview), "bytes", "decode them to text"),
    (Set, "a set", "return a list"),
    (types.CoroutineType, "a coroutine", "declare the function with async def, and await what it calls"),
    (types.AsyncGeneratorType, "an async generator", "return a list of what it yields"),
    (types.GeneratorType, "a generator", "return a list of what it yields"),
    (Iterator, "an iterator", "return a list of what it yields"),
)
"""What is refused, how it is called, and what to do instead."""


def _convert_kin(value: Any, depth: int) -> JSON:
    for kinds, convert in _KIN:
        if isinstance(value, kinds):
            return convert(value, depth)
    for kinds, what, remedy in _REFUSED:
        if isinstance(value, kinds):
            if isinstance(value, types.CoroutineType):
                value.close()  # else Python warns that nobody awaited it
            raise NotJSON(what, remedy)
    kind = type(value)
    _check_depth(depth)
    if dataclasses.is_dataclass(kind) or hasattr(kind, "__attrs_attrs__"):
        return _encoded(value, depth)
    if hasattr(kind, "model_dump"):  # pydantic
        return to_json(value.model_dump(mode="json"), depth + 1)
    if hasattr(kind, "tolist"):  # numpy, torch, pandas
        return to_json(value.tolist(), depth + 1)
    raise NotJSON(f"an object of type {kind.__qualname__}", "return text, numbers, lists or dicts in its place")
