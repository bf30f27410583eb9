"""Issues are rendered for people, and for programs."""

import io
import json
from pathlib import Path
from typing import Any

import pytest

from flowrun.cli.report import (
    colours_wanted,
    render_github,
    render_json,
    render_sarif,
    render_text,
    render_with_source,
)
from flowrun.errors import CODES, Issue, Place

ISSUES = [
    Issue(
        code="FR501",
        place=Place("specs/weather.yaml", 14, 17),
        path=("tools", "get_current_weather", "entrypoint"),
        message="tools.weather has no function 'get_curent_weather'",
        remedy="did you mean tools.weather:get_current_weather?",
    ),
    Issue(code="FR301", place=Place("a.yaml", 1, 1), message="first line\nsecond line", severity="warning"),
]


def test_issues_are_rendered_for_people() -> None:
    assert render_text(ISSUES) == (
        "specs/weather.yaml:14:17  FR501  tools.get_current_weather.entrypoint\n"
        "  tools.weather has no function 'get_curent_weather'\n"
        "  did you mean tools.weather:get_current_weather?\n"
        "\n"
        "a.yaml:1:1  FR301  (warning)\n"
        "  first line\n"
        "  second line"
    )


def test_issues_are_rendered_for_programs() -> None:
    assert json.loads(render_json(ISSUES)) == [
        {
            "code": "FR501",
            "severity": "error",
            "file": "specs/weather.yaml",
            "line": 14,
            "column": 17,
            "path": "tools.get_current_weather.entrypoint",
            "message": "tools.weather has no function 'get_curent_weather'",
            "remedy": "did you mean tools.weather:get_current_weather?",
        },
        {
            "code": "FR301",
            "severity": "warning",
            "file": "a.yaml",
            "line": 1,
            "column": 1,
            "path": "",
            "message": "first line\nsecond line",
            "remedy": "",
        },
    ]


def test_no_issues_render_empty() -> None:
    assert (render_text([]), render_json([])) == ("", "[]")


# --- with the source line -----------------------------------------------------------------------------------------


def issue_at(line: int, column: int) -> Issue:
    return Issue(code="FR203", place=Place("a.yaml", line, column), path=("a",), message="wrong", remedy="right it")


def test_the_source_line_has_a_caret_under_the_column() -> None:
    assert render_with_source([issue_at(2, 4)], lambda file: "first\nab: cd\n") == (
        "a.yaml:2:4  FR203  a\n     2 | ab: cd\n            ^\n  wrong\n  right it"
    )


@pytest.mark.parametrize(
    ("text", "column", "shown"),
    [
        pytest.param("a: b", 5, ["a: b", "    ^"], id="behind the end"),
        pytest.param("a: b", 99, ["a: b", "    ^"], id="far behind the end"),
        pytest.param("a:\tb", 4, ["a:    b", "      ^"], id="tab"),
        pytest.param("天気: b", 5, ["天気: b", "      ^"], id="wide characters"),
        pytest.param("e\u0301: b", 5, ["e\u0301: b", "   ^"], id="combining characters"),
        pytest.param("a: \x1b[31mb", 4, ["a: \N{REPLACEMENT CHARACTER}[31mb", "   ^"], id="escapes"),
        pytest.param("x" * 300, 201, ["…" + "x" * 100 + "…", " " * 67 + "^"], id="long line"),
        pytest.param("a: " + "x" * 300, 2, ["a: " + "x" * 97 + "…", " ^"], id="long line, at its begin"),
    ],
)
def test_a_line_is_shown_so_that_the_caret_fits(text: str, column: int, shown: list[str]) -> None:
    lines = render_with_source([issue_at(1, column)], lambda file: text).splitlines()
    assert [line[9:] for line in lines[1:3]] == shown


@pytest.mark.parametrize(("text", "line"), [("", 1), ("a\n\nb", 2), ("a", 7)], ids=["no file", "blank", "no such line"])
def test_without_a_source_line_the_plain_form_is_used(text: str, line: int) -> None:
    issue = issue_at(line, 1)
    assert render_with_source([issue], lambda file: text) == render_text([issue])


@pytest.mark.parametrize("break_", ["\n", "\r\n", "\r"])
def test_all_line_breaks_of_yaml_count(break_: str) -> None:
    assert "     2 | b: 2\n" in render_with_source([issue_at(2, 1)], lambda file: break_.join(["a: 1", "b: 2", ""]))


def test_colours_are_for_the_place_the_code_the_caret_and_the_remedy() -> None:
    assert render_with_source([issue_at(1, 1)], lambda file: "ab", coloured=True) == (
        "\x1b[1ma.yaml:1:1\x1b[0m  \x1b[31;1mFR203\x1b[0m  a\n"
        "     1 | ab\n"
        "         \x1b[31;1m^\x1b[0m\n"
        "  wrong\n"
        "  \x1b[2mright it\x1b[0m"
    )


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "wanted"),
    [
        pytest.param(Terminal(), {}, True, id="terminal"),
        pytest.param(Terminal(), {"NO_COLOR": "1"}, False, id="terminal without colours"),
        pytest.param(Terminal(), {"NO_COLOR": ""}, True, id="NO_COLOR empty, which is as if unset"),
        pytest.param(io.StringIO(), {}, False, id="file"),
    ],
)
def test_colours_are_wanted_on_a_terminal_only(stream: io.StringIO, environ: dict[str, str], wanted: bool) -> None:
    assert colours_wanted(stream, environ=environ) is wanted


# --- for programs -------------------------------------------------------------------------------------------------


def test_annotations_of_github() -> None:
    odd = Issue(
        code="FR101", place=Place("a,b:c%.yaml", 3, 1), path=("x", 0), message="100%:\r\nwrong, all", remedy="quote it"
    )
    assert render_github([*ISSUES, odd]).splitlines() == [
        "::error file=specs/weather.yaml,line=14,col=17,title=FR501 tools.get_current_weather.entrypoint"
        "::tools.weather has no function 'get_curent_weather'%0Adid you mean tools.weather:get_current_weather?",
        "::warning file=a.yaml,line=1,col=1,title=FR301::first line%0Asecond line",
        "::error file=a%2Cb%3Ac%25.yaml,line=3,col=1,title=FR101 x[0]::100%25:%0Awrong, all%0Aquote it",
    ]


def sarif(issues: list[Issue]) -> Any:
    return json.loads(render_sarif(issues, version="0.1.0", folder=Path("/repo")))


def test_sarif_has_a_rule_for_every_code() -> None:
    document = sarif([])
    (run,) = document["runs"]
    driver = run["tool"]["driver"]
    assert (document["version"], driver["name"], driver["semanticVersion"]) == ("2.1.0", "flowrun", "0.1.0")
    assert run["results"] == []
    assert [(rule["id"], rule["shortDescription"]["text"]) for rule in driver["rules"]] == list(CODES.items())
    assert {frozenset(rule) for rule in driver["rules"]} == {
        frozenset(("id", "shortDescription", "fullDescription", "help", "defaultConfiguration", "properties"))
    }


def test_sarif_has_a_result_for_every_issue() -> None:
    (run,) = sarif(ISSUES)["runs"]
    assert run["columnKind"] == "unicodeCodePoints"
    assert run["results"] == [
        {
            "ruleId": "FR501",
            "ruleIndex": list(CODES).index("FR501"),
            "level": "error",
            "message": {
                "text": "tools.weather has no function 'get_curent_weather'\n"
                "did you mean tools.weather:get_current_weather?"
            },
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": "specs/weather.yaml", "uriBaseId": "%SRCROOT%"},
                        "region": {"startLine": 14, "startColumn": 17},
                    },
                    "logicalLocations": [{"fullyQualifiedName": "tools.get_current_weather.entrypoint"}],
                }
            ],
        },
        {
            "ruleId": "FR301",
            "ruleIndex": list(CODES).index("FR301"),
            "level": "warning",
            "message": {"text": "first line\nsecond line"},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": "a.yaml", "uriBaseId": "%SRCROOT%"},
                        "region": {"startLine": 1, "startColumn": 1},
                    }
                }
            ],
        },
    ]


@pytest.mark.parametrize(
    ("file", "location"),
    [
        pytest.param("/repo/specs/a.yaml", {"uri": "specs/a.yaml", "uriBaseId": "%SRCROOT%"}, id="absolute"),
        pytest.param("./x/../a b%ü.yaml", {"uri": "a%20b%25%C3%BC.yaml", "uriBaseId": "%SRCROOT%"}, id="odd"),
        pytest.param("../other/a.yaml", {"uri": "file:///other/a.yaml"}, id="outside"),
    ],
)
def test_sarif_names_files_relative_to_the_folder(file: str, location: dict[str, str]) -> None:
    (run,) = sarif([Issue(code="FR101", place=Place(file, 1, 1), message="wrong")])["runs"]
    assert run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"] == location
