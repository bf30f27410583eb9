"""What an MCP server answers to a call, as JSON: structured content, text, or a list of parts. Pure.

Images and other binary content are named, with their type, size and digest, and not kept: neither a model that reads
text nor a journal has use for them. (MCP 2025-11-25, ``tools/call``.)
"""

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, Any

from flowrun.functions.outcomes import NamedFailure
from flowrun.spec.model import JSON

if TYPE_CHECKING:
    from mcp.types import CallToolResult


def value_of(result: "CallToolResult") -> JSON:
    """Return the value of a call: the structured content if there is any, a text if all parts are text, or the parts.

    Raises:
        NamedFailure: the server says that the call failed; the message is what it says.
    """
    parts = [_part(part.model_dump(mode="json", by_alias=True, exclude_none=True)) for part in result.content]
    text = "\n".join(part if isinstance(part, str) else str(part.get("text", "")) for part in parts)
    if result.is_error:
        raise NamedFailure("tool.failed", text or "the server says that the call failed, and not why")
    if result.structured_content is not None:
        return _unwrapped(result.structured_content, text)
    return text if all(isinstance(part, str) for part in parts) else parts


def _unwrapped(structured: dict[str, JSON], text: str) -> JSON:
    """Return structured content; of what a server had to wrap to make a mapping of it, the text that it also gives."""
    wrapped = structured.get("result")
    if len(structured) == 1 and "result" in structured and not isinstance(wrapped, dict):
        return text if wrapped == text else wrapped
    return structured


def _part(part: dict[str, Any]) -> "str | dict[str, JSON]":
    match part["type"]:
        case "text":
            return str(part["text"])
        case "image" | "audio":
            return {"type": part["type"], **_named(part["data"], part.get("mimeType"))}
        case "resource":
            resource = part["resource"]
            if "blob" in resource:
                return {
                    "type": "resource",
                    "uri": resource["uri"],
                    **_named(resource["blob"], resource.get("mimeType")),
                }
            return {"type": "resource", "uri": resource["uri"], "text": resource.get("text", "")}
        case _:
            return {key: value for key, value in part.items() if key not in ("annotations", "_meta", "icons")}


def _named(data: str, mime_type: str | None) -> dict[str, JSON]:
    """Return what is said of binary content in place of it."""
    try:
        content = base64.b64decode(data)
    except binascii.Error:
        content = data.encode()
    known: dict[str, JSON] = {} if mime_type is None else {"mimeType": mime_type}
    return {**known, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
