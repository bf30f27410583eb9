"""Who may ask the server for what. Every request passes here before anything reads it.

A page of another site that a browser shows can send requests to a server on this machine. It cannot read the answers,
but what it asks for would be done (CSRF), unless it names this machine as its own host (DNS rebinding), and then it can
read them too. So the ``Host`` must be one that the server has, and a request that a browser sends for another site is
refused by what only browsers write: ``Origin`` and ``Sec-Fetch-Site`` (Fetch Standard, and Fetch Metadata).
"""

import asyncio
import hashlib
import hmac
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowrun.serving.api_errors import ApiError

HEALTH: Final = "/health"
LOGIN: Final = "/login"

API: Final = ("/v1/", "/mcp")
"""What the paths of the APIs begin with."""

_METADATA: Final = "/.well-known/"
"""Where clients, those of MCP among them, look for metadata (RFC 8615). It has none, and says so without a key."""

_OPEN: Final = (HEALTH, LOGIN)
"""The paths that need no key."""

_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """Who may ask.

    Attributes:
        keys: the API keys, any of which lets a client in; empty: no key is needed.
        hosts: the names by which the server may be asked; None: any.
        origins: the origins of other sites whose scripts may ask, such as ``https://chat.example.com``.
        max_body: the most bytes of a request.
        body_seconds: how long its body may take to arrive.
    """

    keys: tuple[str, ...] = ()
    hosts: frozenset[str] | None = frozenset(_LOOPBACK)
    origins: frozenset[str] = frozenset()
    max_body: int = 4_000_000
    body_seconds: float = 60.0

    def __repr__(self) -> str:  # keys end up in no traceback
        return f"Access({len(self.keys)} keys, {self.hosts})"

    def admits(self, key: str) -> bool:
        """Return whether a key is one of the server's."""
        return any(hmac.compare_digest(key.encode(), one.encode()) for one in self.keys)

    def cookie(self) -> str:
        """Return the value of the cookie of browsers that have given a key."""
        return hmac.new("\0".join(self.keys).encode(), b"flowrun pages", hashlib.sha256).hexdigest()


def cookie_name(scope: Scope) -> str:
    """Return the name of the cookie of a browser that has given the key.

    Browsers send a cookie to all ports of a host, so servers on different ports have different ones.
    """
    _, port = scope.get("server") or ("", None)
    return f"flowrun-{port or 0}"


class BodyRefused(Exception):
    """The body of a request is larger than the server allows, or comes more slowly. The gate answers."""


class Gate:
    """ASGI middleware that refuses requests by their host, their origin, their key or their size."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refused = self._refuse(scope, headers)
        if refused is not None:
            await refused(scope, receive, send)
            return
        await self._within_limit(scope, receive, send)

    def _refuse(self, scope: Scope, headers: Headers) -> Response | None:
        """Return the answer to a request that is refused; None if it may pass."""
        access, method, path = self._access, scope["method"], scope["path"]
        host = headers.get("host", "")
        if path != HEALTH and not self._is_known(host):  # probes ask by the address of a container
            what = f"the server does not answer by the name {_name_of(host)!r}; name it by --allow-host"
            return _refusal(path, ApiError(what, status=421, code="host_not_allowed"))
        if method not in _SAFE and not self._is_own(headers, host):
            what = "a browser sends this request for another site; allow a site by --allow-origin"
            return _refusal(path, ApiError(what, status=403, code="origin_not_allowed"))
        if _METADATA in path:
            return ApiError(f"there is nothing at {path}", status=404).response()
        if access.keys and path not in _OPEN and method != "OPTIONS" and not self._has_key(scope, headers):
            if method == "GET" and not path.startswith(API) and "text/html" in headers.get("accept", ""):
                query = scope["query_string"].decode("latin-1")
                return RedirectResponse(f"{LOGIN}?to={quote(f'{path}?{query}' if query else path, safe='/')}", 303)
            what = "the API key is missing or wrong: send it as `Authorization: Bearer KEY`"
            return _refusal(path, ApiError(what, status=401, code="invalid_api_key"))
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > access.max_body:
            return _refusal(path, self._too_large())
        return None

    def _is_known(self, host: str) -> bool:
        """Return whether the server has the name in a ``Host`` header."""
        hosts = self._access.hosts
        return (not host or _name_of(host) != "") if hosts is None else _name_of(host) in hosts

    def _is_own(self, headers: Headers, host: str) -> bool:
        """Return whether a request comes from no other site's page."""
        origin = headers.get("origin")
        if origin is not None and origin in self._access.origins:
            return True
        if headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            return False
        return origin is None or (origin != "null" and _netloc_of(origin) == host)

    def _has_key(self, scope: Scope, headers: Headers) -> bool:
        kind, _, key = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._access.admits(key.strip()):
            return True
        cookie = cookie_parser(headers.get("cookie", "")).get(cookie_name(scope), "")
        return hmac.compare_digest(cookie.encode(), self._access.cookie().encode())

    async def _within_limit(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and stop reading it where it is larger than it may be, or takes longer.

        The application's own answer to that, such as one that calls it a bug, is not sent.
        """
        received, whole, begun = 0, False, False
        refused: ApiError | None = None
        deadline = asyncio.get_running_loop().time() + self._access.body_seconds

        async def receive_some() -> Message:
            nonlocal received, whole, refused
            try:
                async with asyncio.timeout_at(None if whole else deadline):
                    message = await receive()
            except TimeoutError:
                refused = self._too_slow()
                raise BodyRefused from None
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if received > self._access.max_body:
                refused = self._too_large()
                raise BodyRefused
            return message

        async def send_on(message: Message) -> None:
            nonlocal begun
            if begun or refused is None:
                begun = True
                await send(message)

        try:
            await self._app(scope, receive_some, send_on)
        except BodyRefused:
            if begun:
                raise
        except ClientDisconnect:
            return  # while its body was read: nobody reads an answer
        if refused is not None and not begun:
            await _refusal(scope["path"], refused, _CLOSES)(scope, receive, send)

    def _too_slow(self) -> ApiError:
        what = f"the request took longer than {self._access.body_seconds:g} s to arrive"
        return ApiError(what, status=408, code="request_timeout")

    def _too_large(self) -> ApiError:
        what = f"the request is larger than {self._access.max_body} bytes, which --max-body allows"
        return ApiError(what, status=413, code="request_too_large")


_CLOSES: Final = {"connection": "close"}
"""The header of an answer to a request that is not read to its end."""


def _refusal(path: str, error: ApiError, headers: Mapping[str, str] = MappingProxyType({})) -> Response:
    if path.startswith(API):
        return error.response(headers)
    if error.status == 401:
        headers = {**headers, "www-authenticate": "Bearer"}
        return PlainTextResponse(f"{error}, or log in at {LOGIN}\n", 401, headers)
    return PlainTextResponse(f"{error}\n", error.status, headers)


def _name_of(host: str) -> str:
    """Return the name in a ``Host`` header, without its port; an empty text if the header has no name."""
    try:
        return (urlsplit(f"//{host}").hostname or "") if "@" not in host else ""
    except ValueError:
        return ""


def _netloc_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None
