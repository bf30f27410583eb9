"""The parameters of a Python function: what a model may give, as a JSON Schema, and what each of them takes.

The schema that is derived, the comparison with a declared one and the conversion of arguments read one signature.
"""

import functools
import inspect
import json
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final

import msgspec

from flowrun.spec.entrypoints import EntrypointError
from flowrun.spec.json_types import JSON_TYPES, declared_types
from flowrun.spec.model import JSON
from flowrun.spec.phrases import listed
from flowrun.spec.python_types import ArgumentType
from flowrun.spec.suggestions import did_you_mean

_POSITIONAL: Final = inspect.Parameter.POSITIONAL_ONLY
_ANY_POSITIONAL: Final = inspect.Parameter.VAR_POSITIONAL
_ANY_NAME: Final = inspect.Parameter.VAR_KEYWORD


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of a function.

    Attributes:
        default: its default, or ``inspect.Parameter.empty``.
        type: what its annotation takes; None if JSON has no form of that, for the reason ``wrong``.
    """

    name: str
    annotation: Any
    default: Any
    by_position: bool
    type: ArgumentType | None
    wrong: str = ""

    @property
    def is_required(self) -> bool:
        """Whether the function has no default for it."""
        return self.default is inspect.Parameter.empty


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of a function that can be given by name.

    Attributes:
        others: what the function takes by any other name, as ``**options``; None: nothing.
    """

    parameters: tuple[Parameter, ...]
    others: Parameter | None


def read_signature(function: Callable[..., Any]) -> Signature:
    """Read the parameters of a function, a bound method, a class, a callable object or a ``functools.partial``.

    What a partial fixes by name is not offered.

    Raises:
        EntrypointError: the function has no readable signature or annotations, or is a method without its object.
    """
    try:
        found = inspect.signature(function).parameters
    except (TypeError, ValueError, NameError) as error:
        raise EntrypointError(f"the function has no signature: {error}", "wrap it in a function with 'def'") from error
    first = next(iter(found.values()), None)
    if first is not None and first.name == "self" and first.kind not in (_ANY_POSITIONAL, _ANY_NAME):
        raise EntrypointError(
            f"{getattr(function, '__qualname__', 'the function')} is a method, and has no object to be called on",
            "make the object in the module, such as desk = Desk(), and name desk.look; or make it a @staticmethod",
        )
    fixed = _fixed(function)
    written = {name: each.annotation for name, each in found.items() if each.annotation is not each.empty}
    hints = _evaluated(written, function)
    read = {each.kind: _parameter(each, hints.get(each.name, Any)) for each in found.values() if each.kind is _ANY_NAME}
    return Signature(
        parameters=tuple(
            _parameter(each, hints.get(name, Any))
            for name, each in found.items()
            if each.kind not in (_ANY_POSITIONAL, _ANY_NAME) and name not in fixed
        ),
        others=read.get(_ANY_NAME),
    )


def _parameter(each: inspect.Parameter, annotation: Any) -> Parameter:
    kind, wrong = None, ""
    try:
        kind = ArgumentType(annotation)
    except (TypeError, RecursionError) as error:
        wrong = str(error).splitlines()[-1]
    by_position = each.kind is _POSITIONAL
    return Parameter(
        name=each.name, annotation=annotation, default=each.default, by_position=by_position, type=kind, wrong=wrong
    )


def _fixed(function: Callable[..., Any]) -> frozenset[str]:
    """Return the names of the parameters that a partial gives."""
    names: frozenset[str] = frozenset()
    while isinstance(function, functools.partial):
        names |= function.keywords.keys()
        function = function.func
    return names


def _written_as(function: Callable[..., Any]) -> Any:
    """Return the ``def`` behind a callable: it has the docstring, and the names that annotations mean."""
    while isinstance(function, functools.partial):
        function = function.func
    if inspect.isclass(function):
        return function.__init__ if function.__init__ is not object.__init__ else function.__new__
    return function if inspect.isroutine(function) else type(function).__call__


def _evaluated(written: Mapping[str, Any], function: Callable[..., Any]) -> dict[str, Any]:
    """Return annotations as types. That of the result is not read: it may name what only a type checker imports."""
    owner = types.SimpleNamespace(__annotations__=dict(written), __wrapped__=inspect.unwrap(_written_as(function)))
    try:
        return typing.get_type_hints(owner, include_extras=True)
    except Exception as error:  # an annotation is code, and may raise anything
        raise EntrypointError(
            f"the function's annotations cannot be read: {type(error).__name__}: {error}",
            "import at run time what the annotations name",
        ) from error


# --- as a JSON Schema -------------------------------------------------------------------------------------------------


def derive_parameters(function: Callable[..., Any]) -> tuple[str, dict[str, JSON]]:
    """Return a function's description and the JSON Schema of its arguments, from its signature and docstring.

    The description is the docstring's first paragraph. Arguments are described by ``Annotated[type, "text"]`` or by
    the docstring (Google, reST or numpy style). An argument without an annotation may be any JSON value.

    Raises:
        EntrypointError: the function has no readable signature or annotations, is a method without its object, or a
            parameter has a type without a JSON Schema.
    """
    signature = read_signature(function)
    summary, described = _docstring(function)
    properties: dict[str, JSON] = {}
    shared: dict[str, JSON] = {}
    for parameter in signature.parameters:
        schema = _type_of(parameter).schema(shared)
        if text := _annotated_text(parameter.annotation) or described.get(parameter.name):
            schema = {**schema, "description": text}
        if (default := _json_default(parameter)) is not msgspec.UNSET:
            schema = {**schema, "default": default}
        properties[parameter.name] = schema
    others: JSON = False
    if signature.others is not None:
        others = _type_of(signature.others).schema(shared) or True
    return summary, {
        "type": "object",
        "properties": properties,
        "required": [parameter.name for parameter in signature.parameters if parameter.is_required],
        "additionalProperties": others,
        **({"$defs": shared} if shared else {}),
    }


def _type_of(parameter: Parameter) -> ArgumentType:
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
    yield _written_as(function)


def _annotated_text(annotation: Any) -> str | None:
    """Return the text in ``Annotated[type, text]``, or in its ``Doc(text)`` (PEP 727)."""
    if typing.get_origin(annotation) is not Annotated:
        return None
    texts = (getattr(extra, "documentation", extra) for extra in typing.get_args(annotation)[1:])
    return next((text for text in texts if isinstance(text, str)), None)


def _json_default(parameter: Parameter) -> JSON:
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
        signature = read_signature(function)
    except EntrypointError as error:
        return [(error.message, error.remedy)]
    declared = schema.get("properties", {})
    required = schema.get("required", ())
    known = {parameter.name: parameter for parameter in signature.parameters}
    found = [
        difference for parameter in known.values() for difference in _check_parameter(parameter, declared, required)
    ]
    for name in [name for name in declared if name not in known] if signature.others is None else ():
        undeclared = [other for other in known if other not in declared]
        remedy = did_you_mean(name, undeclared) or "delete it, or add the parameter to the function"
        found.append((f"the function has no parameter '{name}'", remedy))
    return found


def _check_parameter(
    parameter: Parameter, declared: Mapping[str, JSON], required: typing.Collection[str]
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
