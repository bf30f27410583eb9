"""Spec texts and their issues, for the tests of loading."""

from textwrap import dedent

from flowrun.errors import Issue, SpecError, dotted
from flowrun.spec import parse_text

HEADER = """\
flowrun: v1
name: test
version: 1.0.0
"""


def spec_text(*parts: str) -> str:
    """Return a spec of the three required lines and the given parts, so that the parts begin in line 4."""
    return HEADER + "".join(map(dedent, parts))


def reported(text: str, *, profile: str | None = None, environ: dict[str, str] | None = None) -> list[str]:
    """Return the issues of a spec, one line each."""
    try:
        parse_text(text, "f", profile=profile, environ=environ or {})
    except SpecError as error:
        return list(map(_on_one_line, error.issues))
    return []


def _on_one_line(issue: Issue) -> str:
    place = f"{issue.place.line}:{issue.place.column}"
    return f"{place} {issue.code} {dotted(issue.path)}: {issue.message}; {issue.remedy}"
