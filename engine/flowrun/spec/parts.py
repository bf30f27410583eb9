"""Finds the values of a spec by their role, such as all templates of a state, from the types of the structs' fields."""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import msgspec

from flowrun.errors import Path
from flowrun.spec.model import Holds


class Part(NamedTuple):
    """A value in a struct: its path from where the search began, and the struct whose field holds it.

    ``names`` are those that the structs around it bring into the scope of its templates.
    """

    path: Path
    value: Any
    owner: Any
    names: frozenset[str]


_Finder = Callable[[Any, Path, Any, frozenset[str]], Iterator[Part]]


def parts_of(value: Any, role: Holds, kind: Any = None) -> Iterator[Part]:
    """Yield the parts of a value that have a role, in the order of the fields.

    Args:
        kind: the type of the value, if it is no struct.
    """
    kind = type(value) if kind is None else kind
    find = _finder(kind, role)
    return iter(()) if find is None else find(value, (), None, frozenset())


def properties_with(struct: type[msgspec.Struct], *roles: Holds) -> list[str]:
    """Return the properties of a struct whose values have parts with one of these roles."""
    fields = msgspec.structs.fields(struct)
    return [field.encode_name for field in fields if any(_finder(field.type, role) for role in roles)]


@cache
def _finder(kind: Any, role: Holds) -> _Finder | None:
    """Return the function that finds the parts in a value of a type; None if there can be none.

    Raises:
        TypeError: there can be some, but the type is none of those that specs are made of.
    """
    origin, args = get_origin(kind), get_args(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = [(field.name, field.encode_name, _finder(field.type, role)) for field in msgspec.structs.fields(kind)]
        members = [(name, key, find) for name, key, find in fields if find is not None]
        return _in_members(members) if members else None
    if origin is Annotated and role in args:
        return lambda value, path, owner, names: iter((Part(path, value, owner, names),))
    if origin in (Union, UnionType):
        branches = [(_class_of(arg), find) for arg in args if (find := _finder(arg, role)) is not None]
        return _in_branch(branches) if branches else None
    find = next(filter(None, (_finder(arg, role) for arg in args)), None)
    if find is None:
        return None
    if origin in (tuple, Mapping):
        return _in_items(find)
    raise TypeError(f"{kind} has parts, and is no struct, tuple or Mapping")


def _class_of(kind: Any) -> type:
    """Return the class of the values of a type."""
    origin = get_origin(kind)
    if origin is Annotated:
        return _class_of(get_args(kind)[0])
    return object if kind is Any else origin or kind


def _in_branch(branches: list[tuple[type, _Finder]]) -> _Finder:
    """Return the finder of a union, whose value decides by its class which of the types it has."""

    def find_all(value: Any, path: Path, owner: Any, names: frozenset[str]) -> Iterator[Part]:
        for kind, find in branches:
            if value is not None and isinstance(value, kind):
                return find(value, path, owner, names)
        return iter(())

    return find_all


def _in_members(members: list[tuple[str, str, _Finder]]) -> _Finder:
    def find_all(value: Any, path: Path, owner: Any, names: frozenset[str]) -> Iterator[Part]:
        for name, key, find in members:
            yield from find(getattr(value, name), (*path, key), value, names | value.names_in(key))

    return find_all


def _in_items(find: _Finder) -> _Finder:
    def find_all(value: Any, path: Path, owner: Any, names: frozenset[str]) -> Iterator[Part]:
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from find(item, (*path, key), owner, names)

    return find_all
