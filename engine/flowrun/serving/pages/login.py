"""Logging in with an API key, which a browser then shows by a cookie, and logging out."""

import asyncio
import re
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from flowrun.serving.asked_address import is_secure
from flowrun.serving.gate import LOGIN, cookie_name
from flowrun.serving.pages.responses import base_page, read_pairs, see_other
from flowrun.serving.pages.site import Site

_LOCAL: Final = re.compile(r"/(?:[!-\[\]-~][!-\[\]-~]*)?")
"""Paths of this server: printable ASCII without a backslash, which browsers take for a slash."""

_WRONG_SECONDS: Final = 0.5
"""How long a wrong key takes."""

_KEPT_SECONDS: Final = 30 * 86400


async def show_login(site: Site, request: Request) -> Response:
    """Return the form for the key; without keys, the list of runs."""
    if not site.access.keys:
        return see_other("/")
    return base_page("login", title="Log in", to=local_path(request.query_params.get("to", "")), wrong=False)


async def post_login(site: Site, request: Request) -> Response:
    """Set the cookie of a browser that gives a key."""
    given = dict(await read_pairs(request))
    to = local_path(given.get("to", ""))
    if not site.access.keys:
        return see_other(to)
    if not site.access.admits(given.get("key", "").strip()):
        await asyncio.sleep(_WRONG_SECONDS)
        return base_page("login", title="Log in", to=to, wrong=True, status=422)
    response = see_other(to)
    response.set_cookie(
        cookie_name(request.scope),
        site.access.cookie(),
        max_age=_KEPT_SECONDS,
        path="/",
        secure=is_secure(request),
        httponly=True,
        samesite="strict",
    )
    return response


async def post_logout(site: Site, request: Request) -> Response:
    """Take the cookie back."""
    response = see_other(LOGIN)
    response.delete_cookie(cookie_name(request.scope), path="/", httponly=True, samesite="strict")
    return response


def local_path(path: str) -> str:
    """Return a path of this server, or that of the list for anything else."""
    return path if _LOCAL.fullmatch(path) and not path.startswith("//") else "/"
