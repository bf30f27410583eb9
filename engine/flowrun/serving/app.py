"""The application of ``flowrun serve``: the chat API, the MCP endpoint and the pages, behind one gate."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from flowrun.errors import FlowrunError
from flowrun.serving.api_errors import ApiError, as_api_error, json_response
from flowrun.serving.completions import Completions, find_flow
from flowrun.serving.gate import HEALTH, Access, Gate
from flowrun.serving.run_records import run_routes
from flowrun.serving.served_flow import ServedFlow
from flowrun.serving.served_runs import ServedRuns

Endpoint = Callable[[Request], Awaitable[Response]]


def make_app(
    flows: Mapping[str, ServedFlow],
    runs: ServedRuns,
    access: Access,
    *,
    timeout: float,
    others: Sequence[BaseRoute] = (),
) -> ASGIApp:
    """Return the application.

    Args:
        flows: by the names of their models.
        timeout: the seconds that a request may take.
        others: further routes, such as those of the pages.
    """
    app = Starlette(
        routes=[
            Route(HEALTH, _health(runs)),
            Route("/v1/models", _models(flows)),
            Route("/v1/models/{name:path}", _model(flows)),
            Route(
                "/v1/chat/completions",
                Completions(flows, runs, timeout=timeout),
                methods=["POST"],
            ),
            *run_routes(runs),
            *others,
        ],
        exception_handlers={HTTPException: _http_error, FlowrunError: _flowrun_error, Exception: _bug},
    )
    return guarded(app, access)


def guarded(app: ASGIApp, access: Access) -> ASGIApp:
    """Return an application behind the gate. Scripts of other sites may read its answers only if they are allowed."""
    app = Gate(app, access)
    if not access.origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=sorted(access.origins),
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=["x-request-id", "retry-after", "mcp-session-id"],
    )


def _health(runs: ServedRuns) -> Endpoint:
    async def health(request: Request) -> Response:
        status = "draining" if runs.draining else "ok"
        return json_response({"status": status, "live": runs.live}, status=503 if runs.draining else 200)

    return health


def _models(flows: Mapping[str, ServedFlow]) -> Endpoint:
    async def models(request: Request) -> Response:
        return json_response({"object": "list", "data": [_described(served) for served in flows.values()]})

    return models


def _model(flows: Mapping[str, ServedFlow]) -> Endpoint:
    async def model(request: Request) -> Response:
        return json_response(_described(find_flow(flows, request.path_params["name"])))

    return model


def _described(served: ServedFlow) -> dict[str, object]:
    spec = served.flow.spec
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "flowrun",
        "flowrun": {"version": spec.version, "description": spec.description, "inputs": spec.inputs},
    }


async def _flowrun_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, FlowrunError)
    return as_api_error(exc).response()


async def _http_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    return ApiError(f"{request.method} {request.scope['path']}: {exc.detail}", status=exc.status_code).response()


async def _bug(request: Request, exc: Exception) -> Response:
    return ApiError("this is a bug in flowrun; the server's log has it", status=500, kind="server_error").response()
