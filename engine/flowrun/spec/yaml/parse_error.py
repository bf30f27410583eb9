"""Where a YAML parser gave up, and what the text looks like there. Lines and columns count from 0 here, as PyYAML's."""

import re
from typing import Final

import msgspec
import yaml

from flowrun.errors import Issue, Place

_LINE: Final = re.compile("[^\r\n]*(?:\r\n|\r|\n|$)")
_QUOTED: Final = re.compile(r"""(?:(?<=[\s,\[{])|^)(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')""")


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """An issue, and the span of characters that ``filler`` has to replace for the text to be readable further on."""

    issue: Issue
    blank: tuple[int, int] | None = None
    filler: str = "x"


class ParseError(msgspec.Struct, frozen=True, kw_only=True):
    """A parser's error with the text around it. Lines and columns count from 0 here, as PyYAML's do."""

    file: str
    lines: list[str]
    starts: list[int]
    context: str
    problem: str
    at: tuple[int, int]
    since: tuple[int, int]

    @property
    def line(self) -> str:
        return self.lines[self.at[0]]

    @property
    def char(self) -> str:
        """The character at which the parser gave up; empty at the end of a line."""
        return self.line[self.at[1] : self.at[1] + 1]

    @property
    def masked(self) -> str:
        return mask_quoted(self.line)

    def finding(
        self,
        code: str,
        at: tuple[int, int],
        message: str,
        remedy: str,
        blank_to: int | None = None,
        *,
        filler: str = "x",
    ) -> Diagnosis:
        """Make a finding; ``blank_to`` is the column on the same line up to which the text is wrong."""
        start = self.starts[at[0]]
        return Diagnosis(
            issue=Issue(code=code, place=Place(self.file, at[0] + 1, at[1] + 1), message=message, remedy=remedy),
            blank=None if blank_to is None else (start + at[1], start + blank_to),
            filler=filler,
        )


def read_parse_error(error: yaml.MarkedYAMLError, text: str, file: str) -> ParseError:
    """Look up the lines that a parser's error is about."""
    spans = [match.span() for match in _LINE.finditer(text)]
    lines = [text[start:end].rstrip("\r\n") for start, end in spans]
    mark = error.problem_mark or error.context_mark
    since = error.context_mark or mark
    return ParseError(
        file=file,
        lines=lines,
        starts=[start for start, _ in spans],
        context=error.context or "",
        problem=error.problem or "",
        at=_position(mark, lines),
        since=_position(since, lines),
    )


def _position(mark: yaml.Mark | None, lines: list[str]) -> tuple[int, int]:
    """Give a mark's line and column; one at the end of the file is put at the end of the last line with text."""
    if mark is None:
        return 0, 0
    line = min(mark.line, len(lines) - 1)
    if mark.line >= len(lines) - 1 and not lines[line]:
        while line and not lines[line].strip():
            line -= 1
        return line, len(lines[line])
    return line, min(mark.column, len(lines[line]))


def mask_quoted(line: str) -> str:
    """Replace quoted texts by as many blanks, so that what looks like YAML inside of them is not taken for it."""
    return _QUOTED.sub(lambda quoted: quoted[0][0] + "_" * (len(quoted[0]) - 2) + quoted[0][-1], line)


def has_content(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def indentation(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def end_of_value(line: str, start: int) -> int:
    """Give the column behind a value that goes on to the end of its line, or to a comment."""
    comment = line.find(" #", start)
    return len((line if comment < 0 else line[:comment]).rstrip())


def quote(text: str) -> str:
    """Quote a text as YAML does where every character stands for itself; cut to what fits into a message."""
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return f'"{shown}"' if not {'"', "\\"} & set(shown) else "'" + shown.replace("'", "''") + "'"
