"""The list of runs over HTTP: searched, filtered, a page at a time."""

import re
import sqlite3
from contextlib import closing
from html import unescape
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from tests.served import Pages
from tests.unit.serving.pages.conftest import Run
from tests.unit.serving.pages.page_texts import listed, text_of


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
