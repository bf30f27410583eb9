"""The types of parameters: one table for the schemas that models receive and the values that functions get.

msgspec knows most types. An annotation with a part of pydantic's is pydantic's as a whole. Named tuples, paths and the
unions that msgspec refuses have rows here.
"""

import collections.abc
import dataclasses
import math
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Annotated, Any, Final, Literal, Union

import msgspec

from flowrun.spec.json_types import JSON_TYPES
from flowrun.spec.model import JSON

_REF: Final = "#/$defs/"

JSON_VALUES: Final = frozenset({str, int, float, bool, types.NoneType, list, dict})
"""The Python types of JSON values."""

_PYDANTIC: Final = frozenset({"pydantic", "pydantic_core", "pydantic_extra_types", "annotated_types"})
"""Packages whose metadata in ``Annotated`` only pydantic obeys."""

_PATH: Final = re.compile(r" - at `(?:key in )?\$(.*)`$")
_MAX_ERRORS: Final = 5

_LOCAL_TIMES: Final = {
    "date-time": r"^\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d+)?$",
    "time": r"^\d{2}:\d{2}:\d{2}(\.\d+)?$",
}
"""Times without a zone, which Python has and RFC 3339 has not, by the format of those with one."""


class Misfit(ValueError):
    """A JSON value does not fit a type; the message is for the model that wrote it."""


class ArgumentType:
    """A parameter's type.

    Attributes:
        exact: the types of the JSON values that the function gets as they are; all others are converted.

    Raises:
        TypeError: JSON has no form of the annotation's values.
    """

    def __init__(self, annotation: Any) -> None:
        self._adapter = _pydantic_adapter(annotation) if _is_pydantic(annotation, frozenset()) else None
        self._type = Any if self._adapter is not None else _rewritten(annotation)
        self.exact = frozenset() if self._adapter is not None else _exact(self._type)
        self.schema({})

    def schema(self, shared: dict[str, JSON]) -> dict[str, JSON]:
        """Return the JSON Schema of the type, with references inlined.

        Args:
            shared: receives the definitions of recursive types; only references to these are not inlined.
        """
        if self._adapter is None:
            return _schema_of(self._type, shared)
        schema = dict(self._adapter.json_schema(ref_template=_REF + "{model}"))
        components = schema.pop("$defs", {})
        inlined: dict[str, JSON] = _inline(schema, components, (), shared)
        return inlined

    def convert(self, value: JSON) -> Any:
        """Return a JSON value as the type. A number without a fraction, such as 3.0, is an integer.

        Raises:
            Misfit: the value does not fit.
        """
        if self._adapter is not None:
            return _convert_by_pydantic(self._adapter, value)
        try:
            return _convert(value, self._type)
        except msgspec.ValidationError as exc:
            try:
                return _convert(_with_integers(value), self._type)
            except msgspec.ValidationError:
                raise Misfit(_explain(exc)) from exc
        except TypeError as exc:  # an item of a set that cannot be in one
            raise Misfit(str(exc)) from exc


def _convert(value: JSON, kind: Any) -> Any:
    return msgspec.convert(value, kind, str_keys=True, dec_hook=_decode_hook)


def _explain(error: msgspec.ValidationError) -> str:
    text, path = str(error), _PATH.search(str(error))
    text = _PATH.sub("", text).replace("`", "")
    return f"{text}, at {path[1].removeprefix('.')}" if path and path[1] else text


def _with_integers(value: JSON) -> JSON:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_with_integers(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_integers(item) for key, item in value.items()}
    return value


def _exact(kind: Any) -> frozenset[Any]:
    if kind is Any or isinstance(kind, typing.TypeVar):
        return JSON_VALUES
    if kind in JSON_VALUES:
        return frozenset({kind})
    if kind is None:
        return frozenset({types.NoneType})
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        bounded = any(isinstance(extra, msgspec.Meta) for extra in args[1:])
        return frozenset() if bounded else _exact(args[0])
    if origin in (Union, types.UnionType):
        members = [_exact(member) for member in args]
        return frozenset().union(*members) if all(members) else frozenset()
    if kind == list[Any]:
        return frozenset({list})
    return frozenset({dict}) if kind == dict[str, Any] else frozenset()


# --- what msgspec knows, and what has a row here ----------------------------------------------------------------------


def _rewritten(kind: Any, inside: frozenset[Any] = frozenset()) -> Any:
    """Return an annotation as msgspec can use it.

    Raises:
        TypeError: JSON has no form of it.
    """
    if kind is object:
        return Any
    if kind is typing.LiteralString:
        return str
    if hasattr(kind, "__supertype__"):  # a NewType
        return _rewritten(kind.__supertype__, inside)
    if type(kind).__name__ == "TypeAliasType":
        return _rewritten(kind.__value__, inside)
    if isinstance(kind, type) and kind not in inside:
        if issubclass(kind, tuple) and hasattr(kind, "_fields"):
            return _named_tuple(kind, inside)
        if dataclasses.is_dataclass(kind):
            return _dataclass(kind, inside)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is collections.abc.Iterable or kind is collections.abc.Iterable or kind is typing.Iterable:
        return list[_rewritten(args[0], inside)] if args else list[Any]  # type: ignore[misc]
    if origin is Annotated:
        return Annotated[(_rewritten(args[0], inside), *args[1:])]
    if origin in (Union, types.UnionType):
        members = tuple(_rewritten(member, inside) for member in args)
        union: Any = Union[members]  # noqa: UP007 - its members are computed
        try:
            msgspec.json.Decoder(union)
        except TypeError:
            return _union(members)
        return union
    if origin is None or origin is Literal or origin is collections.abc.Callable:
        return kind
    return origin[tuple(arg if arg is ... else _rewritten(arg, inside) for arg in args)]


class _Row(type):
    """The class of the types that have a row here: msgspec leaves them to the hooks, and takes what these return."""

    convert: Callable[[JSON], Any]
    schema: Callable[[dict[str, JSON]], dict[str, JSON]]

    def __instancecheck__(cls, instance: object) -> bool:
        return True


def _row(name: str, convert: Callable[[JSON], Any], schema: Callable[[dict[str, JSON]], dict[str, JSON]]) -> Any:
    return _Row(name, (), {"convert": staticmethod(convert), "schema": staticmethod(schema)})


def _record(kind: Any, names: Mapping[str, Any], inside: frozenset[Any]) -> Any:
    """Return the row of a named tuple or dataclass, which is an object with its fields' names.

    Args:
        names: the names of the fields; each has its default, or ``NODEFAULT``, or a field with a factory.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    struct = msgspec.defstruct(
        kind.__name__,
        [(name, _rewritten(hints.get(name, Any), inside), msgspec.field(**given)) for name, given in names.items()],
        kw_only=True,
    )

    def convert(value: JSON) -> Any:
        given = _convert(value, struct)
        return kind(**{name: getattr(given, name) for name in names})

    return _row(kind.__name__, convert, lambda shared: _schema_of(struct, shared))


def _named_tuple(kind: Any, inside: frozenset[Any]) -> Any:
    defaults = kind._field_defaults
    given = {name: {"default": defaults[name]} if name in defaults else {} for name in kind._fields}
    return _record(kind, given, inside | {kind})


def _dataclass(kind: Any, inside: frozenset[Any]) -> Any:
    """Return a dataclass as it is if msgspec takes all its fields, else its row."""
    inside |= {kind}
    fields = [field for field in dataclasses.fields(kind) if field.init]
    hints = typing.get_type_hints(kind, include_extras=True)
    if all(_rewritten(hints[field.name], inside) == hints[field.name] for field in fields):
        return kind
    given = {}
    for field in fields:
        parts = {"default": field.default, "default_factory": field.default_factory}
        given[field.name] = {name: part for name, part in parts.items() if part is not dataclasses.MISSING}
    return _record(kind, given, inside)


def _union(members: tuple[Any, ...]) -> Any:
    """Return the row of a union that msgspec refuses: a value is the first member that it fits."""

    def convert(value: JSON) -> Any:
        errors = []
        for candidate in (value, _with_integers(value)):
            for member in members:
                try:
                    return _convert(candidate, member)
                except msgspec.ValidationError as exc:
                    errors.append(_explain(exc))
        raise ValueError(", or ".join(dict.fromkeys(errors)))

    return _row("union", convert, lambda shared: {"anyOf": [_schema_of(member, shared) for member in members]})


def _decode_hook(kind: Any, value: JSON) -> Any:
    if isinstance(kind, _Row):
        return kind.convert(value)
    if isinstance(kind, type) and issubclass(kind, PurePath):
        if not isinstance(value, str):
            raise ValueError(f"Expected str, got {type(value).__name__}")
        return kind(value)
    raise NotImplementedError(kind)


# --- pydantic ---------------------------------------------------------------------------------------------------------


def _is_pydantic(kind: Any, inside: frozenset[Any]) -> bool:
    """Return whether a part of an annotation is a type of pydantic's, or has metadata that only pydantic obeys."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return False
    if origin is Annotated and any(type(extra).__module__.partition(".")[0] in _PYDANTIC for extra in args[1:]):
        return True
    if hasattr(kind, "__get_pydantic_core_schema__") or hasattr(kind, "__pydantic_core_schema__"):
        return True
    if type(kind).__name__ == "TypeAliasType":
        args = (kind.__value__,)
    elif isinstance(kind, type) and kind not in inside:
        inside, args = inside | {kind}, (*args, *_field_types(kind))
    return any(_is_pydantic(part, inside) for part in args)


def _field_types(kind: type) -> Iterator[Any]:
    """Yield the types of the fields of a dataclass, typed dict, named tuple or attrs class."""
    if (
        dataclasses.is_dataclass(kind)
        or typing.is_typeddict(kind)
        or hasattr(kind, "__attrs_attrs__")
        or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
    ):
        try:
            yield from typing.get_type_hints(kind, include_extras=True).values()
        except Exception:  # an annotation is code, and may raise anything; msgspec reports it
            return


def _pydantic_adapter(annotation: Any) -> Any:
    try:
        import pydantic
    except ImportError as exc:
        raise TypeError("it needs pydantic, which is not installed") from exc
    try:
        return pydantic.TypeAdapter(annotation)
    except pydantic.errors.PydanticUserError as exc:
        raise TypeError(str(exc).partition("\n")[0]) from exc


def _convert_by_pydantic(adapter: Any, value: JSON) -> Any:
    import pydantic

    try:
        return adapter.validate_json(msgspec.json.encode(value))
    except pydantic.ValidationError as exc:
        errors = exc.errors(include_url=False, include_context=False, include_input=False)[:_MAX_ERRORS]
        raise Misfit("; ".join(_explain_pydantic(error) for error in errors)) from exc


def _explain_pydantic(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    return f"{error['msg']}, at {where}" if where else str(error["msg"])


# --- schemas ----------------------------------------------------------------------------------------------------------


def _schema_of(kind: Any, shared: dict[str, JSON]) -> dict[str, JSON]:
    """Return the schema of a type that msgspec can use; see ``ArgumentType.schema``."""

    def of_row(row: Any) -> dict[str, JSON]:
        if isinstance(row, _Row):
            return row.schema(shared)
        if isinstance(row, type) and issubclass(row, PurePath):
            return {"type": "string"}
        raise TypeError(f"type {row!r} is not supported")

    (schema,), components = msgspec.json.schema_components((kind,), ref_template=_REF + "{name}", schema_hook=of_row)
    inlined: dict[str, JSON] = _inline(schema, components, (), shared)
    return inlined


def _inline(node: JSON, components: dict[str, JSON], inside: tuple[str, ...], shared: dict[str, JSON]) -> JSON:
    if isinstance(node, list):
        return [_inline(item, components, inside, shared) for item in node]
    if not isinstance(node, dict):
        return node
    name = node.get("$ref", "").removeprefix(_REF) if isinstance(node.get("$ref", ""), str) else ""
    if not name:
        return _completed({key: _inline(value, components, inside, shared) for key, value in node.items()})
    if name not in components:  # of a row, whose schema is whole
        return node
    if name in inside:
        shared[name] = components[name]
        return node
    rest = {key: value for key, value in node.items() if key != "$ref"}
    return {**_inline(components[name], components, (*inside, name), shared), **rest}


def _completed(schema: dict[str, JSON]) -> dict[str, JSON]:
    """Return a schema as models need it, and true to what ``convert`` takes."""
    values, default = schema.get("enum"), schema.get("default")
    if isinstance(default, float) and not math.isfinite(default):
        schema = {key: value for key, value in schema.items() if key != "default"}
    if "type" not in schema and isinstance(values, list) and len(kinds := {type(value) for value in values}) == 1:
        return {"type": JSON_TYPES[kinds.pop()], **schema}  # many chat templates show a model only the type
    if schema.get("type") != "string" or "format" not in schema:
        return schema
    form = schema["format"]
    rest = {key: value for key, value in schema.items() if key != "format"}
    if form in _LOCAL_TIMES:
        return {**rest, "anyOf": [{"format": form}, {"pattern": _LOCAL_TIMES[form]}]}
    if form == "decimal":
        return {"anyOf": [{"type": "number"}, schema]}
    return schema
