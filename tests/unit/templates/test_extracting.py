"""Filters that take values out of a text."""

from typing import Any

import pytest

from flowrun.templates import TemplateError, compile_expression
from flowrun.templates.reads import reads_of_expression


@pytest.mark.parametrize(
    ("text", "expression", "value"),
    [
        pytest.param("a1b22", "text | findall('[0-9]+')", ["1", "22"], id="all matches"),
        pytest.param("a=1, b=2", "text | findall('([a-z])=')", ["a", "b"], id="one group"),
        pytest.param("a=1, b=2", "text | findall('([a-z])=([0-9])')", [["a", "1"], ["b", "2"]], id="two groups"),
        pytest.param("none", "text | findall('[0-9]+')", [], id="no match"),
        pytest.param("Ä ä", "text | findall('(?i)ä')", ["Ä", "ä"], id="a flag, and letters beyond ASCII"),
        pytest.param("<a>x</a><a>y</a>", "text | between('<a>', '</a>')", "x", id="the first"),
        pytest.param("<a>x", "text | between('<a>', '</a>')", "", id="not closed"),
        pytest.param("x</a>", "text | between('<a>', '</a>')", "", id="not opened"),
        pytest.param("</a><a>x</a>", "text | between('<a>', '</a>')", "x", id="the end behind the start"),
        pytest.param('{"a": [1, null]}', "text | from_json", {"a": [1, None]}, id="JSON"),
        pytest.param("```", "text | from_json('no')", "no", id="a default"),
        pytest.param("```", "text | from_json(none)", None, id="none as default"),
        pytest.param("5", "(text | from_json) + 1", 6, id="a number"),
    ],
)
def test_values(text: str, expression: str, value: Any) -> None:
    assert compile_expression(expression)({"text": text}) == value


@pytest.mark.parametrize(
    ("expression", "error"),
    [
        ("text | from_json", "from_json: 'x' is no JSON: "),
        ('\'{"a": 1, "a": 2}\' | from_json', "the key 'a' is there twice"),
        ("'NaN' | from_json", "NaN is no JSON number"),
        ("text | findall('(')", "findall: '(' is no regular expression: missing ): ("),
        ("text | findall('(?=x)')", "is no regular expression"),
        ("text | findall(5)", "findall: the pattern must be a text, and is 5"),
        ("text | findall('x' * 1001)", "findall: the pattern has more than 1,000 characters"),
        ("text | between(1, 2)", "between: write the two texts"),
    ],
)
def test_errors(expression: str, error: str) -> None:
    with pytest.raises(TemplateError) as caught:
        compile_expression(expression)({"text": "x"})
    assert error in str(caught.value)


def test_no_pattern_holds_up_a_run() -> None:
    assert compile_expression("text | findall('(a+)+$')")({"text": "a" * 100_000 + "b"}) == []


def test_a_long_text_costs_units() -> None:
    with pytest.raises(TemplateError, match="it takes more than 1,000,000 steps"):
        compile_expression("numbers | map('string') | map('findall', '.') | list | length")(
            {"numbers": ["a" * 100_000] * 50}
        )


def test_a_pattern_is_checked_before_a_run() -> None:
    reads_of_expression("text | findall('[0-9]')")
    with pytest.raises(TemplateError, match="no regular expression"):
        reads_of_expression("text | findall('[0-9')")
