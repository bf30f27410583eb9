"""The ids of questions, which people and programs write."""

import re

import pytest

from flowrun.errors import UsageError
from flowrun.journal.questions import parse_question_id


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        pytest.param("r/3/0", ("r", 3, 0), id="of a run"),
        pytest.param("r.4.0/12/1", ("r.4.0", 12, 1), id="of a child run"),
    ],
)
def test_the_parts_of_an_id(text: str, parts: tuple[str, int, int]) -> None:
    assert parse_question_id(text) == parts


@pytest.mark.parametrize(
    "text",
    ["", "r", "r/1", "/1/0", "r/1/0/0", "r/1/x", "r/-1/0", "r/1/0\n", "r/٣/0", f"r/1/{'9' * 5000}"],
    ids=lambda text: ascii(text[:12]),
)
def test_what_is_no_id(text: str) -> None:
    """The last one has more digits than Python turns into a number."""
    with pytest.raises(UsageError, match=r"is no id of a question, such as RUN/3/0$") as caught:
        parse_question_id(text)
    assert len(str(caught.value)) < 140
    assert re.match("'.*'", str(caught.value))
