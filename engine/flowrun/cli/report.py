"""Issues as text for people, and as JSON, SARIF and annotations for programs. Nothing is printed or read here."""

import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TextIO
from urllib.parse import quote

import msgspec

from flowrun.errors import CODES, Issue, Place, dotted
from flowrun.unicode import printable, printable_line

_LINE_BREAK: Final = re.compile(r"\r\n|\r|\n")
_WIDEST: Final = 100
"""A longer source line is cut to what stands around the column."""

SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"

Sources = Callable[[str], str]
"""Gives the text of a file that an issue names; empty if there is none."""


def render_text(issues: Iterable[Issue]) -> str:
    """Write issues one below the other, with a blank line between them."""
    return "\n\n".join(map(_render, issues))


def render_with_source(issues: Iterable[Issue], sources: Sources, *, coloured: bool = False) -> str:
    """Write issues as ``render_text`` does, each with the line that it is about and a caret under the column."""
    listed = list(issues)
    lines = {file: _LINE_BREAK.split(sources(file)) for file in {issue.place.file for issue in listed}}
    return "\n\n".join(_render(issue, lines[issue.place.file], coloured) for issue in listed)


def render_json(issues: Iterable[Issue]) -> str:
    """Write issues as a JSON list of objects, one issue a line group."""
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
    return _json(listed)


def _shown(issue: Issue) -> Issue:
    """Give an issue with what people read of it made printable: a spec may hold any character."""
    path = tuple(printable_line(part) if isinstance(part, str) else part for part in issue.path)
    message, remedy = printable(issue.message), printable(issue.remedy)
    return msgspec.structs.replace(issue, path=path, message=message, remedy=remedy)


def colours_wanted(stream: TextIO, *, environ: Mapping[str, str]) -> bool:
    """Tell whether a stream is a terminal whose user has not set NO_COLOR (no-color.org)."""
    return stream.isatty() and not environ.get("NO_COLOR")


def _json(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value)).decode()


# --- for people ---------------------------------------------------------------------------------------------------

_RED: Final = "31;1"
_YELLOW: Final = "33;1"
_BOLD: Final = "1"
_FAINT: Final = "2"


def _render(written: Issue, lines: Sequence[str] | None = None, coloured: bool = False) -> str:
    issue = _shown(written)

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
    """Give a place's line behind its number, and a caret under the column; nothing if the file has no such line."""
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
    """Give how many columns of a terminal a character takes (Unicode, annex 11)."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


# --- for programs -------------------------------------------------------------------------------------------------


def render_github(issues: Iterable[Issue]) -> str:
    """Write issues as workflow commands, which GitHub Actions shows as annotations of the lines."""
    return "\n".join(_annotation(_shown(issue)) for issue in issues)


def _annotation(issue: Issue) -> str:
    place = issue.place
    title = " ".join(filter(None, (issue.code, dotted(issue.path))))
    properties = {"file": printable_line(place.file), "line": place.line, "col": place.column, "title": title}
    told = ",".join(f"{name}={_escaped_property(str(value))}" for name, value in properties.items())
    return f"::{issue.severity} {told}::{_escaped(_told(issue))}"


def _escaped(text: str) -> str:
    """Escape a workflow command's message as @actions/core does."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escaped_property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def _told(issue: Issue) -> str:
    return "\n".join(filter(None, (issue.message, issue.remedy)))


def render_sarif(issues: Iterable[Issue], *, version: str, folder: Path) -> str:
    """Write issues as SARIF 2.1.0, which code scanning reads; files below ``folder`` are named relative to it."""
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
    return _json({"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]})


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
        "message": {"text": _told(issue)},
        "locations": [location],
    }


def _artifact(file: str, folder: Path) -> dict[str, str]:
    """Name a file as a URI: relative to the folder, which code scanning takes for the repository, or else absolute."""
    path = Path(os.path.normpath(folder / file))
    if path.is_relative_to(folder):
        return {"uri": quote(path.relative_to(folder).as_posix()), "uriBaseId": "%SRCROOT%"}
    return {"uri": path.as_uri()}
