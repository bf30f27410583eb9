"""Merging of a profile over its spec: mappings merge deeply, lists and scalars replace, null removes (RFC 7396).

Three exceptions, because some keys depend on others. A profile that sets a model's ``name`` or ``backend`` removes the
spec's ``adapter``, ``engine`` and ``chat_template_kwargs`` of that model; one that sets another ``backend`` than
openai, those of a server. A profile that sets a state's ``type`` replaces the full state. ``next`` and ``routes`` of a
state replace each other, and so do ``entrypoint`` and ``result`` of a tool, and ``command`` and ``url`` of an MCP
server, with what belongs to them.
"""

from typing import Any, Final

import msgspec

from flowrun.errors import Path, UsageError
from flowrun.spec.document import Document
from flowrun.spec.model import JSON
from flowrun.spec.suggestions import suggest

NOT_IN_PROFILES: Final = frozenset({"flowrun", "requires", "name", "version", "secrets", "profiles"})
"""Keys that a profile cannot set; the schema rejects them."""


def merge_profile(document: Document, name: str | None) -> tuple[Document, frozenset[Path]]:
    """Merge the profile ``name`` over the document; None changes nothing.

    Return the merged document and the paths of the values that came from the profile. The positions of these values
    are their lines in the profile.

    Raises:
        UsageError: the spec has no such profile.
    """
    if name is None:
        return document, frozenset()
    profiles = document.value.get("profiles", {})
    if not isinstance(profiles, dict):
        return document, frozenset()  # the schema check reports it
    if name not in profiles:
        raise UsageError(f"{document.file} has no profile '{name}'; {suggest(name, profiles, 'profiles')}")
    patch = profiles[name]
    if not isinstance(patch, dict):
        return document, frozenset()
    allowed = {key: value for key, value in patch.items() if key not in NOT_IN_PROFILES}
    prefix: Path = ("profiles", name)
    moved = {path[2:]: path for path in document.places if path[:2] == prefix and path[2:3] and path[2] in allowed}
    key_places = {path: document.key_places[old] for path, old in moved.items() if old in document.key_places}
    merged = msgspec.structs.replace(
        document,
        value=_merge(document.value, allowed, ()),
        places={**document.places, **{path: document.places[old] for path, old in moved.items()}},
        key_places={**document.key_places, **key_places},
        bare=document.bare.difference(moved) | {path for path, old in moved.items() if old in document.bare},
    )
    return merged, frozenset(moved)


def _merge(base: Any, patch: dict[str, JSON], path: Path) -> dict[str, JSON]:
    dropped = _dropped_keys(patch, path)
    inherited = base if isinstance(base, dict) and dropped is not None else {}
    merged = {key: value for key, value in inherited.items() if key not in (dropped or ())}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            merged[key] = _merge(merged.get(key), value, (*path, key))
        else:
            merged[key] = value
    return merged


def _dropped_keys(patch: dict[str, JSON], path: Path) -> frozenset[str] | None:
    """Return the keys of the base mapping that the patch removes, besides those that it sets; None means all keys."""
    while len(path) > 2 and path[0] == "flows":
        path = path[2:]
    match path:
        case ("model",) | ("models", _):
            own = _SPECIFIC_TO_MODEL if patch.keys() & {"name", "backend"} else frozenset()
            return own if patch.get("backend", "openai") == "openai" else own | _SPECIFIC_TO_SERVER
        case ("states", _) if "type" in patch:
            return None
        case ("states" | "tools", _):
            return frozenset(other for key, other in _ALTERNATIVES.items() if patch.get(key) is not None)
        case ("mcp_servers", _):
            of_command, of_url = frozenset({"command", "env"}), frozenset({"url", "headers"})
            return (of_command if "url" in patch else frozenset()) | (of_url if "command" in patch else frozenset())
        case _:
            return frozenset()


_SPECIFIC_TO_MODEL: Final = frozenset({"adapter", "engine", "chat_template_kwargs"})
_SPECIFIC_TO_SERVER: Final = frozenset({"base_url", "api_key", "headers", "max_requests_per_minute"})
_ALTERNATIVES: Final = {"next": "routes", "routes": "next", "entrypoint": "result", "result": "entrypoint"}
