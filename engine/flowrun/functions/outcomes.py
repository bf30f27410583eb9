"""What a call of a function comes to: its value as JSON, or a failure. Nothing here raises, whatever a function does.

A ``ToolError`` is no JSON value, so the two cannot be mixed up.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from flowrun.errors import ToolError
from flowrun.functions.json_values import NotJSON, to_json
from flowrun.spec.model import JSON

MAX_MESSAGE: Final = 4000
"""A failure's message is cut to so many characters: the model reads it, and the journal keeps it."""


def outcome_of(function: Callable[..., Any], arguments: Mapping[str, Any]) -> JSON | ToolError:
    """Call a function."""
    try:
        return to_json(function(**arguments))
    except BaseException as exc:
        return failure_of(exc)


def failure_of(exc: BaseException) -> ToolError:
    """Give what a function raised as the call's failure."""
    said = f"returned {exc}" if isinstance(exc, NotJSON) else f"{type(exc).__name__}: {_message_of(exc)}"
    error = ToolError("tool.failed", said.removesuffix(": "))
    error.__cause__ = exc
    return error


def _message_of(exc: BaseException) -> str:
    try:
        text = str(exc)
    except BaseException:
        return "its message cannot be shown"
    text = text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]} ..."
    return text.encode(errors="replace").decode()
