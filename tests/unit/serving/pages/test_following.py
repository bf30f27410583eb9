"""How a page follows a journal: the stream that says that something has changed."""

import re
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from tests.served import Answer, Pages, until
from tests.unit.serving.pages.conftest import Run


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
