"""The page of a run over HTTP: found by its id, with the headers of all pages, and no text of a run as markup."""

import base64
import hashlib
import re

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from tests.served import Pages
from tests.unit.serving.pages.conftest import Run
from tests.unit.serving.pages.page_texts import text_of


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
