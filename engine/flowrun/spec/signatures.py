"""A Python function's signature and a JSON Schema of its arguments: the one derived from the other, or compared.

Types become schemas as msgspec does it, so what is declared to a model is what msgspec can convert to.
"""

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

import msgspec

from flowrun.spec.entrypoints import EntrypointError
from flowrun.spec.model import JSON
from flowrun.spec.phrases import listed
from flowrun.spec.suggestions import did_you_mean

_REF: Final = "#/$defs/"
_POSITIONAL: Final = inspect.Parameter.POSITIONAL_ONLY
_REST: Final = frozenset({inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD})


def derive_parameters(function: Callable[..., Any]) -> tuple[str, dict[str, JSON]]:
    """Give a function's description and the JSON Schema of its arguments, from its signature and docstring.

    The description is the docstring's first paragraph. Arguments are described by ``Annotated[type, "text"]`` or by
    the docstring (Google, reST or numpy style). One without an annotation may be any JSON value.

    Raises:
        EntrypointError: a parameter can only be given by position, or has a type that JSON has nothing for.
    """
    parameters = _parameters(function)
    types = _types(function)
    summary, described = _docstring(function)
    properties: dict[str, JSON] = {}
    shared: dict[str, JSON] = {}
    for parameter in _named(parameters):
        if parameter.kind is _POSITIONAL:
            raise EntrypointError(*_positional_only(parameter.name))
        kind = types.get(parameter.name, Any)
        try:
            schema = _schema_of(kind, shared)
        except TypeError as error:
            raise EntrypointError(
                f"no JSON Schema can be derived for the parameter '{parameter.name}': {str(error).splitlines()[-1]}",
                "declare the tool's 'parameters' in the spec, or annotate it with a type that JSON has",
            ) from error
        if text := _annotated_text(kind) or described.get(parameter.name):
            schema = {**schema, "description": text}
        if (default := _json_default(parameter)) is not msgspec.UNSET:
            schema = {**schema, "default": default}
        properties[parameter.name] = schema
    return summary, {
        "type": "object",
        "properties": properties,
        "required": [parameter.name for parameter in _named(parameters) if parameter.default is parameter.empty],
        "additionalProperties": _takes_any_name(parameters),
        **({"$defs": shared} if shared else {}),
    }


def check_signature(function: Callable[..., Any], schema: Mapping[str, JSON]) -> list[tuple[str, str]]:
    """Compare a declared schema of a function's arguments with its signature; give a message and a remedy each."""
    try:
        parameters = _parameters(function)
        types = _types(function)
    except EntrypointError as error:
        return [(error.message, error.remedy)]
    declared = schema.get("properties", {})
    required = schema.get("required", ())
    known = {parameter.name: parameter for parameter in _named(parameters)}
    found = [
        disagreement
        for parameter in known.values()
        for disagreement in _check_parameter(parameter, declared, required, types.get(parameter.name, Any))
    ]
    for name in () if _takes_any_name(parameters) else [name for name in declared if name not in known]:
        free = [other for other in known if other not in declared]
        remedy = did_you_mean(name, free) or "delete it, or add the parameter to the function"
        found.append((f"the function has no parameter '{name}'", remedy))
    return found


def _check_parameter(
    parameter: inspect.Parameter, declared: Mapping[str, JSON], required: typing.Collection[str], kind: Any
) -> list[tuple[str, str]]:
    name = parameter.name
    has_default = parameter.default is not parameter.empty
    if parameter.kind is _POSITIONAL:
        return [] if has_default and name not in declared else [_positional_only(name)]
    if name not in declared:
        remedy = "declare and require it, or give it a default in the function"
        return [] if has_default else [(f"the function needs '{name}', which is not declared", remedy)]
    found = []
    if name not in required and not has_default:
        remedy = "add it to 'required', or give it a default in the function"
        found.append((f"the function needs '{name}', which is declared as optional", remedy))
    try:
        takes = _schema_of(kind, {})
    except TypeError:
        return found
    if message := _contradiction(name, declared[name], takes):
        found.append((message, "change the declared schema or the function's annotation"))
    return found


# --- what a function says -----------------------------------------------------------------------------------------


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError) as error:
        raise EntrypointError(f"the function has no signature: {error}", "wrap it in a function with 'def'") from error


def _types(function: Callable[..., Any]) -> dict[str, Any]:
    target = function if inspect.isroutine(function) or inspect.isclass(function) else type(function).__call__
    target = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(target, include_extras=True)
    except Exception as error:  # an annotation is code, and may raise anything
        raise EntrypointError(
            f"the function's annotations cannot be read: {type(error).__name__}: {error}",
            "import at run time what the annotations name",
        ) from error


def _named(parameters: Mapping[str, inspect.Parameter]) -> list[inspect.Parameter]:
    return [parameter for parameter in parameters.values() if parameter.kind not in _REST]


def _takes_any_name(parameters: Mapping[str, inspect.Parameter]) -> bool:
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values())


def _positional_only(name: str) -> tuple[str, str]:
    return f"the parameter '{name}' can only be given by position", "delete the '/' from the function's signature"


def _docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Give a docstring's first paragraph on one line, and the parameters' descriptions."""
    import docstring_parser

    text = inspect.getdoc(function) or ""
    try:
        parsed = docstring_parser.parse(text)
    except docstring_parser.ParseError:
        return " ".join(text.partition("\n\n")[0].split()), {}
    summary = text.partition("\n\n")[0] if parsed.short_description else ""
    described = {param.arg_name: " ".join((param.description or "").split()) for param in parsed.params}
    return " ".join(summary.split()), {name: text for name, text in described.items() if text}


def _annotated_text(kind: Any) -> str | None:
    if typing.get_origin(kind) is not Annotated:
        return None
    return next((extra for extra in typing.get_args(kind)[1:] if isinstance(extra, str)), None)


def _json_default(parameter: inspect.Parameter) -> JSON:
    """Give a parameter's default as a JSON value, or ``UNSET`` if it has none, or none that JSON has."""
    if parameter.default is parameter.empty:
        return msgspec.UNSET
    try:
        return msgspec.json.decode(msgspec.json.encode(parameter.default))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return msgspec.UNSET


# --- types as schemas ---------------------------------------------------------------------------------------------


def _schema_of(kind: Any, shared: dict[str, JSON]) -> dict[str, JSON]:
    """Give a type's schema with all references written out; those of recursive types stay, and go to ``shared``.

    Raises:
        TypeError: JSON has nothing for the type.
    """
    (schema,), components = msgspec.json.schema_components((kind,), ref_template=_REF + "{name}")
    written: dict[str, JSON] = _written_out(schema, components, (), shared)
    return written


def _written_out(node: JSON, components: Mapping[str, JSON], inside: tuple[str, ...], shared: dict[str, JSON]) -> JSON:
    if isinstance(node, list):
        return [_written_out(item, components, inside, shared) for item in node]
    if not isinstance(node, dict):
        return node
    name = node.get("$ref", "").removeprefix(_REF) if isinstance(node.get("$ref", ""), str) else ""
    if not name:
        return _with_type({key: _written_out(value, components, inside, shared) for key, value in node.items()})
    if name in inside:
        shared[name] = components[name]
        return node
    rest = {key: value for key, value in node.items() if key != "$ref"}
    return {**_written_out(components[name], components, (*inside, name), shared), **rest}


def _with_type(schema: dict[str, JSON]) -> dict[str, JSON]:
    """Say of an enum what type its values have, because many chat templates show a model nothing else."""
    values = schema.get("enum")
    if "type" in schema or not isinstance(values, list) or len(kinds := {type(value) for value in values}) != 1:
        return schema
    return {"type": JSON_TYPES[kinds.pop()], **schema}


def _contradiction(name: str, declared: JSON, takes: dict[str, JSON]) -> str:
    """Say what the schema lets through and the function does not take; only outermost types and values are compared."""
    allowed, taken = _values(declared), _values(takes)
    if allowed is not None and taken is not None and (extra := [value for value in allowed if value not in taken]):
        return f"'{name}' may be {listed([str(value) for value in extra], 'or')}, which the function does not take"
    kinds, taken_kinds = _kinds(declared), _kinds(takes)
    if kinds is None or taken_kinds is None:
        return ""
    extra_kinds = sorted(kinds - taken_kinds - ({"integer"} if "number" in taken_kinds else set()))
    if not extra_kinds:
        return ""
    expected = listed(sorted(taken_kinds), "or", quote="")
    return f"'{name}' may be of type {listed(extra_kinds, 'or', quote='')}, and the function takes {expected}"


def _values(schema: JSON) -> list[JSON] | None:
    if not isinstance(schema, dict):
        return None
    values: list[JSON] | None = [schema["const"]] if "const" in schema else schema.get("enum")
    return values


def _kinds(schema: JSON) -> set[str] | None:
    """Give the JSON types that a schema lets through, or None if that cannot be told."""
    if not isinstance(schema, dict):
        return None
    if (values := _values(schema)) is not None:
        return {JSON_TYPES[type(value)] for value in values}
    if "type" in schema:
        return {schema["type"]} if isinstance(schema["type"], str) else set(schema["type"])
    branches: list[JSON] = schema["anyOf"] if "anyOf" in schema else schema.get("oneOf", [])
    kinds: set[str] = set()
    for branch in branches:
        if (known := _kinds(branch)) is None:
            return None
        kinds |= known
    return kinds or None


JSON_TYPES: Final[dict[type, str]] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}
