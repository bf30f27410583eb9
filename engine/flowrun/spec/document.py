"""A parsed YAML file: plain data, and the position in the file of every value and key. No I/O, no decisions."""

import json
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from flowrun.errors import Issue, Path, Place
from flowrun.spec.model import DEFAULT_MODEL, JSON, MAIN

MIN_MASKED_LENGTH: Final = 8
"""The fewest characters of a secret that is masked inside of words too. A shorter one would garble other words."""


class Variables(msgspec.Struct, frozen=True, kw_only=True):
    """The environment variables that a document uses: names to values, empty for a variable that is not set.

    ``secrets`` are used in ``api_key``, ``headers`` or a ``base_url`` with credentials; their values are never stored.
    ``addresses`` are used in any other ``base_url``; their values may differ when a run resumes. ``values`` are all
    others.
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

    def masked(self) -> dict[str, str]:
        """Return the secrets that are long enough to be masked, each with the text that is shown in its place."""
        return {value: f"${{{name}}}" for name, value in self.secrets.items() if len(value) >= MIN_MASKED_LENGTH}


_FRAGMENT: Final = 4
"""The fewest characters of a secret left at a cut that are replaced."""

_AFTER_BEGINNING: Final = re.compile(r"\s?\.\.\.|[…'\"&<\\]|\s*$", re.MULTILINE)
"""What follows the beginning of a secret at a cut: the mark of the cut, the end of a quotation, or that of a line."""

_BEFORE_END: Final = "…'\";>"
"""The characters of which one stands before the end of a secret at a cut."""


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed YAML file, before it is validated against a schema.

    ``value`` is None if the file could not be parsed; ``issues`` then says why. Aliases share parts of ``value``, so it
    must never be changed in place. ``places`` maps the path of each value to the position where the value begins,
    ``key_places`` to the position of its key. ``bare`` holds the paths of unquoted scalars that contain ``${``.

    The other fields are filled when the environment is substituted. ``written`` maps the path of each substituted value
    to its text in the file, ``shown`` maps each value from the environment to the ``${VAR}`` that issues show instead,
    and ``variables`` holds the variables.
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
    """Return the position of the value at a path, else that of the nearest value around it.

    Args:
        path: a path in the file or in the ``Spec``; see ``written_path`` for the difference.
        key: return the position of the value's key, if it has one.
    """
    written = written_path(document, path)
    if key and written in document.key_places:
        return document.key_places[written]
    for length in range(len(written), -1, -1):
        if written[:length] in document.places:
            return document.places[written[:length]]
    return Place(document.file, 1, 1)


def issue_at(document: Document, code: str, path: Path, message: str, remedy: str = "", *, key: bool = False) -> Issue:
    """Build an error at a path in the file or in the ``Spec``. It shows ``${VAR}`` instead of the environment's values.

    Args:
        key: point to the key instead of the value.
    """
    return Issue(
        code=code,
        place=place_of(document, path, key=key),
        path=written_path(document, path),
        message=mask(message, document.shown),
        remedy=mask(remedy, document.shown),
    )


def mask(text: str, secrets: Mapping[str, str]) -> str:
    """Replace every secret in a text. One shorter than ``MIN_MASKED_LENGTH`` is replaced only as a whole word.

    Texts of models and servers are cut in many places before they come here, so what may be left of a secret at a cut
    is replaced too: its beginning before the end of a quoted or cut text, its end after the beginning of one.

    Args:
        secrets: each secret with the text that replaces it, such as ``${VAR}``.
    """
    shown = {
        spelling: replacement
        for secret, replacement in secrets.items()
        for spelling in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1])
    }
    if not shown:
        return text
    spellings = sorted(shown, key=len, reverse=True)
    whole = "|".join(
        re.escape(spelling) if len(spelling) >= MIN_MASKED_LENGTH else rf"(?<!\w){re.escape(spelling)}(?!\w)"
        for spelling in spellings
    )
    cuttable = [spelling for spelling in spellings if len(spelling) >= MIN_MASKED_LENGTH]
    beginnings = "".join(f"|{re.escape(spelling[:_FRAGMENT])}" for spelling in cuttable)
    parts: list[str] = []
    copied = position = 0
    search = re.compile(rf"(?P<whole>{whole}){beginnings}|(?<=[{_BEFORE_END}])").search
    while position < len(text) and (found := search(text, position)) is not None:
        start, end, spelling = found.start(), found.end(), found["whole"]
        if spelling is None:
            lengths = ((_fragment_at(text, start, secret), secret) for secret in cuttable)
            length, spelling = next((pair for pair in lengths if pair[0]), (0, ""))
            end = start + length
        if end > start:
            parts += text[copied:start], shown[spelling]
            copied = end
        position = max(end, start + 1)
    return "".join([*parts, text[copied:]])


def _fragment_at(text: str, start: int, secret: str) -> int:
    """Return the length of the longest fragment of a secret that stands in a text at a cut; 0 if none does."""
    longest = 0
    if text.startswith(secret[:_FRAGMENT], start):
        lengths = (n for n in range(len(secret) - 1, _FRAGMENT - 1, -1) if text.startswith(secret[:n], start))
        longest = next((length for length in lengths if _AFTER_BEGINNING.match(text, start + length)), 0)
    first = text[start : start + _FRAGMENT]
    if start and text[start - 1] in _BEFORE_END and len(first) == _FRAGMENT:
        index = secret.find(first, 1)
        while index > 0:
            if text.startswith(secret[index:], start):
                return max(longest, len(secret) - index)
            index = secret.find(first, index + 1)
    return longest


def written_path(document: Document, path: Path) -> Path:
    """Convert a path in the ``Spec`` to the path in the file: ``models.default`` may be written as ``model``."""
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
