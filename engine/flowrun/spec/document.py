"""A parsed YAML file: plain data, and the position in the file of every value and key. No I/O, no decisions."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import msgspec

from flowrun.errors import Issue, Path, Place
from flowrun.spec.masking import MIN_MASKED_LENGTH, mask_excerpt, secret_forms
from flowrun.spec.model import DEFAULT_MODEL, JSON, MAIN

if TYPE_CHECKING:
    from flowrun.spec.model_lock import ModelLock


class Variables(msgspec.Struct, frozen=True, kw_only=True):
    """The environment variables that a document uses: names to values, empty for a variable that is not set.

    ``secrets`` are used in ``api_key``, ``headers`` or a ``base_url`` with credentials, or named by the spec's
    ``secrets``; their values are never stored.
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
        forms = ((form, name) for name, value in self.secrets.items() for form in secret_forms(value))
        return {form: f"${{{name}}}" for form, name in forms if len(form) >= MIN_MASKED_LENGTH}


class IncludedText(msgspec.Struct, frozen=True, kw_only=True):
    """The text of a file that stands for a value of a document. ``file`` is its name in issues."""

    file: str
    text: str

    @property
    def content(self) -> str:
        """Return the text as it is used: with LF as line break, and without the last line break."""
        return self.text.replace("\r\n", "\n").removesuffix("\n")

    def place_of(self, word: str, line: int = 1) -> Place:
        """Return the position of a word, first in a template's braces; without a word, the line's beginning."""
        if word:
            pattern = re.compile(rf"(?<![\w.]){re.escape(word)}(?!\w)")
            spans = [braces.span() for braces in _BRACES.finditer(self.text)]
            for start, end in (*spans, (0, len(self.text))):
                if found := pattern.search(self.text, start, end):
                    before = self.text[: found.start()]
                    return Place(self.file, before.count("\n") + 1, found.start() - before.rfind("\n"))
        return Place(self.file, line, 1)


_BRACES: Final = re.compile(r"\{[{%].*?[%}]\}", re.DOTALL)


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed YAML file, before it is validated against a schema.

    ``value`` is None if the file could not be parsed; ``issues`` then says why. Aliases share parts of ``value``, so it
    must never be changed in place. ``places`` maps the path of each value to the position where the value begins,
    ``key_places`` to the position of its key. ``bare`` holds the paths of unquoted scalars that contain ``${``.

    ``included`` maps the path of each value that stands in a file of its own to the text of that file. ``lock`` is that
    of the models; it changes nothing of the spec.

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
    included: Mapping[Path, IncludedText] = {}
    lock: "ModelLock | None" = None


def place_of(document: Document, path: Path, *, key: bool = False, word: str = "", line: int = 1) -> Place:
    """Return the position of the value at a path, else that of the nearest value around it.

    Args:
        path: a path in the file or in the ``Spec``; see ``written_path`` for the difference.
        key: return the position of the value's key, if it has one.
        word: what the position is of in a text that stands in a file of its own, else its ``line``.
    """
    written = written_path(document, path)
    if not key and written in document.included:
        return document.included[written].place_of(word, line)
    if key and written in document.key_places:
        return document.key_places[written]
    for length in range(len(written), -1, -1):
        if written[:length] in document.places:
            return document.places[written[:length]]
    return Place(document.file, 1, 1)


def issue_at(
    document: Document,
    code: str,
    path: Path,
    message: str,
    remedy: str = "",
    *,
    key: bool = False,
    word: str = "",
    line: int = 1,
) -> Issue:
    """Build an error at a path in the file or in the ``Spec``. It shows ``${VAR}`` instead of the environment's values.

    Args:
        key: point to the key instead of the value.
        word, line: what to point to in a text that stands in a file of its own.
    """
    return Issue(
        code=code,
        place=place_of(document, path, key=key, word=word, line=line),
        path=written_path(document, path),
        message=mask_excerpt(message, document.shown),
        remedy=mask_excerpt(remedy, document.shown),
    )


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
