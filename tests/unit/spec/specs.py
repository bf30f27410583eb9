"""Texts that the tests of loading are made of."""

from textwrap import dedent

from flowrun.errors import Issue, SpecError, dotted
from flowrun.spec import parse_text

HEADER = """\
flowrun: v1
name: test
version: 1.0.0
"""


def spec_text(*parts: str) -> str:
    """Put what every spec begins with, three lines, before parts of one."""
    return HEADER + "".join(map(dedent, parts))


def told(text: str, *, profile: str | None = None, environ: dict[str, str] | None = None) -> list[str]:
    """Give the issues of a spec on one line each."""
    try:
        parse_text(text, "f", profile=profile, environ=environ or {})
    except SpecError as error:
        return list(map(_on_one_line, error.issues))
    return []


def _on_one_line(issue: Issue) -> str:
    place = f"{issue.place.line}:{issue.place.column}"
    return f"{place} {issue.code} {dotted(issue.path)}: {issue.message}; {issue.remedy}"
