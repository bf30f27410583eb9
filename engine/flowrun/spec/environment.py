"""``${VAR}`` and ``${VAR:-default}``, replaced from a mapping that is handed in. Nothing here reads the environment.

They are replaced in models, and in what the chosen profile gives, because only these differ between machines;
elsewhere ``${`` is plain text. As in a shell, ``:-`` takes its default for an empty variable too. ``$${`` is a
literal ``${``. What was put in is not looked at again.
"""

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from flowrun.errors import Issue, Path
from flowrun.spec.document import Document, Variables, issue_at
from flowrun.spec.model import JSON
from flowrun.spec.yaml.scalars import NotJSONScalar, read_scalar
from flowrun.unicode import fault_of

_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_INSIDE: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_NO_TEXT: Final = frozenset(
    {"backend", "timeout", "max_rounds", "max_steps", "max_concurrency", "idempotent", "strict"}
)
"""Keys of models, and of whatever else a profile may change, whose value cannot be just any text."""

_MODELS: Final = frozenset({"model", "models"})


def substitute(
    document: Document, environ: Mapping[str, str], *, from_profile: AbstractSet[Path], required: bool = True
) -> Document:
    """Replace the references of a document, whose profile is merged in already.

    ``from_profile`` holds the paths of the values that the profile gave. A variable that is not set and has no default
    is an issue if it is ``required``; else its reference stays as it is written, or, where no text may stand, its key
    goes.
    """
    return _Substitution(document, environ, from_profile, required).document()


class _Substitution:
    """One pass over a document's value."""

    def __init__(
        self, document: Document, environ: Mapping[str, str], from_profile: AbstractSet[Path], required: bool
    ) -> None:
        self._document = document
        self._environ = environ
        self._from_profile = from_profile
        self._required = required
        self._written: dict[Path, str] = {}
        self._shown: dict[str, str] = {}
        self._found: dict[str, dict[str, str]] = {"values": {}, "addresses": {}, "secrets": {}}
        self._issues: list[Issue] = []

    def document(self) -> Document:
        value = self._walk(self._document.value, (), in_model=False)
        return msgspec.structs.replace(
            self._document,
            value=value,
            written=self._written,
            shown=self._shown,
            variables=Variables(**self._found),
            issues=(*self._document.issues, *self._issues),
        )

    def _walk(self, value: JSON, path: Path, *, in_model: bool) -> JSON:
        if isinstance(value, dict):
            in_model = in_model or _is_model(path)
            items = {
                key: item if (*path, key) == ("profiles",) else self._walk(item, (*path, key), in_model=in_model)
                for key, item in value.items()
            }
            return {key: item for key, item in items.items() if item is not msgspec.UNSET}
        if isinstance(value, list):
            return [self._walk(item, (*path, index), in_model=in_model) for index, item in enumerate(value)]
        if isinstance(value, str) and "${" in value and (in_model or path in self._from_profile):
            return self._substituted(value, path, in_model=in_model)
        return value

    def _substituted(self, written: str, path: Path, *, in_model: bool) -> JSON:
        if not self._required and path[-1] in _NO_TEXT and self._is_unset(written):
            return msgspec.UNSET
        known = len(self._issues)
        used: dict[str, str] = {}
        text = _REFERENCE.sub(lambda reference: self._resolve(reference, path, used), written)
        if len(self._issues) > known:
            return written
        if text != written:
            self._written[path] = written
        self._found[_kind(path, text) if in_model else "values"] |= used
        if path in self._document.bare and (whole := _REFERENCE.fullmatch(written)) and whole[1] is not None:
            return self._read_again(text, path, written)
        return text

    def _is_unset(self, written: str) -> bool:
        inside = _INSIDE.fullmatch(written[2:-1])
        return inside is not None and inside[2] is None and inside[1] not in self._environ

    def _resolve(self, reference: re.Match[str], path: Path, used: dict[str, str]) -> str:
        """Give the text that takes a reference's place, and put the variable among those that are ``used``."""
        if reference[1] is None:
            return "${"
        inside = _INSIDE.fullmatch(reference[1])
        if not inside or not reference[2]:
            message = f"{reference[0]} is not a reference to an environment variable"
            self._refuse("FR131", path, message, "write ${VAR} or ${VAR:-default}, or $${ for a literal ${")
            return reference[0]
        name, default = inside.groups()
        value = self._environ.get(name)
        if value is not None and (wrong := fault_of(value)):
            self._refuse("FR131", path, f"the environment variable {name} is no text: {wrong}", "set it to valid UTF-8")
            return reference[0]
        if value is None and default is None:
            if not self._required:
                return reference[0]
            remedy = f"set it, or give a default: ${{{name}:-...}}"
            self._refuse("FR130", path, f"the environment variable {name} is not set", remedy)
            return reference[0]
        used[name] = value or ""
        if default is not None and not value:
            return str(default)
        if value:
            self._shown[value] = f"${{{name}}}"
        return value or ""

    def _read_again(self, text: str, path: Path, written: str) -> JSON:
        """Read the value of an unquoted reference as YAML would have, had it been written there."""
        try:
            value = read_scalar(text.strip())
        except NotJSONScalar as error:
            self._refuse(
                "FR119", path, f"the value of {written} {error}", "give it a number that JSON has, or quote it"
            )
            return written
        return text if isinstance(value, str) else value

    def _refuse(self, code: str, path: Path, message: str, remedy: str) -> None:
        self._issues.append(issue_at(self._document, code, path, message, remedy))


def _kind(path: Path, value: str) -> str:
    """Tell what variables at a place of a model are, as a field of ``Variables``; ``value`` is what they gave there."""
    if path[-1] == "api_key" or "headers" in path:
        return "secrets"
    if path[-1] != "base_url":
        return "values"
    return "secrets" if "@" in value or "?" in value else "addresses"


def _is_model(path: Path) -> bool:
    """Tell whether a path leads to ``model`` or ``models`` of the spec or of a local flow."""
    while len(path) > 2 and path[0] == "flows":
        path = path[2:]
    return len(path) == 1 and path[0] in _MODELS
