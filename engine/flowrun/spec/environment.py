"""Substitution of ``${VAR}`` and ``${VAR:-default}`` from a given mapping. No access to ``os.environ``.

References are substituted in models, in MCP servers and in the values of the selected profile, because only these
differ between machines; elsewhere ``${`` is plain text. As in a shell, ``:-`` uses its default for an empty variable
too. ``$${`` is a literal ``${``. Substituted text is not scanned again.
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
from flowrun.unicode import find_encoding_error

_REFERENCE: Final = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME_AND_DEFAULT: Final = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_NOT_ANY_STRING: Final = frozenset(
    {
        *("backend", "timeout", "idempotent", "strict", "per_run"),
        *("max_rounds", "max_steps", "max_tool_calls", "max_concurrency", "max_output"),
    }
)
"""Keys of models and profiles that do not accept every string as their value."""

_TOKENS: Final = ("limits", "tokens")
"""The mapping whose values are numbers."""

_MODELS: Final = frozenset({"model", "models", "mcp_servers"})
"""The keys below which references are substituted: of models, and of MCP servers."""


def substitute(
    document: Document, environ: Mapping[str, str], *, from_profile: AbstractSet[Path], required: bool = True
) -> Document:
    """Substitute the references of a document with the profile already merged.

    Args:
        from_profile: the paths of the values that came from the profile.
        required: report a variable that is not set and has no default. If False, its reference stays as it is written;
            where the reference would not be a valid value (``_NOT_ANY_STRING``), its key is removed.
    """
    return _Substitution(document, environ, from_profile, required).document()


class _Substitution(msgspec.Struct):
    """A single pass over the value of a document, ``source``."""

    source: Document
    environ: Mapping[str, str]
    from_profile: AbstractSet[Path]
    required: bool
    written: dict[Path, str] = {}
    shown: dict[str, str] = {}
    found: dict[str, dict[str, str]] = msgspec.field(
        default_factory=lambda: {"values": {}, "addresses": {}, "secrets": {}}
    )
    issues: list[Issue] = []

    def document(self) -> Document:
        value = self._walk(self.source.value, (), in_model=False)
        self._add_secrets()
        return msgspec.structs.replace(
            self.source,
            value=value,
            written=self.written,
            shown=self.shown,
            variables=Variables(**self.found),
            issues=(*self.source.issues, *self.issues),
        )

    def _add_secrets(self) -> None:
        """Add the variables that the spec's ``secrets`` names; only tools read them, so one that is not set is none."""
        named = self.source.value.get("secrets") if isinstance(self.source.value, dict) else None
        names = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
        self.found["secrets"] |= {name: self.environ[name] for name in names if name in self.environ}

    def _walk(self, value: JSON, path: Path, *, in_model: bool) -> JSON:
        if isinstance(value, dict):
            in_model = in_model or _is_model(path)
            items = {
                key: item if (*path, key) == ("profiles",) else self._walk(item, (*path, key), in_model=in_model)
                for key, item in value.items()
            }
            known = {key: item for key, item in items.items() if item is not msgspec.UNSET}
            return msgspec.UNSET if path[-2:] == _TOKENS and items and not known else known
        if isinstance(value, list):
            return [self._walk(item, (*path, index), in_model=in_model) for index, item in enumerate(value)]
        if isinstance(value, str) and "${" in value and (in_model or path in self.from_profile):
            return self._substitute(value, path, in_model=in_model)
        return value

    def _substitute(self, written: str, path: Path, *, in_model: bool) -> JSON:
        is_number = path[-1] in _NOT_ANY_STRING or path[-3:-1] == _TOKENS
        if not self.required and is_number and self._is_unset(written):
            return msgspec.UNSET
        issues_before = len(self.issues)
        used: dict[str, str] = {}
        text = _REFERENCE.sub(lambda reference: self._resolve(reference, path, used), written)
        if len(self.issues) > issues_before:
            return written
        if text != written:
            self.written[path] = written
        kind = _variable_kind(path, text) if in_model else "values"
        self.found[kind] |= used
        if kind == "secrets":  # keys, headers and variables are texts, whatever they look like
            return text
        if path in self.source.bare and (only := _REFERENCE.fullmatch(written)) and only[1] is not None:
            return self._parse_scalar(text, path, written)
        return text

    def _is_unset(self, written: str) -> bool:
        inside = _NAME_AND_DEFAULT.fullmatch(written[2:-1])
        return inside is not None and inside[2] is None and inside[1] not in self.environ

    def _resolve(self, reference: re.Match[str], path: Path, used: dict[str, str]) -> str:
        """Return the text that replaces a reference, and add the variable to ``used``."""
        if reference[1] is None:
            return "${"
        inside = _NAME_AND_DEFAULT.fullmatch(reference[1])
        if not inside or not reference[2]:
            message = f"{reference[0]} is not a reference to an environment variable"
            self._report("FR131", path, message, "write ${VAR} or ${VAR:-default}, or $${ for a literal ${")
            return reference[0]
        name, default = inside.groups()
        value = self.environ.get(name)
        if value is not None and (fault := find_encoding_error(value)):
            self._report("FR131", path, f"the environment variable {name} is no text: {fault}", "set it to valid UTF-8")
            return reference[0]
        if value is None and default is None:
            if not self.required:
                return reference[0]
            remedy = f"set it, or give a default: ${{{name}:-...}}"
            self._report("FR130", path, f"the environment variable {name} is not set", remedy)
            return reference[0]
        used[name] = value or ""
        if default is not None and not value:
            return str(default)
        if value:
            self.shown[value] = f"${{{name}}}"
        return value or ""

    def _parse_scalar(self, text: str, path: Path, written: str) -> JSON:
        """Parse the value of an unquoted reference as YAML parses an unquoted scalar."""
        try:
            value = read_scalar(text.strip())
        except NotJSONScalar as error:
            self._report(
                "FR119", path, f"the value of {written} {error}", "give it a number that JSON has, or quote it"
            )
            return written
        return text if isinstance(value, str) else value

    def _report(self, code: str, path: Path, message: str, remedy: str) -> None:
        self.issues.append(issue_at(self.source, code, path, message, remedy))


def _variable_kind(path: Path, value: str) -> str:
    """Return the field of ``Variables`` for the variables at a path in a model.

    Args:
        value: the text after substitution.
    """
    if path[-1] == "api_key" or "headers" in path or ("mcp_servers" in path and "env" in path):
        return "secrets"
    if path[-1] not in ("base_url", "url"):
        return "values"
    return "secrets" if "@" in value or "?" in value else "addresses"


def _is_model(path: Path) -> bool:
    """Return whether a path leads to ``model``, ``models`` or ``mcp_servers`` of the spec or of a local flow."""
    while len(path) > 2 and path[0] == "flows":
        path = path[2:]
    return len(path) == 1 and path[0] in _MODELS
