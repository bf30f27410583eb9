"""The pages over HTTP: what they show, what their forms do, who may ask, and how they follow a journal."""

import base64
import hashlib
import json
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from flowrun.journal import open_history
from flowrun.runtime.run_result import InputRequest
from flowrun.serving.gate import COOKIE, Access
from flowrun.serving.pages.login import local_path
from flowrun.serving.pages.reader import mask_request, unmask_arguments
from tests.served import Answer, Pages, served_pages, until
from tests.shop import run_shop
from tests.unit.serving.pages.conftest import Run


def listed(answer: Answer) -> list[str]:
    return re.findall(r'<tr role="row" data-key="([^"]+)"', answer.text)


def text_of(answer: Answer) -> str:
    """Return the text of a page, without its style sheet and script, with single spaces."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", answer.text, flags=re.DOTALL)
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)))


def status_of(journal: Path, run: str) -> str:
    with closing(open_history(journal)) as history:
        return history.run(run).status


def question_of(answer: Answer) -> str:
    found = re.search(r'name="question" value="([^"]+)"', answer.text)
    assert found is not None
    return unescape(found[1])


def ended(pages: Pages, path: str, status: str = "succeeded") -> str:
    """Return the page of a run once it has ended."""
    return pages.wait_for(path, f'<span class="pill s-{status}">{status}</span></h1>')


# --- the list -----------------------------------------------------------------------------------------------------


def test_an_empty_journal(pages: Pages) -> None:
    assert "No durable run is stored here yet" in text_of(pages.get("/"))


def test_the_list_is_searched_and_filtered(run: Run, pages: Pages) -> None:
    asks, refund, slow = run("asks", batch="night"), run("refund"), run("slow", {"seconds": 0})
    found = pages.get("/")
    assert listed(found) == [slow, refund, asks]
    assert "2 runs wait for an answer" in text_of(found)
    assert '<a class="notice n-paused" href="/?status=waiting">' in found.text
    searches = {
        f"/?q={asks[:5]}": [asks],
        "/?q=night+ask": [asks],
        "/?q=nothing": [],
        "/?status=waiting": [refund, asks],
        "/?status=waiting&flow=asks": [asks],
        "/?batch=night": [asks],
        "/?flow=slow&status=succeeded": [slow],
        "/?status=what&before=x": [slow, refund, asks],
        "/?before=2": [asks],
    }
    assert {path: listed(pages.get(path)) for path in searches} == searches
    assert 'value="&lt;b&gt;"' in pages.get("/?q=%3Cb%3E").text
    assert "No run is what you look for." in text_of(pages.get("/?q=nothing"))


def test_a_long_list_has_pages(journal: Path, pages: Pages) -> None:
    with closing(sqlite3.connect(journal)) as connection, connection:
        connection.executemany(
            "INSERT INTO runs (no, id, flow, spec, status, created, ended) VALUES (?, ?, 'f', '', 'failed', 0, 1)",
            [(number, f"r{number:03}") for number in range(1, 121)],
        )
    seen, path = [], "/?flow=f"
    while path:
        page = pages.get(path)
        seen += listed(page)
        link = re.search(r'<a class="button" href="([^"]+)" rel="next">', page.text)
        path = unescape(link[1]) if link else ""
    assert seen == [f"r{number:03}" for number in reversed(range(1, 121))]


# --- the page of a run --------------------------------------------------------------------------------------------


def test_a_run_is_found_by_the_beginning_of_its_id(run: Run, pages: Pages) -> None:
    two = run("two")
    assert pages.get(f"/runs/{two[:6]}").headers["location"] == f"/runs/{two}"
    assert pages.get(f"/runs/{two}.1.0").headers["location"] == f"/runs/{two}#{two}.1.0/1"
    page = pages.get(f"/runs/{two}")
    assert (page.status, len(re.findall(r'<form class="answer"', page.text))) == (200, 2)


@pytest.mark.parametrize("path", ["/runs/nothing", "/what", "/runs/a/b/c", "/runs/a%2Fb"])
def test_what_is_not_there_is_a_page(pages: Pages, path: str) -> None:
    answer = pages.get(path)
    assert (answer.status, "There is no such page" in text_of(answer)) == (404, True)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("path", ["/", "/runs/RUN", "/what"])
def test_nothing_but_its_own_runs_in_a_page(run: Run, pages: Pages, path: str) -> None:
    answer = pages.get(path.replace("RUN", run("asks")))
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    digests = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for tag in ("style", "script")
        for text in re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
    ]
    assert [policy["style-src"], policy["script-src"]] == digests
    assert {name: policy[name] for name in ("default-src", "base-uri", "frame-ancestors")} == dict.fromkeys(
        ("default-src", "base-uri", "frame-ancestors"), "'none'"
    )
    assert (policy["connect-src"], policy["form-action"]) == ("'self'", "'self'")
    headers = ("x-content-type-options", "referrer-policy", "cache-control", "cross-origin-resource-policy")
    assert [answer.headers[name] for name in headers] == ["nosniff", "same-origin", "no-store", "same-origin"]
    assert "http-equiv" not in answer.text


def test_texts_of_models_and_people_stay_texts(run: Run, pages: Pages) -> None:
    run_id = run("asks", {"city": "Ulm</title>\u202e"})
    asks = pages.get(f"/runs/{run_id}")
    assert ("<script>alert(1)" in asks.text, "\u202e" in asks.text) == (False, False)
    assert "How hot is it in Ulm</title>\ufffd? <script>alert(1)</script>" in text_of(asks)
    refund = pages.get(f"/runs/{run('refund')}")
    assert ("<b>account</b>" in refund.text, "to <b>account</b> 12345678" in text_of(refund)) == (False, True)


# --- what people do -----------------------------------------------------------------------------------------------


def answers_of(page: Answer, degrees: str, sure: str = "0") -> dict[str, str]:
    return {"question": question_of(page), "f0": degrees, "f1": sure}


def test_a_question_is_answered_and_its_run_goes_on(run: Run, journal: Path, pages: Pages) -> None:
    path = f"/runs/{run('asks')}"
    page = pages.get(path)
    wrong = pages.post(f"{path}/answers", answers_of(page, "200"))
    assert (wrong.status, 'value="200"' in wrong.text, "200 is greater than" in text_of(wrong)) == (422, True, True)
    done = pages.post(f"{path}/answers", answers_of(page, "31"))
    assert (done.status, done.headers["location"]) == (303, path)
    over = ended(pages, path)
    assert ("<form" in over, "data-changes" in over) == (False, False)
    late = pages.post(f"{path}/answers", answers_of(page, "5"))
    assert late.status == 409
    assert 'was answered already, with {"degrees": 31, "sure": true}: that answer counts' in text_of(late)


def test_a_page_shows_that_its_run_goes_on(run: Run, pages: Pages) -> None:
    path = f"/runs/{run('asks')}"
    page = pages.get(path)
    assert 'http-equiv="refresh"' not in page.text  # it would wipe the form
    pages.post(f"{path}/answers", answers_of(page, "31"))
    going = pages.get(path)
    is_over = '"pill s-succeeded">' in going.text
    assert ('<noscript><meta http-equiv="refresh" content="3"></noscript>' in going.text) != is_over
    assert 'class="answer"' not in going.text
    assert 'http-equiv="refresh"' not in ended(pages, path)


def test_a_call_is_approved_with_other_arguments(run: Run, pages: Pages) -> None:
    path = f"/runs/{run('refund')}"
    page = pages.get(path)
    fields = {"question": question_of(page), "f0": "0", "f1": "45", "f2": "25", "f3": "half of it"}
    assert pages.post(f"{path}/answers", fields).status == 303
    over = ended(pages, path)
    assert re.search(r"<dt>paid</dt><dd>\s*<code class=\"json\"><span class=\"j-other\">25</span>", over) is not None


def test_each_of_two_questions_has_its_form(run: Run, journal: Path, pages: Pages) -> None:
    two = run("two")
    path = f"/runs/{two}"
    for number, text in enumerate(("good", "bad")):
        fields = {"question": f"{two}.1.{number}/1/0", "f0": text}
        assert pages.post(f"{path}/answers", fields).status == 303
    assert "good" in ended(pages, path)


@pytest.mark.parametrize("question", ["", "a/b", "RUN/9/9", "RUN/1/x", "other/1/0"])
def test_a_form_of_no_question_answers_none(run: Run, pages: Pages, question: str) -> None:
    asks = run("asks")
    answer = pages.post(f"/runs/{asks}/answers", {"question": question.replace("RUN", asks), "f0": "1", "f1": "0"})
    assert (answer.status, 'class="answer"' in answer.text) == (409, True)


def test_a_run_is_cancelled(run: Run, journal: Path, pages: Pages) -> None:
    asks = run("asks")
    page = pages.get(f"/runs/{asks}")
    assert '<details class="confirm" id="cancel" data-keep>' in page.text
    assert pages.post(f"/runs/{asks}/cancel", {"reason": "not <b>needed</b>"}).status == 303
    over = ended(pages, f"/runs/{asks}", "cancelled")
    assert "not &lt;b&gt;needed&lt;/b&gt;" in over
    again = pages.post(f"/runs/{asks}/cancel")
    assert (again.status, "has ended: cancelled" in text_of(again)) == (409, True)


def killed(shop: Path, journal: Path, marker: Path) -> str:
    """Return the id of a run whose process was killed while it made a call."""
    command = [sys.executable, "-m", "flowrun", "doubt.yaml", "--durable", "--journal", str(journal), "-q"]
    done = subprocess.run([*command, "-i", f"marker={marker}"], cwd=shop, capture_output=True, timeout=60, check=False)
    assert done.returncode == -9
    with closing(open_history(journal)) as history:
        return next(history.runs()).id


def test_an_interrupted_run_is_resumed_and_its_call_in_doubt_resolved(
    shop: Path, journal: Path, tmp_path: Path
) -> None:
    doubt = killed(shop, journal, tmp_path / "marker")
    path = f"/runs/{doubt}"
    with served_pages(journal) as pages:
        assert "1 run was interrupted" in text_of(pages.get("/"))
        page = pages.get(path)
        assert "nobody knows whether it did" in text_of(page)
        call = re.findall(r'name="call" value="([^"]+)"', page.text)
        assert call == [f"{doubt}/1/0"]
        wrong = pages.post(f"{path}/doubts", {"call": call[0], "how": "done", "value": '{"a": '})
        assert (wrong.status, "This is no JSON" in text_of(wrong), '{"a": </textarea>' in unescape(wrong.text)) == (
            422,
            True,
            True,
        )
        other = pages.post(f"{path}/doubts", {"call": "x", "how": "done", "value": "1"})
        assert (other.status, "This call is in doubt no more." in text_of(other)) == (409, True)
        assert pages.post(f"{path}/doubts", {"call": call[0], "how": "done", "value": '"paid <i>"'}).status == 303
        assert "paid &lt;i&gt;" in ended(pages, path)
        assert pages.post(f"{path}/resume").status == 409


def test_a_call_in_doubt_is_made_again(shop: Path, journal: Path, tmp_path: Path) -> None:
    doubt = killed(shop, journal, tmp_path / "marker")
    with served_pages(journal) as pages:
        assert pages.post(f"/runs/{doubt}/doubts", {"how": "again"}).status == 303
        assert "paid again" in ended(pages, f"/runs/{doubt}")


def test_why_a_run_cannot_be_resumed_is_on_its_page(shop: Path, journal: Path, tmp_path: Path) -> None:
    asks = run_shop(shop, journal, "asks")
    with closing(sqlite3.connect(journal)) as connection, connection:  # its process has ended
        connection.execute("UPDATE runs SET status = 'running'")
        [(body,)] = connection.execute("SELECT body FROM specs").fetchall()
        connection.execute("UPDATE specs SET body = ?", (body.replace("shop_tools:work", "shop_tools:gone"),))
    with served_pages(journal) as pages:
        assert pages.post(f"/runs/{asks}/resume").status == 303
        page = pages.wait_for(f"/runs/{asks}", "The run was not resumed")
        assert "no function &#39;gone&#39;" in page


@pytest.mark.parametrize("name", ["answers", "cancel", "resume", "doubts"])
def test_the_address_of_a_form_leads_back_to_its_run(run: Run, pages: Pages, name: str) -> None:
    asks = run("asks")
    answer = pages.get(f"/runs/{asks}/{name}")
    assert (answer.status, answer.headers["location"]) == (303, f"/runs/{asks}")


def test_a_damaged_run_says_so(run: Run, journal: Path, pages: Pages) -> None:
    asks = run("asks")
    with closing(sqlite3.connect(journal)) as connection, connection:
        connection.execute("DELETE FROM events")
    answer = pages.get(f"/runs/{asks}")
    assert (answer.status, "This run is damaged" in text_of(answer)) == (200, True)
    assert "damaged" in text_of(pages.get("/"))


# --- who may ask --------------------------------------------------------------------------------------------------


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
        refused = pages.get("/?q=a&status=waiting")
        login = refused.headers["location"]
        assert (refused.status, login) == (303, f"/login?to={quote('/?q=a&status=waiting', safe='/')}")
        assert pages.post(f"/runs/{asks}/cancel").status == 303
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
        assert cookie == f"{COOKIE}={access.cookie()}"
        assert {"HttpOnly", "SameSite=strict", "Path=/"} < set(attributes)
        assert "Secure" not in attributes
        behind = pages.post("/login", {"key": "key2"}, X_Forwarded_Proto="https").headers["set-cookie"]
        assert "Secure" in behind.split("; ")
        page = pages.get("/", Cookie=cookie)
        assert (listed(page), "Log out" in text_of(page)) == ([asks], True)
        assert pages.get("/", Authorization="Bearer key2").status == 200
        out = pages.post("/logout", Cookie=cookie)
        assert (out.headers["location"], f'{COOKIE}=""' in out.headers["set-cookie"]) == ("/login", True)
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


# --- secrets ------------------------------------------------------------------------------------------------------

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


# --- following ----------------------------------------------------------------------------------------------------


def versions(response: Any) -> list[str]:
    """Return the versions that a stream sends until it ends."""
    return [line.removeprefix("data: ") for line in response.read().decode().splitlines() if line.startswith("data: ")]


def version_of(page: Answer) -> str:
    found = re.search(r'data-version="([0-9a-f]+)"', page.text)
    assert found is not None
    return found[1]


@pytest.mark.parametrize("path", ["/", "/runs/RUN"])
def test_a_stream_says_that_something_has_changed_and_ends_with_the_server(run: Run, pages: Pages, path: str) -> None:
    asks = run("asks")
    page = pages.get(path.replace("RUN", asks))
    found = re.search(r'data-changes="([^"]+)"', page.text)
    assert found is not None
    with pages.open("GET", f"{found[1]}?since={version_of(page)}") as response:
        assert response.getheader("content-type") == "text/event-stream; charset=utf-8"
        assert response.readline() == b"retry: 3000\n"
        pages.post(f"/runs/{asks}/cancel")
        until(lambda: response.readline().startswith(b"data: ") or None)
        newest = version_of(pages.get(path.replace("RUN", asks)))
        pages.drain()
        left = versions(response)
    assert newest != version_of(page)
    assert left in ([], [newest])


def test_a_stream_begins_with_what_was_missed(run: Run, pages: Pages) -> None:
    asks = run("asks")
    with pages.open("GET", f"/runs/{asks}/changes?since=old") as response:
        pages.drain()
        assert versions(response) in ([], [version_of(pages.get(f"/runs/{asks}"))])


def test_the_stream_of_a_run_ends_with_it(run: Run, pages: Pages) -> None:
    slow = run("slow", {"seconds": 0})
    newest = version_of(pages.get(f"/runs/{slow}"))
    with pages.open("GET", f"/runs/{slow}/changes?since=old") as response:
        assert versions(response) == [newest]
    assert pages.get(f"/runs/{slow}/changes", Last_Event_ID=newest).status == 204
