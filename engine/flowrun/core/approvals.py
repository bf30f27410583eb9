"""Questions about tool calls: when a call needs a person's consent, what the person sees, and the form of the answer.

The answer is ``{ok, arguments?, reason?}``. Its schema is made from that of the tool, so every way to answer offers and
checks the arguments that the model gave; those that the spec gives are shown, and cannot be answered.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from json import dumps
from typing import Any, Final, NamedTuple

import msgspec

from flowrun.core.json_schema import Validator, compile_schema
from flowrun.excerpts import cut_with_note
from flowrun.spec.model import JSON, Approval
from flowrun.spec.subschemas import map_schemas
from flowrun.templates import Scope, compile_condition, compile_text

_ARGUMENTS: Final = "#/then/properties/arguments"
"""The place of the arguments in the schema of an answer."""

_SHARED: Final = ("$defs", "definitions")

_SHOWN: Final = 4_000
"""The most characters of one argument that are shown."""

_HIDDEN: Final = "  (given by the flow)"


class Approved(NamedTuple):
    """The arguments with which a person approved a call. ``edited``: they are not those that the model gave."""

    arguments: Mapping[str, JSON]
    hidden: Mapping[str, JSON]
    edited: bool


class CompiledApproval(msgspec.Struct, frozen=True, kw_only=True):
    """Decides which calls of a tool need consent (None: all), and asks for it. ``validate`` checks an answer."""

    when: Callable[[Scope], bool] | None
    prompt: Callable[[Scope], str]
    timeout: float | None
    schema: Mapping[str, Any]
    validate: Validator

    def schema_with(self, arguments: Mapping[str, JSON]) -> dict[str, JSON]:
        """Return the schema of the answer to the question about a call, with its arguments as the default ones."""
        asked = self.schema["then"]["properties"]
        given = {name: {**schema, "default": dict(arguments)} for name, schema in asked.items()}
        return {**self.schema, "then": {"properties": given}}


def compile_approval(
    name: str, approval: Approval, parameters: Mapping[str, JSON], hidden: Collection[str]
) -> CompiledApproval:
    """Compile what a tool says about consent.

    Args:
        parameters: the schema of the arguments that a model gives.
        hidden: the names of the arguments that the spec gives.
    """
    schema = answer_schema(parameters, hidden)
    return CompiledApproval(
        when=None if approval.when is None else compile_condition(approval.when),
        prompt=compile_text(f"Make this call of {name}?" if approval.prompt is None else approval.prompt),
        timeout=approval.timeout,
        schema=schema,
        validate=compile_schema(schema),
    )


def answer_schema(parameters: Mapping[str, JSON], hidden: Collection[str]) -> dict[str, JSON]:
    """Return the schema of an answer to a question about a call."""
    arguments = map_schemas(parameters, _adapted)
    shared = {key: arguments.pop(key) for key in _SHARED if key in arguments}
    for key in ("$schema", "$id"):
        arguments.pop(key, None)
    if hidden and arguments.get("additionalProperties") is not False:
        arguments["allOf"] = [*arguments.get("allOf", ()), {"propertyNames": {"not": {"enum": sorted(hidden)}}}]
    takes_nothing = not arguments.get("properties") and arguments.get("additionalProperties") is False
    return {
        "type": "object",
        "properties": {"ok": {"type": "boolean", "description": "whether the call is made"}},
        "required": ["ok"],
        "propertyNames": {"enum": ["ok", "arguments", "reason"]},
        "if": {"properties": {"ok": {"const": True}}, "required": ["ok"]},
        "then": {"properties": {} if takes_nothing else {"arguments": arguments}},
        "else": {"properties": {"reason": {"type": "string", "description": "what the model is told"}}},
        **shared,
    }


def _adapted(schema: dict[str, JSON]) -> dict[str, JSON]:
    """Return a schema without its default, which is no argument of the call, and with its reference from the root."""
    reference = schema.get("$ref")
    shared = tuple(f"#/{key}/" for key in _SHARED)
    if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
        schema["$ref"] = reference if reference.startswith(shared) else f"{_ARGUMENTS}{reference[1:]}"
    schema.pop("default", None)
    return schema


# --- what a person sees -------------------------------------------------------------------------------------------


def call_lines(call: Mapping[str, JSON] | None) -> Iterator[str]:
    """Yield the lines that show a call with all of its arguments; none if there is no call.

    No text of a model can imitate them: each value is one line of JSON.
    """
    if call is not None:
        yield f"  {call['name']}"
        for name, value in call["arguments"].items():
            yield f"    {_written(name)}: {cut_with_note(dumps(value, ensure_ascii=False), _SHOWN)}"
        for name, value in call["hidden"].items():
            yield f"    {_written(name)}: {cut_with_note(dumps(value, ensure_ascii=False), _SHOWN)}{_HIDDEN}"


def call_text(call: Mapping[str, JSON] | None) -> str:
    """Return a call with all of its arguments as one line; empty if there is no call."""
    if call is None:
        return ""
    return f"{call['name']}({dumps({**call['arguments'], **call['hidden']}, ensure_ascii=False)})"


def _written(name: str) -> str:
    return name if name.isidentifier() else dumps(name, ensure_ascii=False)
