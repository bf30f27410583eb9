"""A question of a run for a client that has no page: in words that say how it is answered, or as a flat form. Pure."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from flowrun.core.approvals import call_lines
from flowrun.runtime.run_result import InputRequest, RunResult
from flowrun.serving.answers import mask_request
from flowrun.spec.json_types import declared_types
from flowrun.spec.model import JSON
from flowrun.unicode import visible, visible_json

_SCALARS: Final = {"string", "number", "integer", "boolean"}
_KEYWORDS: Final = (
    *("type", "title", "description", "default", "enum", "oneOf", "format"),
    *("minLength", "maxLength", "minimum", "maximum"),
)
"""What a property of a flat form may have (MCP 2025-11-25, elicitation)."""

_ALONE: Final = "answer"
"""The property of a flat form whose answer is one value."""


def describe_questions(result: RunResult, address: str, secrets: Mapping[str, str]) -> str:
    """Return what a run waits for, and how it is answered.

    Args:
        address: of the server.
        secrets: what the text may not hold.
    """
    return "\n\n".join(_describe(mask_request(ask, secrets), result.run_id, address) for ask in result.pending)


def question_text(ask: InputRequest) -> str:
    """Return what a question says, and the call that it is about, without characters that deceive who reads it."""
    return visible("\n".join([ask.prompt, *call_lines(ask.call)]))


def _describe(ask: InputRequest, run: str, address: str) -> str:
    body = msgspec.json.encode({"id": ask.id, "value": "..."}).decode()
    schema = visible_json(msgspec.json.encode(ask.schema).decode())
    return (
        f"{question_text(ask)}\n\n(Run {run} waits for an answer: at {address}/runs/{run}, "
        f"or by POST {address}/v1/runs/{run}/answers with {body}, whose value matches {schema})"
    )


def flat_form(ask: InputRequest) -> dict[str, Any] | None:
    """Return the schema of a question as a flat form: an object of scalars. None if it has no such form.

    About a tool call it asks for consent only: the call is made with the arguments that the model gave.
    """
    if ask.call is not None:
        properties: Mapping[str, JSON] = {
            "ok": ask.schema["properties"]["ok"],
            "reason": {"type": "string", "description": "what the model is told, if it is not ok"},
        }
        return {"type": "object", "properties": properties, "required": ["ok"]}
    schema = ask.schema
    if declared_types(schema) != {"object"}:
        schema = {"properties": {_ALONE: schema}, "required": [_ALONE]}
    properties = schema.get("properties", {})
    if not properties or not all(map(_is_scalar, properties.values())) or not schema.keys() <= _OF_OBJECTS:
        return None
    flat = {name: {key: part[key] for key in _KEYWORDS if key in part} for name, part in properties.items()}
    return {"type": "object", "properties": flat, "required": list(schema.get("required", ()))}


_OF_OBJECTS: Final = {"type", "properties", "required", "additionalProperties", "title", "description", "$schema"}


def _is_scalar(schema: JSON) -> bool:
    return isinstance(schema, Mapping) and len(types := declared_types(schema)) == 1 and types <= _SCALARS


def answer_of_form(ask: InputRequest, content: Mapping[str, JSON]) -> JSON:
    """Return the answer that a filled in flat form is."""
    if ask.call is not None:
        return {key: value for key, value in content.items() if key == "ok" or not content.get("ok")}
    if declared_types(ask.schema) != {"object"}:
        return content.get(_ALONE)
    return dict(content)
