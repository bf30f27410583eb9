"""JSON Schemas of a Python function's arguments: derived from its signature, or compared with it."""

import functools
import inspect
import json
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import msgspec

from flowrun.spec.entrypoints import EntrypointError, NoObject
from flowrun.spec.json_types import JSON_TYPES, declared_types
from flowrun.spec.model import JSON
from flowrun.spec.parameters import PythonParameter, read_parameters, written_as
from flowrun.spec.phrases import listed
from flowrun.spec.python_types import ArgumentType
from flowrun.spec.suggestions import did_you_mean, suggest


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of a function.

    Attributes:
        schema: that of its type; None if JSON cannot express the type, for the reason ``wrong``.
    """

    name: str
    required: bool
    schema: dict[str, JSON] | None = None
    wrong: str = ""


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a function without calling it: plain data, which may come from another process.

    Attributes:
        takes_any_name: it has ``**kwargs``.
        description: the docstring's first paragraph.
        arguments: the JSON Schema of its arguments; None if there is none, and ``underivable`` says why.
        unreadable: why there are no parameters at all: a message and a remedy.
        is_callable: False for a method without its object, which no call can reach.
    """

    parameters: tuple[Parameter, ...] = ()
    takes_any_name: bool = False
    description: str = ""
    arguments: dict[str, JSON] | None = None
    underivable: tuple[str, str] | None = None
    unreadable: tuple[str, str] | None = None
    is_callable: bool = True


def signature_of(function: Callable[..., Any]) -> Signature:
    """Read a function's signature."""
    try:
        parameters = read_parameters(function)
    except EntrypointError as error:
        fault = (error.message, error.remedy)
        return Signature(underivable=fault, unreadable=fault, is_callable=not isinstance(error, NoObject))
    arguments = underivable = None
    try:
        description, arguments = derive_parameters(function)
    except EntrypointError as error:
        description = _docstring(function)[0]
        underivable = (error.message, error.remedy)
    return Signature(
        parameters=tuple(map(_as_data, parameters.named)),
        takes_any_name=parameters.others is not None,
        description=description,
        arguments=arguments,
        underivable=underivable,
    )


def _as_data(parameter: PythonParameter) -> Parameter:
    schema = None if parameter.type is None else parameter.type.schema({})
    return Parameter(name=parameter.name, required=parameter.is_required, schema=schema, wrong=parameter.wrong)


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


class Difference(NamedTuple):
    """A difference between a tool's declaration and its function; ``certain`` if some call must fail for it."""

    message: str
    remedy: str
    certain: bool = True


def check_signature(signature: Signature, schema: Mapping[str, JSON]) -> list[Difference]:
    """Return the differences between a declared schema of a function's arguments and its signature."""
    if signature.unreadable is not None:
        return [Difference(*signature.unreadable)]
    declared = schema.get("properties", {})
    required = schema.get("required", ())
    known = {parameter.name: parameter for parameter in signature.parameters}
    found = [
        difference for parameter in known.values() for difference in _check_parameter(parameter, declared, required)
    ]
    for name in () if signature.takes_any_name else [name for name in declared if name not in known]:
        undeclared = [other for other in known if other not in declared]
        remedy = did_you_mean(name, undeclared) or "delete it, or add the parameter to the function"
        found.append(Difference(f"the function has no parameter '{name}'", remedy))
    return found


def check_arguments(signature: Signature, names: Collection[str]) -> list[tuple[str | None, str, str]]:
    """Return why a function cannot be called with arguments of these names.

    Each fault is the name of the wrong argument, None for one that is missing, with a message and a remedy.
    """
    if signature.unreadable is not None:
        return [] if signature.is_callable else [(None, *signature.unreadable)]
    known = {parameter.name: parameter for parameter in signature.parameters}
    missing = [name for name, parameter in known.items() if parameter.required and name not in names]
    unknown = [] if signature.takes_any_name else [name for name in names if name not in known]
    found: list[tuple[str | None, str, str]] = []
    if len(unknown) == len(missing) == 1:  # one mistake: the name
        return [(unknown[0], f"the function has no parameter '{unknown[0]}'", f"did you mean '{missing[0]}'?")]
    for name in names:
        if name not in known and not signature.takes_any_name:
            remedy = did_you_mean(name, missing) or suggest(name, known, "parameters")
            found.append((name, f"the function has no parameter '{name}'", remedy))
            missing = [other for other in missing if f"'{other}'" not in remedy]
    if missing:
        needed = listed(missing, "and")
        found.append((None, f"the function needs {needed}", f"add {needed} to with"))
    return found


def check_value(signature: Signature, name: str, value: JSON) -> str | None:
    """Return why a function does not take a value for a parameter, by its type or the values that it lists; or None."""
    schema = next((parameter.schema for parameter in signature.parameters if parameter.name == name), None)
    constant: dict[str, JSON] = {"const": value}
    if schema is None or not _contradiction(name, constant, schema) or _is_number_for_integer(constant, schema):
        return None
    if (known := _values(schema)) is not None:
        return f"'{name}' must be {listed([str(one) for one in known], 'or')}"
    expected = listed(sorted(_json_types(schema) or ()), "or", quote="")
    return f"'{name}' is of type {JSON_TYPES[type(value)]}, and the function takes {expected}"


def _check_parameter(parameter: Parameter, declared: Mapping[str, JSON], required: Collection[str]) -> list[Difference]:
    name = parameter.name
    if name not in declared:
        remedy = "declare and require it, or give it a default in the function"
        message = f"the function needs '{name}', which is not declared"
        return [Difference(message, remedy)] if parameter.required else []
    found = []
    if name not in required and parameter.required:
        remedy = "add it to 'required', or give it a default in the function"
        message = f"the function needs '{name}', which is declared as optional"
        found.append(Difference(message, remedy, certain=False))
    if parameter.schema is None:
        message = f"'{name}' cannot be given: {parameter.wrong}"
        found.append(Difference(message, "annotate it with a type that JSON has"))
    elif message := _contradiction(name, declared[name], parameter.schema):
        certain = not _is_number_for_integer(declared[name], parameter.schema)
        found.append(Difference(message, "change the declared schema or the function's annotation", certain))
    return found


def _is_number_for_integer(declared: JSON, accepted: dict[str, JSON]) -> bool:
    """Return whether the schema says number where the function says int: for most values they agree."""
    types, accepted_types = _json_types(declared), _json_types(accepted)
    return (
        types is not None
        and accepted_types is not None
        and types - accepted_types == {"number"}
        and ("integer" in accepted_types)
    )


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
