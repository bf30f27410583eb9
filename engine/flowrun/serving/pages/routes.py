"""The addresses of the pages: everything that is not of an API."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from flowrun.serving.gate import API, HEALTH, LOGIN, Access
from flowrun.serving.pages.actions import back, post_answer, post_cancel, post_doubt, post_resume
from flowrun.serving.pages.login import post_login, post_logout, show_login
from flowrun.serving.pages.responses import NotFound, as_page
from flowrun.serving.pages.run_list import show_list
from flowrun.serving.pages.run_page import follow_run, show_run
from flowrun.serving.pages.site import Site
from flowrun.serving.served_runs import ServedRuns


def page_routes(runs: ServedRuns, access: Access) -> list[BaseRoute]:
    """Return the routes of the pages of a journal. They belong behind all others: the last one takes every path.

    Args:
        runs: the runs of a session with a journal.
        access: who may ask, as the gate before the routes has it.
    """
    site = Site.of(runs, access)

    def route(path: str, method: str, work: Callable[[Site, Request], Awaitable[Response]]) -> Route:
        async def endpoint(request: Request) -> Response:
            return await work(site, request)

        return Route(path, as_page(endpoint), methods=[method])

    forms: list[tuple[str, Any]] = [
        ("answers", post_answer),
        ("cancel", post_cancel),
        ("resume", post_resume),
        ("doubts", post_doubt),
    ]
    return [
        route("/", "GET", show_list),
        route("/changes", "GET", _follow_all),
        route(LOGIN, "GET", show_login),
        route(LOGIN, "POST", post_login),
        route("/logout", "POST", post_logout),
        route("/runs", "GET", show_list),
        route("/runs/{run}", "GET", show_run),
        route("/runs/{run}/changes", "GET", follow_run),
        *(route(f"/runs/{{run}}/{name}", "POST", work) for name, work in forms),
        *(route(f"/runs/{{run}}/{name}", "GET", back) for name, _ in forms),
        _OtherPath("/{path:path}", as_page(_nothing), methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
    ]


class _OtherPath(Route):
    """The route of every path that is not of an API, which has errors of its own."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        is_api = scope["path"].startswith(API) or scope["path"] == HEALTH
        return (Match.NONE, {}) if is_api else super().matches(scope)


async def _follow_all(site: Site, request: Request) -> Response:
    return site.stream(request, None)


async def _nothing(request: Request) -> Response:
    raise NotFound(f"This server has no page {request.url.path}.")
