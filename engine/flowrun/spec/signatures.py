"""JSON Schemas of a Python function's arguments: derived from its signature, or compared with it."""

import functools
import inspect
import json
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import msgspec

from flowrun.spec.entrypoints import EntrypointError
from flowrun.spec.json_types import JSON_TYPES, declared_types
from flowrun.spec.model import JSON
from flowrun.spec.parameters import PythonParameter, read_parameters, written_as
from flowrun.spec.phrases import listed
from flowrun.spec.python_types import ArgumentType
from flowrun.spec.suggestions import did_you_mean


def derive_parameters(function: Callable[..., Any]) -> tuple[str, dict[str, JSON]]:
    """Return a function's description and the JSON Schema of its arguments, from its signature and docstring.

    The description is the docstring's first paragraph. Arguments are described by ``Annotated[type, "text"]`` or by
    the docstring (Google, reST or numpy style). An argument without an annotation may be any JSON value.

    Raises:
        EntrypointError: the function has no readable signature or annotations, is a method without its object, or a
            parameter has a type without a JSON Schema.
    """
    parameters = read_parameters(function)
    summary, described = _docstring(function)
    properties: dict[str, JSON] = {}
    shared: dict[str, JSON] = {}
    for parameter in parameters.named:
        schema = _type_of(parameter).schema(shared)
        if text := _annotated_text(parameter.annotation) or described.get(parameter.name):
            schema = {**schema, "description": text}
        if (default := _json_default(parameter)) is not msgspec.UNSET:
            schema = {**schema, "default": default}
        properties[parameter.name] = schema
    others: JSON = False
    if parameters.others is not None:
        others = _type_of(parameters.others).schema(shared) or True
    return summary, {
        "type": "object",
        "properties": properties,
        "required": [parameter.name for parameter in parameters.named if parameter.is_required],
        "additionalProperties": others,
        **({"$defs": shared} if shared else {}),
    }


def _type_of(parameter: PythonParameter) -> ArgumentType:
    if parameter.type is None:
        raise EntrypointError(
            f"no JSON Schema can be derived for the parameter '{parameter.name}': {parameter.wrong}",
            "declare the tool's 'parameters' in the spec, or annotate it with a type that JSON has",
        )
    return parameter.type


def _docstring(function: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """Return a docstring's first paragraph on one line, and the parameters' descriptions."""
    import docstring_parser

    text = next((text for each in _documented(function) if (text := inspect.getdoc(each))), "")
    try:
        parsed = docstring_parser.parse(text)
    except docstring_parser.ParseError:
        return " ".join(text.partition("\n\n")[0].split()), {}
    summary = text.partition("\n\n")[0] if parsed.short_description else ""
    described = {param.arg_name: " ".join((param.description or "").split()) for param in parsed.params}
    return " ".join(summary.split()), {name: text for name, text in described.items() if text}


def _documented(function: Callable[..., Any]) -> Iterator[Any]:
    """Yield what may have the docstring: a partial's own is that of its class."""
    if not isinstance(function, functools.partial):
        yield function
    yield written_as(function)


def _annotated_text(annotation: Any) -> str | None:
    """Return the text in ``Annotated[type, text]``, or in its ``Doc(text)`` (PEP 727)."""
    if typing.get_origin(annotation) is not Annotated:
        return None
    texts = (getattr(extra, "documentation", extra) for extra in typing.get_args(annotation)[1:])
    return next((text for text in texts if isinstance(text, str)), None)


def _json_default(parameter: PythonParameter) -> JSON:
    """Return a parameter's default as a JSON value; ``UNSET`` if there is none or JSON cannot express it."""
    if parameter.is_required:
        return msgspec.UNSET
    try:
        plain = msgspec.to_builtins(parameter.default, str_keys=True, enc_hook=_dump)
        return json.loads(json.dumps(plain, allow_nan=False))
    except (TypeError, ValueError, OverflowError, RecursionError):
        return msgspec.UNSET


def _dump(value: Any) -> JSON:
    if hasattr(value, "model_dump"):  # pydantic
        return value.model_dump(mode="json")
    raise TypeError


# --- beside a declared schema -----------------------------------------------------------------------------------------


def check_signature(function: Callable[..., Any], schema: Mapping[str, JSON]) -> list[tuple[str, str]]:
    """Return the differences between a declared schema of a function's arguments and its signature.

    Each difference is a message and a remedy.
    """
    try:
        parameters = read_parameters(function)
    except EntrypointError as error:
        return [(error.message, error.remedy)]
    declared = schema.get("properties", {})
    required = schema.get("required", ())
    known = {parameter.name: parameter for parameter in parameters.named}
    found = [
        difference for parameter in known.values() for difference in _check_parameter(parameter, declared, required)
    ]
    for name in [name for name in declared if name not in known] if parameters.others is None else ():
        undeclared = [other for other in known if other not in declared]
        remedy = did_you_mean(name, undeclared) or "delete it, or add the parameter to the function"
        found.append((f"the function has no parameter '{name}'", remedy))
    return found


def _check_parameter(
    parameter: PythonParameter, declared: Mapping[str, JSON], required: typing.Collection[str]
) -> list[tuple[str, str]]:
    name, has_default = parameter.name, not parameter.is_required
    if name not in declared:
        remedy = "declare and require it, or give it a default in the function"
        return [] if has_default else [(f"the function needs '{name}', which is not declared", remedy)]
    found = []
    if name not in required and not has_default:
        remedy = "add it to 'required', or give it a default in the function"
        found.append((f"the function needs '{name}', which is declared as optional", remedy))
    if parameter.type is None:
        found.append((f"'{name}' cannot be given: {parameter.wrong}", "annotate it with a type that JSON has"))
    elif message := _contradiction(name, declared[name], parameter.type.schema({})):
        found.append((message, "change the declared schema or the function's annotation"))
    return found


def _contradiction(name: str, declared: JSON, accepted: dict[str, JSON]) -> str:
    """Return a message about values that the schema admits and the function rejects, or "".

    Only the outermost types and enum values are compared.

    Args:
        accepted: the schema of the function's parameter.
    """
    allowed, known = _values(declared), _values(accepted)
    if allowed is not None and known is not None and (extra := [value for value in allowed if value not in known]):
        return f"'{name}' may be {listed([str(value) for value in extra], 'or')}, which the function does not take"
    types, accepted_types = _json_types(declared), _json_types(accepted)
    if types is None or accepted_types is None:
        return ""
    extra_types = sorted(types - accepted_types - ({"integer"} if "number" in accepted_types else set()))
    if not extra_types:
        return ""
    expected = listed(sorted(accepted_types), "or", quote="")
    return f"'{name}' may be of type {listed(extra_types, 'or', quote='')}, and the function takes {expected}"


def _values(schema: JSON) -> list[JSON] | None:
    if not isinstance(schema, dict):
        return None
    values: list[JSON] | None = [schema["const"]] if "const" in schema else schema.get("enum")
    return values


def _json_types(schema: JSON) -> set[str] | None:
    """Return the JSON types that a schema admits, or None if they cannot be determined."""
    if not isinstance(schema, dict):
        return None
    if (values := _values(schema)) is not None:
        return {JSON_TYPES[type(value)] for value in values}
    if "type" in schema:
        return set(declared_types(schema))
    branches: list[JSON] = schema["anyOf"] if "anyOf" in schema else schema.get("oneOf", [])
    types: set[str] = set()
    for branch in branches:
        if (branch_types := _json_types(branch)) is None:
            return None
        types |= branch_types
    return types or None
