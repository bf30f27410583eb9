"""A syntax error of either parser is reported as the author's most likely mistake."""

import pytest
import yaml

from flowrun.spec.yaml import composer
from flowrun.spec.yaml.reader import MAX_REPAIRS, read_yaml


@pytest.fixture(params=["CSafeLoader", "SafeLoader"], autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with the parser in C, and with the one in Python."""
    monkeypatch.setattr(composer, "_Loader", getattr(yaml, request.param))


def reported(text: str) -> list[tuple[str, str, str]]:
    document = read_yaml(text, "f")
    return [
        (f"{issue.place.line}:{issue.place.column} {issue.code}", issue.message, issue.remedy)
        for issue in document.issues
    ]


QUOTE_STARTS = {
    "@": "@b c",
    "`": "`b`",
    "%": "%b",
    "*": "**bold** text",
    "&": "& more",
    ">": "> 5 items",
    "|": "| a | b |",
    "?": "?",
}


@pytest.mark.parametrize("start", QUOTE_STARTS)
def test_a_text_that_begins_with_a_special_character_must_be_quoted(start: str) -> None:
    value = QUOTE_STARTS[start]
    assert reported(f"a: {value}  # why\n") == [
        ("1:4 FR103", f"a text that begins with {start} must be quoted", f'write "{value}"')
    ]


@pytest.mark.parametrize(
    ("text", "place", "message", "remedy"),
    [
        pytest.param(
            "a:\n\tb: 1\n\tc: 2\n\td: 3\n",
            "2:1 FR102",
            "the line is indented with a tab, and so are 2 more below",
            "indent with spaces only; YAML allows no tabs",
            id="tab",
        ),
        pytest.param(
            "a:\n  b: 1\n\tc: 2\n",
            "3:1 FR102",
            "the line is indented with a tab",
            "indent with spaces only; YAML allows no tabs",
            id="tab after a value",
        ),
        pytest.param(
            "a: Note: this\n",
            "1:4 FR103",
            "a text with a colon and a space in it must be quoted",
            'write "Note: this"',
            id="colon in a text",
        ),
        pytest.param(
            'a: say "b: c"\n',
            "1:4 FR103",
            "a text with a colon and a space in it must be quoted",
            "write 'say \"b: c\"'",
            id="colon and quotes in a text",
        ),
        pytest.param(
            "a: b\n  c: d\n",
            "2:3 FR105",
            "the line is indented as if it belonged to line 1, which has a value already",
            "indent it as far as line 1, or quote the text if it continues over both lines",
            id="indented below a value",
        ),
        pytest.param(
            "a:\n    b: 1\n  c: 2\n",
            "3:3 FR105",
            "the line begins in column 3, where nothing above it begins",
            "indent it exactly as far as the lines that it belongs with",
            id="half indented",
        ),
        pytest.param(
            "  a: 1\nb: 2\n",
            "2:1 FR105",
            "the line begins in column 1, where nothing above it begins",
            "indent it exactly as far as the lines that it belongs with",
            id="first line indented",
        ),
        pytest.param(
            "a:\n  - b\n  c: 1\n",
            "3:3 FR105",
            "this is a key among the items of a list",
            "indent it as far as the key that the list belongs to",
            id="key among items",
        ),
        pytest.param(
            "a:\n  c: 1\n  - b\n",
            "3:3 FR105",
            "this is a list item among the keys of a mapping",
            "indent it below the key that it belongs to",
            id="item among keys",
        ),
        pytest.param(
            "a: 1\nb\nc: 2\n",
            "2:1 FR106",
            "the line has no colon",
            "write it as 'key: value', or as '- item' in a list",
            id="no colon",
        ),
        pytest.param(
            "a: 1\nb #: 2\nc: 2\n",
            "2:1 FR106",
            "the line has no colon",
            "write it as 'key: value', or as '- item' in a list",
            id="colon in a comment",
        ),
        pytest.param(
            "a:1\nb: 2\n", "1:1 FR106", "there is no space after the colon", "write a: 1", id="no space after the colon"
        ),
        pytest.param(
            "a: 'b\nc: d\n",
            "1:4 FR107",
            "the single quote that opens here is never closed",
            "close it, or delete it",
            id="open quote",
        ),
        pytest.param(
            "a: [b, c\nd: e\n",
            "1:4 FR107",
            "a comma or the closing ] of this [ is missing",
            "add the ], or quote the text",
            id="open bracket",
        ),
        pytest.param(
            "a: {b: c, d: e]\n",
            "1:15 FR107",
            "a comma or } is missing before this",
            "the { stands in column 4",
            id="wrong bracket",
        ),
        pytest.param(
            "a: [",
            "1:5 FR107",
            "a list or mapping in brackets is not closed",
            "close it with ] or }, or quote the text",
            id="bracket at the end",
        ),
        pytest.param(
            "a: ]\n", "1:4 FR107", "this ] closes nothing", "delete it, or quote the text", id="closing bracket"
        ),
        pytest.param(
            "a: [b,,c]\n",
            "1:7 FR107",
            "there is nothing before this comma",
            "delete it, or quote the text",
            id="two commas",
        ),
        pytest.param(
            "a: [\n  - b]\n",
            "2:3 FR107",
            "an item inside of [ ] is written without '-'",
            "delete the '-', or the [ above",
            id="dash in brackets",
        ),
        pytest.param(
            'a: "\\d+"\n',
            "1:5 FR108",
            "\\d is not an escape of a double-quoted text",
            "write \\\\d, or use single quotes, in which a backslash is just a backslash",
            id="escape",
        ),
        pytest.param(
            "a: 'b' c\n",
            "1:8 FR103",
            "there is text after the closing quote",
            "put the whole text between quotes; inside of single quotes, write '' for a quote",
            id="text after a quote",
        ),
        pytest.param(
            "a: {b: c} d\n",
            "1:11 FR103",
            "there is text after the closing }",
            "delete it, or quote the whole text",
            id="text after a brace",
        ),
        pytest.param(
            "a: - b\n",
            "1:4 FR103",
            "a list cannot begin on the line of its key",
            "put every '- item' on a line of its own; if it is meant as a text, quote it",
            id="list on the line",
        ),
        pytest.param(
            "%foo\na: b\n", "1:1 FR103", "a line must not begin with %", "quote it, or delete the line", id="directive"
        ),
        pytest.param(
            "a: {b: ${LEN:-4}}\n",
            "1:8 FR103",
            "${LEN:-4} must be quoted inside of { } and [ ]",
            'write "${LEN:-4}", or, if it has to be a number, write the mapping on lines of its own',
            id="variable in braces",
        ),
        pytest.param(
            "a: !e!x 1\n",
            "1:4 FR118",
            "the value has an explicit tag",
            "delete the tag, or quote the text",
            id="tag of nowhere",
        ),
        pytest.param(
            "a: 1\n...\nb: 1\n",
            "3:1 FR113",
            "the file continues after its end, which the line '...' marks",
            "delete the line '...'",
            id="after the end",
        ),
        pytest.param(
            "a: {{ x }} b\n",
            "1:4 FR104",
            "the template is not quoted, so YAML reads its braces as a mapping",
            'write "{{ x }} b"',
            id="template",
        ),
        pytest.param(
            "a: {% if x %}y{% endif %}  # why\n",
            "1:4 FR104",
            "the template is not quoted, so YAML reads its braces as a mapping",
            'write "{% if x %}y{% endif %}"',
            id="block of a template",
        ),
        pytest.param(
            'a: {{ x["b"] }}\n',
            "1:4 FR104",
            "the template is not quoted, so YAML reads its braces as a mapping",
            "write '{{ x[\"b\"] }}'",
            id="template with quotes",
        ),
        pytest.param(
            "a: {b: {{ x[0] }}, c: d}\n",
            "1:8 FR104",
            "the template is not quoted, so YAML reads its braces as a mapping",
            'write "{{ x[0] }}"',
            id="template in braces",
        ),
    ],
)
def test_a_syntax_error_is_reported_as_the_author_s_mistake(text: str, place: str, message: str, remedy: str) -> None:
    assert reported(text) == [(place, message, remedy)]


def test_an_error_without_an_explanation_is_reported_at_its_position() -> None:
    text = "a" * 2000 + ": b\n"
    (place, message, remedy), *others = reported(text)
    assert (place, others, remedy) == ("1:2001 FR101", [], "look at this line and at the one above it")
    assert message.startswith("YAML cannot read on from here (mapping values are not allowed")


def test_what_looks_like_a_mistake_inside_of_quotes_is_none() -> None:
    assert reported("a: '{{ x }}: [y'\nb: \"key: {{ z\"\nc: b: c\n") == [
        ("3:4 FR103", "a text with a colon and a space in it must be quoted", 'write "b: c"')
    ]


def test_several_mistakes_are_reported_at_once_and_each_only_once() -> None:
    text = "a: b: c\nd: @e\nf: [g, {{ h[0] }}]\ni: 'j' k\nl: *m\nl: 1\nn: [o\n"
    assert [place for place, _, _ in reported(text)] == [
        "1:4 FR103",
        "2:4 FR103",
        "3:8 FR104",
        "4:8 FR103",
        "7:4 FR107",
        "5:4 FR120",
        "6:1 FR115",
    ]


def test_a_file_full_of_mistakes_is_read_a_bounded_number_of_times() -> None:
    assert len(reported("\n".join(f"a{n}: @b" for n in range(100)))) == MAX_REPAIRS + 1
