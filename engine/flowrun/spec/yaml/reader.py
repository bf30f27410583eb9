"""Parsing of a YAML file into a ``Document``. A mistake in the file becomes an issue and never raises."""

from typing import Final

import msgspec

from flowrun.errors import Issue, Place
from flowrun.spec.document import Document
from flowrun.spec.yaml.composer import Composer
from flowrun.spec.yaml.encoding import MAX_BYTES, clean_text, decode_source, too_large
from flowrun.spec.yaml.json_text import Shifts, as_yaml
from flowrun.spec.yaml.syntax import explain_syntax

MAX_REPAIRS: Final = 20
"""The most times that a file is parsed again, each time with one more wrong part replaced by filler.

A long file is parsed again less often: at most ``MAX_BYTES`` characters in total.
"""


def read_document(raw: bytes, file: str) -> Document:
    """Parse the bytes of a file. ``file`` is its name in issues."""
    text, issues = decode_source(raw, file)
    if text is None:
        return Document(file=file, text="", issues=tuple(issues))
    return _parse(text, file, issues)


def read_yaml(text: str, file: str) -> Document:
    """Parse a text. ``file`` is its name in issues."""
    return _parse(text, file, [too_large(file, len(text))] if len(text) > MAX_BYTES else [])


def _parse(text: str, file: str, issues: list[Issue]) -> Document:
    if any(issue.code == "FR124" for issue in issues):
        return Document(file=file, text="", issues=tuple(issues))
    text, invisible = clean_text(text, file)
    readable, shifts = as_yaml(text)
    composer, syntax = _compose_around_errors(readable, file)
    document = Document(
        file=file,
        text=text,
        value=None if syntax else composer.value,
        places=composer.places,
        key_places=composer.key_places,
        bare=frozenset(composer.bare),
        issues=(*issues, *invisible, *syntax, *composer.issues),
    )
    return _shift_back(document, shifts) if shifts else document


def _shift_back(document: Document, shifts: Shifts) -> Document:
    """Return a document whose places are those in the text as it is written."""

    def back(place: Place) -> Place:
        by = sum(amount for column, amount in shifts.get(place.line, ()) if column < place.column)
        return Place(place.file, place.line, place.column + by)

    return msgspec.structs.replace(
        document,
        places={path: back(place) for path, place in document.places.items()},
        key_places={path: back(place) for path, place in document.key_places.items()},
        issues=tuple(msgspec.structs.replace(issue, place=back(issue.place)) for issue in document.issues),
    )


def _compose_around_errors(text: str, file: str) -> tuple[Composer, list[Issue]]:
    """Compose a text. If a syntax error ends parsing and its wrong part is known, replace that part and start again."""
    issues: list[Issue] = []
    repairs = min(MAX_REPAIRS, MAX_BYTES // max(len(text), 1))
    while True:
        composer = Composer(text, file)
        error = composer.compose()
        if error is None:
            return composer, issues
        diagnosis = explain_syntax(error, text, file)
        if any(issue.place.line == diagnosis.issue.place.line for issue in issues):
            return composer, issues  # a second error on the same line is a consequence of the first
        issues.append(diagnosis.issue)
        if diagnosis.blank is None or len(issues) > repairs:
            return composer, issues
        start, end = diagnosis.blank
        text = text[:start] + diagnosis.filler * (end - start) + text[end:]
