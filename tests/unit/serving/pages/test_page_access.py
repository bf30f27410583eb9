"""Who may see the pages, and what nobody sees: other sites, keys, secrets."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from flowrun.runtime.run_result import InputRequest
from flowrun.serving.answers import mask_request, unmask_arguments
from flowrun.serving.gate import Access
from flowrun.serving.pages.login import local_path
from tests.served import Pages, served_pages
from tests.shop import run_shop
from tests.unit.serving.pages.conftest import Run
from tests.unit.serving.pages.page_texts import answers_of, ended, listed, status_of, text_of


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_another_site_does_nothing(run: Run, journal: Path, pages: Pages, headers: dict[str, str]) -> None:
    asks = run("asks")
    page = pages.get(f"/runs/{asks}")
    for path, fields in (("answers", answers_of(page, "31")), ("cancel", {}), ("resume", {}), ("doubts", {})):
        assert pages.post(f"/runs/{asks}/{path}", fields, **headers).status == 403
    assert status_of(journal, asks) == "waiting"


def test_another_name_of_the_server_shows_nothing(run: Run, pages: Pages) -> None:
    answer = pages.get(f"/runs/{run('asks')}", Host="evil.example:80")
    assert (answer.status, "Dallas" in answer.text) == (421, False)


def test_a_browser_logs_in_by_a_key(run: Run, journal: Path) -> None:
    asks = run("asks")
    access = Access(keys=("secret key 1", "key2"))
    with served_pages(journal, access) as pages:
        refused = pages.get("/?q=a&status=waiting", Accept="text/html")
        login = refused.headers["location"]
        assert (refused.status, login) == (303, f"/login?to={quote('/?q=a&status=waiting', safe='/')}")
        assert pages.post(f"/runs/{asks}/cancel").status == 401
        assert 'name="to" value="/?q=a&amp;status=waiting"' in pages.get(login).text
        wrong = pages.post("/login", {"key": "key3", "to": "/"})
        assert (wrong.status, "none of the server" in text_of(wrong), "set-cookie" in wrong.headers) == (
            422,
            True,
            False,
        )
        right = pages.post("/login", {"key": "key2", "to": "/?q=a"})
        assert (right.status, right.headers["location"]) == (303, "/?q=a")
        cookie, *attributes = right.headers["set-cookie"].split("; ")
        assert cookie == f"flowrun-{urlsplit(pages.address).port}={access.cookie()}"
        assert {"HttpOnly", "SameSite=strict", "Path=/"} < set(attributes)
        assert "Secure" not in attributes
        behind = pages.post("/login", {"key": "key2"}, X_Forwarded_Proto="https").headers["set-cookie"]
        assert "Secure" in behind.split("; ")
        page = pages.get("/", Cookie=cookie)
        assert (listed(page), "Log out" in text_of(page)) == ([asks], True)
        assert pages.get("/", Authorization="Bearer key2").status == 200
        out = pages.post("/logout", Cookie=cookie)
        assert (out.headers["location"], f'{cookie.partition("=")[0]}=""' in out.headers["set-cookie"]) == (
            "/login",
            True,
        )
    assert status_of(journal, asks) == "waiting"


def test_without_keys_nobody_logs_in(pages: Pages) -> None:
    assert [pages.get("/login").headers["location"], pages.post("/login", {"to": "/?q=a"}).status] == ["/", 303]


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("/runs/a?b=c&d", "/runs/a?b=c&d"),
        ("/", "/"),
        *(
            (text, "/")
            for text in ("", "//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil", "/é", "/ ")
        ),
    ],
    ids=ascii,
)
def test_a_login_leads_to_this_server_only(given: str, path: str) -> None:
    assert local_path(given) == path


SECRET = "sk-very-secret-value"

TELLS = """\
flowrun: v1
name: tells
version: 1.0.0
inputs: {text: {type: string}}
model: {backend: openai, name: m, base_url: "http://127.0.0.1:9", api_key: "${SHOP_KEY}"}
states:
  ask:
    type: wait
    prompt: "Is {{ inputs.text }} the key?"
    schema: {type: object, properties: {ok: {type: boolean, description: "about KEY"}}, required: [ok]}
    routes: [{when: outputs.ask.ok, to: done}, {to: say}]
  say: {type: chat, next: done}
  done: {type: end}
"""


class Models(BaseHTTPRequestHandler):
    """A server of models that has one."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"object": "list", "data": [{"id": "m"}]}')

    def log_message(self, *args: Any) -> None:
        """Log nothing."""


@pytest.fixture
def models() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Models) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_secrets_are_masked(shop: Path, journal: Path, models: str) -> None:
    (shop / "tells.yaml").write_text(TELLS.replace("http://127.0.0.1:9", models))
    environ = {"SHOP_KEY": SECRET}
    run = run_shop(shop, journal, "tells", {"text": SECRET}, environ=environ)
    with served_pages(journal, environ=environ) as pages:
        page = pages.get(f"/runs/{run}")
        assert (SECRET in page.text, "Is ${SHOP_KEY} the key?" in text_of(page)) == (False, True)
        pages.post(f"/runs/{run}/cancel", {"reason": f"it was {SECRET}"})
        assert SECRET not in ended(pages, f"/runs/{run}", "cancelled")


def test_a_secret_in_an_argument_is_not_lost_by_its_mask() -> None:
    arguments: dict[str, Any] = {"url": f"http://a/{SECRET}", "n": 1, "list": [SECRET, "b"], "plain": "${SHOP_KEY}"}
    ask = InputRequest(
        id="r/1/0",
        run="r",
        state="pay",
        prompt=f"Call with {SECRET}?",
        schema={"default": arguments},
        call={"id": "c", "name": "f", "arguments": arguments, "hidden": {}},
    )
    secrets = {SECRET: "${SHOP_KEY}"}
    shown = mask_request(ask, secrets)
    assert SECRET not in json.dumps([shown.prompt, shown.schema, shown.call])
    assert shown.call is not None
    edited = {**shown.call["arguments"], "n": 2, "new": "${SHOP_KEY}"}
    answer = unmask_arguments({"ok": True, "arguments": edited, "reason": "${SHOP_KEY}"}, ask, secrets)
    assert answer == {"ok": True, "arguments": {**arguments, "n": 2, "new": "${SHOP_KEY}"}, "reason": "${SHOP_KEY}"}
