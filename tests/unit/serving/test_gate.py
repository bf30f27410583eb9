"""Who may ask a server for what: by the name of the server, the site that asks, the key and the size."""

import asyncio
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowrun.serving.app import guarded
from flowrun.serving.gate import Access

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
LOCAL = Access()
KEYED = Access(keys=("one", "two"))
PUBLIC = Access(keys=("one",), hosts=None)
HTML = "text/html,application/xhtml+xml,*/*;q=0.8"
OWN = f"flowrun-8765={KEYED.cookie()}"
SITE = Access(origins=frozenset({"https://chat.example.com"}))


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(f"{len(body)} bytes")(scope, receive, send)


async def _call(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    await app(scope, receive, send)


def ask(
    access: Access,
    method: str,
    path: str,
    headers: Mapping[str, str] = NO_HEADERS,
    *,
    body: bytes = b"",
    ends: bool = True,
) -> tuple[int, dict[str, str], str]:
    """Return the status, the headers and the text of the answer to a request in two pieces.

    Args:
        ends: the second piece comes.
    """
    given = {"host": "127.0.0.1:8765", **{name.replace("_", "-"): value for name, value in headers.items()}}
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "server": ("127.0.0.1", 8765),
        "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }
    half = len(body) // 2
    pieces = [(body[:half], True), (body[half:], False)]
    sent: list[Message] = []

    async def receive() -> Message:
        if not ends and len(pieces) == 1:
            await asyncio.Event().wait()
        piece, more = pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": more}

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(_call(guarded(app, access), scope, receive, send))
    came = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], came, b"".join(message.get("body", b"") for message in sent[1:]).decode()


@pytest.mark.parametrize(
    ("access", "method", "path", "headers", "status"),
    [
        pytest.param(LOCAL, "POST", "/v1/x", {}, 200, id="a program"),
        pytest.param(LOCAL, "GET", "/v1/x", {"host": "localhost"}, 200, id="localhost"),
        pytest.param(LOCAL, "GET", "/v1/x", {"host": "[::1]:8765"}, 200, id="IPv6"),
        pytest.param(LOCAL, "GET", "/v1/x", {"host": "evil.example:8765"}, 421, id="DNS rebinding"),
        pytest.param(LOCAL, "GET", "/", {"host": "evil.example"}, 421, id="DNS rebinding of pages"),
        pytest.param(LOCAL, "GET", "/", {"host": "evil@127.0.0.1"}, 421, id="a name with a user"),
        pytest.param(LOCAL, "GET", "/", {"host": "127.0.0.1.evil.example"}, 421, id="a longer name"),
        pytest.param(LOCAL, "GET", "/", {"host": ""}, 421, id="no name"),
        pytest.param(PUBLIC, "GET", "/", {"host": "any.example", "authorization": "Bearer one"}, 200, id="any name"),
        pytest.param(LOCAL, "POST", "/x", {"origin": "http://127.0.0.1:8765"}, 200, id="an own page"),
        pytest.param(LOCAL, "POST", "/x", {"origin": "https://127.0.0.1:8765"}, 200, id="behind a proxy with TLS"),
        pytest.param(LOCAL, "POST", "/x", {"origin": "http://127.0.0.1:3000"}, 403, id="another port"),
        pytest.param(LOCAL, "POST", "/v1/x", {"origin": "https://evil.example"}, 403, id="another site"),
        pytest.param(LOCAL, "POST", "/x", {"origin": "null"}, 403, id="a hidden site"),
        pytest.param(LOCAL, "POST", "/x", {"sec_fetch_site": "cross-site"}, 403, id="another site without origin"),
        pytest.param(LOCAL, "DELETE", "/mcp", {"sec_fetch_site": "same-site"}, 403, id="a neighbour"),
        pytest.param(LOCAL, "POST", "/x", {"sec_fetch_site": "same-origin"}, 200, id="a form"),
        pytest.param(LOCAL, "GET", "/", {"sec_fetch_site": "cross-site"}, 200, id="a link from another site"),
        pytest.param(SITE, "POST", "/v1/x", {"origin": "https://chat.example.com"}, 200, id="an allowed site"),
        pytest.param(SITE, "POST", "/v1/x", {"origin": "http://chat.example.com"}, 403, id="allowed with TLS only"),
        pytest.param(KEYED, "GET", "/v1/x", {}, 401, id="no key"),
        pytest.param(KEYED, "GET", "/v1/x", {"authorization": "Bearer two"}, 200, id="a key"),
        pytest.param(KEYED, "GET", "/v1/x", {"authorization": "bearer  two "}, 200, id="a key with spaces"),
        pytest.param(KEYED, "GET", "/mcp", {"authorization": "Bearer three"}, 401, id="a wrong key"),
        pytest.param(KEYED, "GET", "/v1/x", {"authorization": "Basic two"}, 401, id="another scheme"),
        pytest.param(KEYED, "GET", "/", {"accept": HTML}, 303, id="a page without a key"),
        pytest.param(KEYED, "GET", "/register", {"accept": "*/*"}, 401, id="a program without a key"),
        pytest.param(KEYED, "POST", "/runs/a/cancel", {"accept": HTML}, 401, id="a form without a key"),
        pytest.param(KEYED, "GET", "/", {"cookie": OWN}, 200, id="a cookie"),
        pytest.param(KEYED, "GET", "/", {"cookie": f"a b=1; c={{1}}; é; {OWN}"}, 200, id="a cookie beside others"),
        pytest.param(KEYED, "GET", "/", {"cookie": f"flowrun-8766={KEYED.cookie()}"}, 401, id="that of another port"),
        pytest.param(KEYED, "GET", "/", {"cookie": f"flowrun-8765={PUBLIC.cookie()}"}, 401, id="that of other keys"),
        pytest.param(KEYED, "GET", "/", {"cookie": "=;;=\x01"}, 401, id="a cookie that is none"),
        pytest.param(LOCAL, "GET", "/", {"host": "["}, 421, id="a host that is none"),
        pytest.param(PUBLIC, "GET", "/health", {"host": "["}, 200, id="health is asked by any name"),
        pytest.param(PUBLIC, "GET", "/x", {"host": "[", "authorization": "Bearer one"}, 421, id="any name is a name"),
        pytest.param(LOCAL, "GET", "/health", {"host": "10.0.0.7:8765"}, 200, id="a probe by address"),
        pytest.param(LOCAL, "POST", "/x", {"origin": "http://["}, 403, id="an origin that is none"),
        pytest.param(KEYED, "GET", "/.well-known/oauth-protected-resource/mcp", {}, 404, id="no metadata"),
        pytest.param(LOCAL, "GET", "/.well-known/openid-configuration", {}, 404, id="no metadata without keys"),
        pytest.param(KEYED, "GET", "/health", {}, 200, id="health needs no key"),
        pytest.param(KEYED, "GET", "/login", {}, 200, id="nor does the page that takes it"),
    ],
)
def test_a_request_passes_or_not(access: Access, method: str, path: str, headers: dict[str, str], status: int) -> None:
    assert ask(access, method, path, headers)[0] == status


def test_the_api_is_refused_in_its_own_form() -> None:
    status, headers, text = ask(KEYED, "POST", "/v1/chat/completions")
    assert (status, headers["www-authenticate"], headers["x-should-retry"]) == (401, "Bearer", "false")
    error = json.loads(text)["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
    assert ask(KEYED, "GET", "/runs/a/b", {"accept": HTML})[1]["location"].startswith("/login?to=/runs/a/b")
    _, headers, text = ask(KEYED, "POST", "/register")
    assert (headers["www-authenticate"], text.endswith("or log in at /login\n")) == ("Bearer", True)
    assert "error" in json.loads(ask(KEYED, "GET", "/.well-known/oauth-authorization-server")[2])


@pytest.mark.parametrize(
    ("size", "headers", "answer"),
    [
        pytest.param(10, {}, (200, "10 bytes"), id="as large as it may be"),
        pytest.param(11, {"content_length": "11"}, (413, "larger than 10 bytes"), id="it says so"),
        pytest.param(11, {}, (413, "larger than 10 bytes"), id="it does not say so"),
        pytest.param(11, {"content_length": "x"}, (413, "larger than 10 bytes"), id="it says nonsense"),
    ],
)
def test_a_request_that_is_too_large_is_not_read(size: int, headers: dict[str, str], answer: tuple[int, str]) -> None:
    status, _, text = ask(Access(max_body=10), "POST", "/v1/x", headers, body=b"x" * size)
    assert status == answer[0]
    assert answer[1] in text


@pytest.mark.parametrize("path", ["/v1/x", "/login"])
def test_a_request_that_comes_too_slowly_is_not_read(path: str) -> None:
    status, headers, text = ask(Access(body_seconds=0.05), "POST", path, body=b"xx", ends=False)
    assert (status, headers["connection"]) == (408, "close")
    assert "the request took longer than 0.05 s to arrive" in text


def test_who_leaves_before_its_request_is_whole_is_no_bug() -> None:
    received: list[Message] = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]
    scope = {"type": "http", "method": "POST", "path": "/x", "query_string": b"", "headers": [(b"host", b"localhost")]}

    async def receive() -> Message:
        return received.pop(0)

    async def send(message: Message) -> None:
        raise AssertionError("nobody reads this")

    asyncio.run(_call(guarded(app, LOCAL), scope, receive, send))
    assert received == []


def test_scripts_of_an_allowed_site_may_read_answers() -> None:
    asked = {"origin": "https://chat.example.com", "access_control_request_method": "POST"}
    status, headers, _ = ask(SITE, "OPTIONS", "/v1/chat/completions", asked)
    assert (status, headers["access-control-allow-origin"]) == (200, "https://chat.example.com")
    _, headers, _ = ask(SITE, "POST", "/v1/chat/completions", {"origin": "https://chat.example.com"})
    assert headers["access-control-allow-origin"] == "https://chat.example.com"
    _, headers, _ = ask(LOCAL, "OPTIONS", "/v1/chat/completions", asked)
    assert "access-control-allow-origin" not in headers


def test_keys_are_in_no_representation() -> None:
    assert "one" not in repr(KEYED)
