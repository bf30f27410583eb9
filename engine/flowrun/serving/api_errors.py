"""Errors of the API in the form that OpenAI's clients read: ``{"error": {message, type, param, code}}``."""

from collections.abc import Callable, Mapping
from copy import copy
from types import MappingProxyType
from typing import Final

import msgspec
from starlette.responses import Response

from flowrun.errors import BackendError, Failure, FlowrunError, UsageError
from flowrun.serving.served_runs import Draining, Full, NoSuchRun, Stopped

RETRY_SECONDS: Final = 1
"""The ``Retry-After`` of a server that is full or about to stop."""


class ApiError(FlowrunError):
    """A request is answered with an error.

    Attributes:
        status: the HTTP status.
        kind: the ``type`` of the error.
        code: its ``code``, such as ``model_not_found`` or the name of a failure.
        param: the member of the request that is wrong.
        retry_after: the seconds after which the request may succeed; None: it need not be sent again.
        run: the run that failed.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
        run: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.code = code
        self.param = param
        self.retry_after = retry_after
        self.run = run

    def body(self) -> dict[str, object]:
        """Return the error as the body of a response."""
        error = {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}
        return {"error": error} if self.run is None else {"error": error, "flowrun": {"run": self.run}}

    def mapped(self, change: Callable[[str], str]) -> "ApiError":
        """Return the error with another message, such as one without secrets."""
        changed = copy(self)
        changed.args = (change(str(self)),)
        return changed

    def response(self, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
        """Return the response. It tells clients that repeat requests by themselves whether to do so."""
        headers = {**headers, "x-should-retry": "false" if self.retry_after is None else "true"}
        if self.retry_after is not None:
            headers["retry-after"] = str(self.retry_after)
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return json_response(self.body(), status=self.status, headers=headers)


def json_response(value: object, *, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with a value as JSON."""
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


def as_api_error(error: FlowrunError) -> ApiError:
    """Return an error of flowrun as one of the API."""
    match error:
        case ApiError():
            return error
        case Full():
            return ApiError(
                str(error), status=429, kind="rate_limit_error", code="too_many_runs", retry_after=RETRY_SECONDS
            )
        case Draining():
            return ApiError(
                str(error), status=503, kind="server_error", code="server_draining", retry_after=RETRY_SECONDS
            )
        case Stopped():
            return ApiError(str(error), status=503, kind="server_error", code="server_stopped", run=error.run)
        case NoSuchRun():
            return ApiError(str(error), status=404, code="run_not_found")
        case UsageError():
            return ApiError(str(error))
        case BackendError():
            return ApiError(str(error), status=502, kind="server_error", code="model.unavailable")
        case _:
            return ApiError(str(error), status=500, kind="server_error")


def error_of_run(run: str, failure: Failure) -> ApiError:
    """Return the error of a run that failed. No client may repeat it by itself: its tools have been called."""
    where = f" (state {failure.state})" if failure.state else ""
    status = _STATUSES.get(failure.name) or _STATUSES.get(failure.name.partition(".")[0], 500)
    kind = "invalid_request_error" if status == 400 else "run_error"
    return ApiError(f"{failure.name}: {failure.message}{where}", status=status, kind=kind, code=failure.name, run=run)


_STATUSES: Final = {
    "input": 400,
    "model.context_overflow": 400,
    "model.declined": 422,
    "model": 502,
    "backend": 503,
    "flow": 422,
    "limit.timeout": 504,
    "state.timeout": 504,
    "wait.timeout": 504,
    "limit": 422,
    "run": 503,
}
"""The HTTP statuses of failures, by their names or the beginnings of them; 500 for all others."""
