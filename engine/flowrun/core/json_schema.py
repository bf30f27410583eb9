"""JSON Schemas, compiled to validators. Nothing is ever fetched."""

from collections.abc import Callable, Mapping
from typing import Any

from flowrun.spec.model import JSON, Spec
from flowrun.unicode import find_encoding_error

Validator = Callable[[JSON], str | None]
"""Checks a value against a JSON Schema; returns what is wrong in one sentence, or None."""


def compile_inputs(spec: Spec) -> Validator:
    """Compile what checks a flow's inputs as a whole; an input without default is required.

    Each input's schema stands by itself: ``#`` and ``$defs`` mean in it what they mean where it is written.
    """
    validators = {name: compile_schema(schema, name=name) for name, schema in spec.inputs.items()}
    names = compile_schema(
        {
            "type": "object",
            "properties": dict.fromkeys(spec.inputs, True),
            "required": [name for name, schema in spec.inputs.items() if "default" not in schema],
            "additionalProperties": False,
        }
    )

    def validate(inputs: JSON) -> str | None:
        if wrong := find_encoding_error(inputs) or names(inputs):
            return wrong
        return "; ".join(wrong for name, value in inputs.items() if (wrong := validators[name](value))) or None

    return validate


def compile_schema(schema: Mapping[str, JSON], *, name: str = "") -> Validator:
    """Compile a JSON Schema (2020-12) to a validator. A reference must lead to a part of the schema: none is fetched.

    The compiled Rust implementation checks an object in about 0.5 µs where the Python one takes 18 to 100 µs, and its
    regular expressions cannot be made to run away by what a model writes.

    Args:
        name: what a value is called where it is said to be wrong.

    Raises:
        ValueError: it is no schema, or refers to what is not in it.
    """
    import jsonschema_rs

    compiled = jsonschema_rs.Draft202012Validator(dict(schema), validate_formats=True, retriever=_refuse_to_fetch)

    def validate(value: JSON) -> str | None:
        try:
            if compiled.is_valid(value):
                return None
        except UnicodeEncodeError:
            return find_encoding_error(value) or "it cannot be checked"
        errors = zip(range(5), compiled.iter_errors(value), strict=False)
        return "; ".join(_explain(error, name) for _, error in errors)

    return validate


def _refuse_to_fetch(uri: str) -> JSON:
    raise ValueError("a schema is never fetched")


def _explain(error: Any, name: str) -> str:
    where = ".".join(filter(None, (name, *map(str, error.instance_path))))
    return f"{where}: {error.message}" if where else str(error.message)
