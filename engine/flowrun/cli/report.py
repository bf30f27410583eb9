"""Renders issues as text for people, and as JSON, SARIF and annotations for programs. Prints and reads nothing."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TextIO
from urllib.parse import quote

import msgspec

from flowrun.cli.terminal import indented_json
from flowrun.errors import CODES, Issue, Place, dotted
from flowrun.unicode import printable, printable_line

_LINE_BREAK: Final = re.compile(r"\r\n|\r|\n")
_WIDEST: Final = 100
"""The maximum length of a shown source line; a longer one is cut to the text around the column."""

SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"

Sources = Callable[[str], str]
"""Returns the text of a file that an issue names; empty if there is no such file."""


def render_text(issues: Iterable[Issue]) -> str:
    """Render issues one below the other, with a blank line between them."""
    return "\n\n".join(map(_render, issues))


def render_with_source(issues: Iterable[Issue], sources: Sources, *, coloured: bool = False) -> str:
    """Render issues as ``render_text`` does, each with its source line and a caret under the column."""
    listed = list(issues)
    lines = {file: _LINE_BREAK.split(sources(file)) for file in {issue.place.file for issue in listed}}
    return "\n\n".join(_render(issue, lines[issue.place.file], coloured) for issue in listed)


def render_json(issues: Iterable[Issue]) -> str:
    """Render issues as an indented JSON list of objects."""
    listed: list[dict[str, Any]] = [
        {
            "code": issue.code,
            "severity": issue.severity,
            "file": issue.place.file,
            "line": issue.place.line,
            "column": issue.place.column,
            "path": dotted(issue.path),
            "message": issue.message,
            "remedy": issue.remedy,
        }
        for issue in map(_shown, issues)
    ]
    return indented_json(listed)


def _shown(issue: Issue) -> Issue:
    """Return an issue with printable path, message and remedy: a spec may contain any character."""
    path = tuple(printable_line(part) if isinstance(part, str) else part for part in issue.path)
    message, remedy = printable(issue.message), printable(issue.remedy)
    return msgspec.structs.replace(issue, path=path, message=message, remedy=remedy)


def colours_wanted(stream: TextIO, *, environ: Mapping[str, str]) -> bool:
    """Return whether a stream is a terminal and NO_COLOR is not set (no-color.org)."""
    return stream.isatty() and not environ.get("NO_COLOR")


# --- for people ---------------------------------------------------------------------------------------------------

_RED: Final = "31;1"
_YELLOW: Final = "33;1"
_BOLD: Final = "1"
_FAINT: Final = "2"


def _render(raw: Issue, lines: Sequence[str] | None = None, coloured: bool = False) -> str:
    issue = _shown(raw)

    def styled(text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if coloured and text else text

    warning = issue.severity == "warning"
    colour = _YELLOW if warning else _RED
    head = [
        styled(printable_line(str(issue.place)), _BOLD),
        styled(issue.code, colour),
        dotted(issue.path),
        "(warning)" * warning,
    ]
    source = [] if lines is None else _excerpt(issue.place, lines, lambda text: styled(text, colour))
    body = [f"  {line}" for line in issue.message.splitlines()]
    remedy = [f"  {styled(line, _FAINT)}" for line in issue.remedy.splitlines()]
    return "\n".join(["  ".join(filter(None, head)), *source, *body, *remedy])


def _excerpt(place: Place, lines: Sequence[str], marked: Callable[[str], str]) -> list[str]:
    """Return a place's numbered line, and a line with a caret under the column; empty if the file has no such line."""
    if not 1 <= place.line <= len(lines) or not lines[place.line - 1].strip():
        return []
    line, column = lines[place.line - 1], min(place.column - 1, len(lines[place.line - 1]))
    start = max(0, column - _WIDEST * 2 // 3) if len(line) > _WIDEST else 0
    shown = printable_line(line[start : start + _WIDEST])
    before, after = "…" * (start > 0), "…" * (start + _WIDEST < len(line))
    number = f"{place.line:>6} | "
    indent = " " * (len(number) + len(before) + sum(map(_cells, printable_line(line[start:column]))))
    return [f"{number}{before}{shown}{after}", f"{indent}{marked('^')}"]


def _cells(character: str) -> int:
    """Return how many columns of a terminal a character needs (Unicode Standard Annex 11)."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


# --- for programs -------------------------------------------------------------------------------------------------


def render_github(issues: Iterable[Issue]) -> str:
    """Render issues as workflow commands, which GitHub Actions shows as annotations of the lines."""
    return "\n".join(_annotation(_shown(issue)) for issue in issues)


def _annotation(issue: Issue) -> str:
    place = issue.place
    title = " ".join(filter(None, (issue.code, dotted(issue.path))))
    properties = {"file": printable_line(place.file), "line": place.line, "col": place.column, "title": title}
    listed = ",".join(f"{name}={_escaped_property(str(value))}" for name, value in properties.items())
    return f"::{issue.severity} {listed}::{_escaped(_message(issue))}"


def _escaped(text: str) -> str:
    """Escape a workflow command's message as @actions/core does."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escaped_property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def _message(issue: Issue) -> str:
    return "\n".join(filter(None, (issue.message, issue.remedy)))


def render_sarif(issues: Iterable[Issue], *, version: str, folder: Path) -> str:
    """Render issues as SARIF 2.1.0, the format of code scanning; paths below ``folder`` are relative to it."""
    listed = list(map(_shown, issues))
    codes = list(CODES)
    run = {
        "tool": {
            "driver": {
                "name": "flowrun",
                "semanticVersion": version,
                "rules": [_rule(code) for code in codes],
            }
        },
        "columnKind": "unicodeCodePoints",
        "results": [_result(issue, codes.index(issue.code), folder) for issue in listed],
    }
    return indented_json({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]})


def _rule(code: str) -> dict[str, Any]:
    meaning = CODES[code]
    advice = "Each result says what to do; 'flowrun schema --codes' lists all codes."
    return {
        "id": code,
        "shortDescription": {"text": meaning},
        "fullDescription": {"text": meaning},
        "help": {"text": f"{meaning} {advice}"},
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": ["flowrun"]},
    }


def _result(issue: Issue, rule: int, folder: Path) -> dict[str, Any]:
    region = {"startLine": issue.place.line, "startColumn": issue.place.column}
    location: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": _artifact(issue.place.file, folder), "region": region}
    }
    if issue.path:
        location["logicalLocations"] = [{"fullyQualifiedName": dotted(issue.path)}]
    return {
        "ruleId": issue.code,
        "ruleIndex": rule,
        "level": issue.severity,
        "message": {"text": _message(issue)},
        "locations": [location],
    }


def _artifact(file: str, folder: Path) -> dict[str, str]:
    """Return a file's URI: relative to the folder, which code scanning takes as the repository's root, or absolute."""
    path = Path(os.path.normpath(folder / file))
    if path.is_relative_to(folder):
        return {"uri": quote(path.relative_to(folder).as_posix()), "uriBaseId": "%SRCROOT%"}
    return {"uri": path.as_uri()}
