"""A YAML file as plain data, and the place in the file of every value and key. Nothing here reads or decides."""

import json
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from flowrun.errors import Issue, Path, Place
from flowrun.spec import DEFAULT_MODEL, JSON, MAIN

MASKED: Final = 8
"""A secret of fewer characters hides nothing, and would garble what has the same characters."""


class Variables(msgspec.Struct, frozen=True, kw_only=True):
    """What the environment gave for the variables of a document, by their names; empty for those it does not have.

    ``secrets`` are those of ``api_key``, ``headers`` and a ``base_url`` with credentials: they never become data.
    ``addresses`` are those of any other ``base_url``, and may differ when a run goes on; ``values`` all others.
    """

    values: Mapping[str, str] = {}
    addresses: Mapping[str, str] = {}
    secrets: Mapping[str, str] = {}

    def __or__(self, other: "Variables") -> "Variables":
        return Variables(
            values={**self.values, **other.values},
            addresses={**self.addresses, **other.addresses},
            secrets={**self.secrets, **other.secrets},
        )


_FRAGMENT: Final = 4
"""What a cut left of a secret is replaced from so many characters on."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says, before anything is known about specs.

    ``value`` is None if the file could not be read; ``issues`` then says why. It may share parts (aliases), so it must
    never be changed in place. ``places`` holds where each value begins, ``key_places`` where its key does. ``bare``
    holds the paths of unquoted scalars with ``${`` in them.

    Once the environment is substituted, ``written`` holds what was written where a variable was, ``shown`` the values
    that came from the environment, each with the ``${VAR}`` that issues show in its place, and ``variables`` which
    variables these were.
    """

    file: str
    text: str
    value: JSON = None
    places: Mapping[Path, Place] = {}
    key_places: Mapping[Path, Place] = {}
    bare: frozenset[Path] = frozenset()
    written: Mapping[Path, str] = {}
    shown: Mapping[str, str] = {}
    variables: Variables = Variables()
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
        message=mask(message, document.shown),
        remedy=mask(remedy, document.shown),
    )


def mask(text: str, secrets: Mapping[str, str]) -> str:
    """Replace every secret in a text; a short one only where it stands alone, because ``1`` is part of much else.

    Texts of models and servers are cut in many places before they come here, so what may be left of a secret at a cut
    is replaced too: its beginning before the end of a quoted or cut text, its end after the begin of one.
    """
    shown = {
        spelling: name
        for secret, name in secrets.items()
        for spelling in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1])
    }
    if not shown:
        return text
    names: dict[str, str] = {}
    patterns: list[str] = []
    for spelling in sorted(shown, key=len, reverse=True):
        if len(spelling) < MASKED:
            patterns.append(rf"(?<!\w){re.escape(spelling)}(?!\w)")
        else:
            patterns.append(re.escape(spelling))
        names.setdefault(spelling, shown[spelling])
    for spelling in sorted(shown, key=len, reverse=True):
        if len(spelling) >= MASKED:
            for length in range(len(spelling) - 1, _FRAGMENT - 1, -1):
                patterns.append(rf"{re.escape(spelling[:length])}(?=\s?\.\.\.|[…'\"&<\\]|\s*$)")
                patterns.append(rf"(?<=[…'\";>]){re.escape(spelling[-length:])}")
                names.setdefault(spelling[:length], shown[spelling])
                names.setdefault(spelling[-length:], shown[spelling])
    return re.sub("|".join(patterns), lambda found: names[found[0]], text, flags=re.MULTILINE)


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
