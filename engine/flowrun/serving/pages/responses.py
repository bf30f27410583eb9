"""Responses of pages: HTML with headers by which nothing else runs, errors as pages, and forms as pairs of texts."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import cache, wraps
from typing import Any, Final
from urllib.parse import parse_qsl

from jinja2 import Environment
from markupsafe import Markup
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from flowrun.durations import spell_duration
from flowrun.errors import FlowrunError, UsageError
from flowrun.journal import RunDamaged
from flowrun.serving.gate import BodyRefused
from flowrun.transcript import formatting
from flowrun.transcript.page_parts import content_policy, page_templates, read_part

Endpoint = Callable[[Request], Awaitable[Response]]

_PARTS: Final = ("bar", "base", "list", "login", "message", "below")
_MAX_FIELDS: Final = 10_000
"""The most fields of a form."""

_HEADERS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with no-referrer, browsers send `Origin: null` with forms
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}

_log = logging.getLogger(__name__)


class NotFound(FlowrunError):
    """There is no such page."""


@cache
def templates() -> Environment:
    """Return the templates of the pages."""
    environment = page_templates(
        {f"{name}.html.jinja": read_part(f"{name}.html.jinja", __package__) for name in _PARTS}
    )
    environment.filters |= {
        "duration": spell_duration,
        "age": lambda seconds: spell_duration(seconds, whole=True),
        "moment": formatting.moment,
        "status_words": formatting.status_words,
    }
    environment.globals |= {"counted": formatting.counted}
    return environment


def render_part(name: str, **values: Any) -> Markup:
    """Render one of the templates."""
    return Markup(templates().get_template(f"{name}.html.jinja").render(**values))  # noqa: S704 - it escapes


@cache
def own_style() -> str:
    """Return the style sheet that all pages of the server have after that of all pages."""
    return read_part("pages.css", __package__)


@cache
def follow_script() -> str:
    """Return the script by which a page follows the journal."""
    return read_part("follow.js", __package__)


def page_response(
    html: str, *, style: str, script: str, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a page with the headers of all pages; its only style sheet and script are given to know their digests."""
    policy = {"content-security-policy": content_policy(style, script, served=True)}
    return HTMLResponse(html, status, {**_HEADERS, **policy, **(headers or {})})


def base_page(name: str, *, title: str, status: int = 200, script: str = "", **values: Any) -> Response:
    """Return a page that is made of a template which extends ``base``."""
    style = f"{read_part('page.css')}\n{own_style()}"
    given = {"attributes": {}, "keyed": False, "home": False, **values}
    html = render_part(name, title=title, style=Markup(style), script=Markup(script), **given)  # noqa: S704 - own files
    return page_response(html, style=style, script=script, status=status)


def message_page(title: str, message: str, *, status: int) -> Response:
    """Return a page that says one thing."""
    return base_page("message", title=title, message=message, status=status)


def see_other(path: str) -> Response:
    """Return a redirect after a form: the page is asked for anew."""
    return RedirectResponse(path, 303, dict(_HEADERS))


def as_page(endpoint: Endpoint) -> Endpoint:
    """Return an endpoint whose errors are pages."""

    @wraps(endpoint)
    async def respond(request: Request) -> Response:
        try:
            return await endpoint(request)
        except (BodyRefused, ClientDisconnect):
            raise  # the gate answers, or nobody reads an answer
        except NotFound as exc:
            return message_page("There is no such page", str(exc), status=404)
        except RunDamaged as exc:
            return message_page("This run is damaged", str(exc), status=200)
        except UsageError as exc:
            return message_page("This cannot be done", str(exc), status=422)
        except FlowrunError as exc:
            return message_page("This cannot be shown", str(exc), status=503)
        except Exception:
            _log.exception("a bug in flowrun, please report it: %s %s", request.method, request.url.path)
            what = "This is a bug in flowrun; please report it with the traceback in the server's log."
            return message_page("Something went wrong", what, status=500)

    return respond


async def read_pairs(request: Request) -> list[tuple[str, str]]:
    """Return the names and texts of a form (``application/x-www-form-urlencoded``).

    Raises:
        UsageError: the request is no such form.
    """
    body = await request.body()
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError as exc:
        raise UsageError(f"the request is no form: {exc}") from exc
