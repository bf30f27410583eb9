"""What people do with a run over HTTP: its questions, its calls in doubt, its end."""

import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from html import unescape
from pathlib import Path

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from flowrun.journal import open_history
from tests.served import Pages, served_pages
from tests.shop import run_shop
from tests.unit.serving.pages.conftest import Run
from tests.unit.serving.pages.page_texts import answers_of, ended, question_of, status_of, text_of


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
    assert is_over or '<noscript><meta http-equiv="refresh" content="3"></noscript>' in going.text
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


@pytest.mark.parametrize(
    "question", ["", "a/b", "RUN/9/9", "RUN/1/x", "other/1/0", f"RUN/1/{'9' * 5000}"], ids=lambda text: text[:9]
)
def test_a_form_of_no_question_answers_none(run: Run, pages: Pages, question: str) -> None:
    asks = run("asks")
    answer = pages.post(f"/runs/{asks}/answers", {"question": question.replace("RUN", asks), "f0": "1", "f1": "0"})
    assert (answer.status, 'class="answer"' in answer.text) == (409, True)


@pytest.mark.parametrize("form", ["answers", "cancel", "resume", "doubts"])
def test_a_form_names_its_run_by_the_whole_id(run: Run, journal: Path, pages: Pages, form: str) -> None:
    asks = run("asks")
    fields = answers_of(pages.get(f"/runs/{asks}"), "31")
    refused = pages.post(f"/runs/{asks[:-1]}/{form}", fields)
    assert (refused.status, f"there is no run '{asks[:-1]}'" in text_of(refused)) == (404, True)
    assert status_of(journal, asks) == "waiting"
    assert pages.get(f"/runs/{asks[:-1]}").headers["location"] == f"/runs/{asks}"


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
