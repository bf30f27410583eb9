"""From a YAML file to a ``Document``: every mistake in it is an issue, none is an exception."""

from typing import Final

from flowrun.errors import Issue
from flowrun.spec.document import Document
from flowrun.spec.yaml.composer import Composer
from flowrun.spec.yaml.encoding import MAX_BYTES, clean_text, decode_source, too_large
from flowrun.spec.yaml.syntax import explain_syntax

MAX_REPAIRS: Final = 20
"""A file is read again this often, each time with one more part blanked out that could not be read.

A long file is read again less often: never more than ``MAX_BYTES`` characters in all.
"""


def read_document(raw: bytes, file: str) -> Document:
    """Read the bytes of a file."""
    text, issues = decode_source(raw, file)
    if text is None:
        return Document(file=file, text="", issues=tuple(issues))
    return _read(text, file, issues)


def read_yaml(text: str, file: str) -> Document:
    """Read what is text already."""
    return _read(text, file, [too_large(file, len(text))] if len(text) > MAX_BYTES else [])


def _read(text: str, file: str, issues: list[Issue]) -> Document:
    if any(issue.code == "FR124" for issue in issues):
        return Document(file=file, text="", issues=tuple(issues))
    text, invisible = clean_text(text, file)
    composer, syntax = _compose_around_errors(text, file)
    return Document(
        file=file,
        text=text,
        value=None if syntax else composer.value,
        places=composer.places,
        key_places=composer.key_places,
        bare=frozenset(composer.bare),
        issues=(*issues, *invisible, *syntax, *composer.issues),
    )


def _compose_around_errors(text: str, file: str) -> tuple[Composer, list[Issue]]:
    """Compose a text; where the parser gives up at something that can be blanked out, blank it and begin again."""
    issues: list[Issue] = []
    repairs = min(MAX_REPAIRS, MAX_BYTES // max(len(text), 1))
    while True:
        composer = Composer(text, file)
        error = composer.compose()
        if error is None:
            return composer, issues
        finding = explain_syntax(error, text, file)
        if any(issue.place.line == finding.issue.place.line for issue in issues):
            return composer, issues  # the rest of a line that was wrong already says nothing new
        issues.append(finding.issue)
        if finding.blank is None or len(issues) > repairs:
            return composer, issues
        start, end = finding.blank
        text = text[:start] + finding.filler * (end - start) + text[end:]
