"""Every exception of vLLM becomes a named failure. The classes are stubs of vLLM's, which are found by name."""

from typing import Any

import pytest

from flowrun.backends.vllm.errors import as_model_error, explain


class VLLMError(Exception):
    pass


class VLLMClientError(VLLMError):
    pass


class VLLMServerError(VLLMError):
    pass


class VLLMValidationError(VLLMClientError):
    def __init__(self, message: str, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class EngineDeadError(VLLMServerError):
    pass


class EngineGenerateError(VLLMServerError):
    pass


class QueueOverflowError(VLLMError):
    pass


class GracefulHTTPError(QueueOverflowError):
    pass


class ValidationError(ValueError):
    """A stub of pydantic's."""

    def errors(self) -> list[dict[str, Any]]:
        return [
            {"loc": ("messages", 0, "role"), "msg": "Field required"},
            {"loc": (), "msg": "Value error, tools\n must not be empty"},
        ]


def caused(exc: Exception, by: Exception | None) -> Exception:
    exc.__cause__ = by
    return exc


@pytest.mark.parametrize(
    ("exc", "name", "message"),
    [
        pytest.param(EngineDeadError("see above"), "backend.unavailable", "EngineDeadError: see above", id="dead"),
        pytest.param(GracefulHTTPError("busy"), "backend.unavailable", "GracefulHTTPError: busy", id="queue full"),
        pytest.param(
            VLLMValidationError("Grammar error: x"), "model.request_refused", "Grammar error: x", id="refused"
        ),
        pytest.param(
            VLLMValidationError("too long", "input_tokens"), "model.context_overflow", "too long", id="too many tokens"
        ),
        pytest.param(
            VLLMValidationError("too long", "input_text"), "model.context_overflow", "too long", id="too much text"
        ),
        pytest.param(
            caused(EngineGenerateError(), VLLMValidationError("no such token")),
            "model.request_refused",
            "no such token",
            id="wrapped",
        ),
        pytest.param(
            caused(EngineGenerateError(), None), "backend.unavailable", "EngineGenerateError", id="wrapped nothing"
        ),
        pytest.param(
            ValidationError(),
            "model.request_refused",
            "messages.0.role: Field required; tools must not be empty",
            id="pydantic's",
        ),
        pytest.param(KeyError("id"), "model.request_refused", "KeyError: 'id'", id="any other"),
    ],
)
def test_names_an_exception(exc: Exception, name: str, message: str) -> None:
    error = as_model_error(exc)
    assert (error.name, error.message) == (name, message)


@pytest.mark.parametrize(
    ("exc", "message"),
    [
        pytest.param(ValueError("one\n  two"), "one two", id="on one line"),
        pytest.param(TypeError("'<' not supported"), "TypeError: '<' not supported", id="with its type"),
        pytest.param(AssertionError(), "AssertionError", id="the type alone"),
    ],
)
def test_explains_an_exception(exc: Exception, message: str) -> None:
    assert explain(exc) == message
