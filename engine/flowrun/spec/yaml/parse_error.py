"""Errors of a YAML parser with the text around them. Lines and columns count from 0, as in PyYAML."""

import re
from typing import Final

import msgspec
import yaml

from flowrun.errors import Issue, Place
from flowrun.excerpts import cut

_LINE: Final = re.compile("[^\r\n]*(?:\r\n|\r|\n|$)")
_QUOTED: Final = re.compile(r"""(?:(?<=[\s,\[{])|^)(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')""")


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """An issue, and the span of the wrong text. If ``filler`` replaces each of its characters, parsing can continue."""

    issue: Issue
    blank: tuple[int, int] | None = None
    filler: str = "x"


class ParseError(msgspec.Struct, frozen=True, kw_only=True):
    """An error of the parser with all lines of the text, and the offset at which each line starts.

    ``at`` is the line and column of the error, ``since`` those of the construct that the parser was reading;
    ``problem`` and ``context`` are PyYAML's messages about them.
    """

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
        """Return the character at which parsing ended, or "" at the end of a line."""
        return self.line[self.at[1] : self.at[1] + 1]

    @property
    def masked(self) -> str:
        return mask_quoted(self.line)

    def diagnose(
        self,
        code: str,
        at: tuple[int, int],
        message: str,
        remedy: str,
        blank_to: int | None = None,
        *,
        filler: str = "x",
    ) -> Diagnosis:
        """Build the diagnosis of this error.

        Args:
            at: the line and column of the issue.
            blank_to: the column on the same line at which the wrong text ends, if it is known.
        """
        start = self.starts[at[0]]
        return Diagnosis(
            issue=Issue(code=code, place=Place(self.file, at[0] + 1, at[1] + 1), message=message, remedy=remedy),
            blank=None if blank_to is None else (start + at[1], start + blank_to),
            filler=filler,
        )


def read_parse_error(error: yaml.MarkedYAMLError, text: str, file: str) -> ParseError:
    """Build a ``ParseError`` from an error of PyYAML and the text."""
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
    """Return the line and column of a mark; for the end of the file, those of the end of the last line with text."""
    if mark is None:
        return 0, 0
    line = min(mark.line, len(lines) - 1)
    if mark.line >= len(lines) - 1 and not lines[line]:
        while line and not lines[line].strip():
            line -= 1
        return line, len(lines[line])
    return line, min(mark.column, len(lines[line]))


def mask_quoted(line: str) -> str:
    """Return a line of the same length with underscores inside of quotes, so that quoted text is not read as YAML."""
    return _QUOTED.sub(lambda quoted: quoted[0][0] + "_" * (len(quoted[0]) - 2) + quoted[0][-1], line)


def has_content(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def indentation(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def end_of_value(line: str, start: int) -> int:
    """Return the column at which a value ends that extends to the end of its line or to a comment."""
    comment = line.find(" #", start)
    return len((line if comment < 0 else line[:comment]).rstrip())


def quote(text: str) -> str:
    """Return a text as a YAML string in quotes, without escapes, cut to 60 characters."""
    shown = cut(text, 60)
    return f'"{shown}"' if not {'"', "\\"} & set(shown) else "'" + shown.replace("'", "''") + "'"
