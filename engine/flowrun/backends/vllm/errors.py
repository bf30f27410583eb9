"""Maps vLLM's exceptions to a run's failures, by the names of their classes: nothing here imports vLLM."""

from typing import Final

from flowrun.errors import ModelError

MEANINGS: Final[dict[str, str]] = {
    "EngineDeadError": "backend.unavailable",
    "GracefulHTTPError": "backend.unavailable",  # the engine's queue is full
    "VLLMClientError": "model.request_refused",
    "VLLMServerError": "backend.unavailable",
    "ValidationError": "model.request_refused",  # pydantic's
    "TemplateError": "model.request_refused",  # Jinja2's, in the chat template
    "Exception": "model.request_refused",
}
"""From the name of an exception's class, or of its nearest base in this table, to a failure's name."""
_OVERFLOWS: Final = frozenset({"input_tokens", "input_text"})  # VLLMValidationError.parameter of a prompt too long
_WRAPPERS: Final = frozenset({"EngineGenerateError"})  # only their cause has a message


def as_model_error(exc: Exception) -> ModelError:
    """Return the ``ModelError`` for an exception of vLLM; the caller raises it ``from exc``."""
    while type(exc).__name__ in _WRAPPERS and isinstance(exc.__cause__, Exception):
        exc = exc.__cause__
    if getattr(exc, "parameter", None) in _OVERFLOWS:
        return ModelError("model.context_overflow", explain(exc))
    name = next(MEANINGS[base.__name__] for base in type(exc).__mro__ if base.__name__ in MEANINGS)
    return ModelError(name, explain(exc))


def explain(exc: BaseException) -> str:
    """Return an exception's message on one line; for pydantic's, each field with its fault."""
    faults = getattr(exc, "errors", None)
    if type(exc).__name__ == "ValidationError" and callable(faults):
        return "; ".join(_fault(fault["loc"], fault["msg"]) for fault in faults())
    message = " ".join(str(exc).split())
    if not message:
        return type(exc).__name__
    plain = isinstance(exc, (ValueError, OSError, RuntimeError)) or type(exc).__name__.startswith("VLLM")
    return message if plain else f"{type(exc).__name__}: {message}"


def _fault(location: tuple[str | int, ...], message: str) -> str:
    place = ".".join(str(part) for part in location)
    message = " ".join(message.removeprefix("Value error, ").split())
    return f"{place}: {message}" if place else message
