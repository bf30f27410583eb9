"""What tests read of pages."""

import re
from contextlib import closing
from html import unescape
from pathlib import Path

from flowrun.journal import open_history
from tests.served import Answer, Pages


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


def answers_of(page: Answer, degrees: str, sure: str = "0") -> dict[str, str]:
    return {"question": question_of(page), "f0": degrees, "f1": sure}
