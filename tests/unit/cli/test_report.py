"""Issues are written as people read them, and as programs do."""

import json

from flowrun.cli.report import render_json, render_text
from flowrun.errors import Issue, Place

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


def test_issues_are_written_for_people() -> None:
    assert render_text(ISSUES) == (
        "specs/weather.yaml:14:17  FR501  tools.get_current_weather.entrypoint\n"
        "  tools.weather has no function 'get_curent_weather'\n"
        "  did you mean tools.weather:get_current_weather?\n"
        "\n"
        "a.yaml:1:1  FR301  (warning)\n"
        "  first line\n"
        "  second line"
    )


def test_issues_are_written_for_programs() -> None:
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


def test_no_issues_are_nothing() -> None:
    assert (render_text([]), render_json([])) == ("", "[]")
