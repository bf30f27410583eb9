"""A YAML file as plain data, and the place in the file of every value and key. Nothing here reads or decides."""

import json
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from flowrun.errors import Issue, Path, Place
from flowrun.spec import DEFAULT_MODEL, JSON, MAIN

ALWAYS_HIDDEN: Final = 8
"""A secret of this many characters is replaced in the middle of words too."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says, before anything is known about specs.

    ``value`` is None if the file could not be read; ``issues`` then says why. It may share parts (aliases), so it must
    never be changed in place. ``places`` holds where each value begins, ``key_places`` where its key does. ``bare``
    holds the paths of unquoted scalars with ``${`` in them.

    Once the environment is substituted, ``variables`` holds what was written where a variable was, and ``secrets``
    the values that came from the environment, each with the ``${VAR}`` to show in its place.
    """

    file: str
    text: str
    value: JSON = None
    places: Mapping[Path, Place] = {}
    key_places: Mapping[Path, Place] = {}
    bare: frozenset[Path] = frozenset()
    variables: Mapping[Path, str] = {}
    secrets: Mapping[str, str] = {}
    issues: tuple[Issue, ...] = ()


def place_of(document: Document, path: Path, *, key: bool = False) -> Place:
    """Give the place of a value (or of its ``key``), else of the nearest value around it.

    ``path`` may be one into the file or one into the ``Spec``, whose names differ in a few places.
    """
    written = written_path(document, path)
    if key and written in document.key_places:
        return document.key_places[written]
    for length in range(len(written), -1, -1):
        if written[:length] in document.places:
            return document.places[written[:length]]
    return Place(document.file, 1, 1)


def issue_at(document: Document, code: str, path: Path, message: str, remedy: str = "", *, key: bool = False) -> Issue:
    """Make an error at a path into the file or the ``Spec``; with ``key`` it points to the key, not to the value.

    Values from the environment are not shown: ``${VAR}`` is, in their place.
    """
    return Issue(
        code=code,
        place=place_of(document, path, key=key),
        path=written_path(document, path),
        message=redact(message, document.secrets),
        remedy=redact(remedy, document.secrets),
    )


def redact(text: str, secrets: Mapping[str, str]) -> str:
    """Replace every secret in a text; a short one only where it stands alone, because ``1`` is part of much else."""
    shown = {
        spelling: name
        for secret, name in secrets.items()
        for spelling in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1])
    }
    if not shown:
        return text
    patterns = [
        re.escape(spelling) if len(spelling) >= ALWAYS_HIDDEN else rf"(?<!\w){re.escape(spelling)}(?!\w)"
        for spelling in sorted(shown, key=len, reverse=True)
    ]
    return re.sub("|".join(patterns), lambda found: shown[found[0]], text)


def written_path(document: Document, path: Path) -> Path:
    """Turn a path into the ``Spec`` into the one that the author wrote: ``models.default`` may be ``model``."""
    if path in document.places:
        return path
    depth = 0
    while path[depth : depth + 1] == ("flows",) and len(path) > depth + 2:
        depth += 2
    outer, inner = path[:depth], path[depth:]
    match inner:
        case ("models", name, *rest) if name == DEFAULT_MODEL and (*outer, *inner[:2]) not in document.places:
            return (*outer, "model", *rest)
        case ("threads", name, *rest) if name == MAIN and (*outer, *inner[:2]) not in document.places:
            return (*outer, "messages", *rest)
        case ("states", state, "routes", *_) if (*outer, "states", state, "next") in document.places:
            return (*outer, "states", state, "next")
        case ("states", state, "branches", branch, "arguments", *rest):
            return (*outer, "states", state, "branches", branch, "with", *rest)
        case ("states", state, field, *rest) if field in _STATE_NAMES:
            return (*outer, "states", state, _STATE_NAMES[field], *rest)
        case _:
            return path


_STATE_NAMES: Final = {"arguments": "with", "item": "as"}
