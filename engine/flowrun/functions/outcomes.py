"""The outcome of a function call: its value as JSON, or a failure. Nothing here raises, whatever a function does.

A ``ToolError`` is no JSON value, so the two cannot be confused.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from flowrun.errors import ToolError
from flowrun.excerpts import beginning, cut, shortened
from flowrun.functions.json_values import NotJSON, to_json
from flowrun.spec.model import JSON
from flowrun.unicode import well_formed

MAX_MESSAGE: Final = 4000
"""Characters of a failure's message; longer ones are cut, as the model reads them and the journal stores them."""


_MAX_NAME: Final = 100
_MAX_BASES: Final = 20
"""Characters of the name of an exception's class, and the number of its base classes, that a failure has."""


class InvalidArguments(ValueError):
    """Arguments do not fit what a function takes; the message is for the model that wrote them."""


class NamedFailure(Exception):
    """A failure that has a name of ``errors.FAILURES``: of what is called by a function of flowrun's own."""

    def __init__(self, name: str, message: str) -> None:
        self.name = name
        super().__init__(message)


def call_outcome(function: Callable[..., Any], arguments: Mapping[str, Any]) -> JSON | ToolError:
    """Call a function and return its outcome."""
    try:
        return to_json(function(**arguments))
    except BaseException as exc:
        return call_failure(exc)


async def await_outcome(function: Callable[..., Any], arguments: Mapping[str, Any]) -> JSON | ToolError:
    """Call an async function and return its outcome."""
    try:
        return to_json(await function(**arguments))
    except BaseException as exc:
        return call_failure(exc)


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether a call of the function must be awaited."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def call_failure(exc: BaseException) -> ToolError:
    """Return an exception of a function as the failure of its call."""
    if isinstance(exc, NamedFailure):
        error = ToolError(exc.name, well_formed(str(exc)))
    elif isinstance(exc, InvalidArguments):
        error = ToolError("tool.invalid_arguments", shortened(str(exc), MAX_MESSAGE))
    else:
        returned = isinstance(exc, NotJSON)
        what = "returned " if returned else f"{type(exc).__name__}: "
        types = () if returned else type_names(type(exc))
        error = ToolError("tool.failed", f"{what}{_message_of(exc)}".removesuffix(": "), types=types)
    error.__cause__ = exc
    return error


def type_names(kind: type[BaseException]) -> tuple[str, ...]:
    """Return the names of an exception's class and of its base classes."""
    names = (cut(base.__name__, _MAX_NAME) for base in kind.__mro__[:_MAX_BASES] if base not in (object, BaseException))
    return tuple(well_formed(name) for name in names)


def shown(error: ToolError, mask: Callable[[str], str]) -> ToolError:
    """Return a failure without secrets and of bounded length: it is masked first, as no cut secret is recognised."""
    kind, colon, message = mask(error.message).partition(": ")
    text = f"{kind}{colon}{beginning(message, MAX_MESSAGE)}"
    if text == error.message:
        return error
    without = ToolError(error.name, text, types=error.types)
    without.__cause__ = error.__cause__ if mask(str(error.__cause__)) == str(error.__cause__) else None
    return without


def _message_of(exc: BaseException) -> str:
    try:
        text = str(exc)
    except BaseException:
        return "its message cannot be shown"
    return text.encode(errors="replace").decode()
