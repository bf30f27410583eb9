"""A profile merged over its spec: mappings merge deeply, lists and scalars replace, null removes (RFC 7396).

Three exceptions, because some keys mean nothing without others: a model that is given ``name`` or ``backend`` anew
loses the ``engine`` and ``chat_template_kwargs`` below; a state that is given ``type`` anew is replaced as a whole;
``next`` and ``routes`` replace each other.
"""

from typing import Any, Final

import msgspec

from flowrun.errors import Path, UsageError
from flowrun.spec.document import Document
from flowrun.spec.model import JSON
from flowrun.spec.suggestions import suggest

NOT_IN_PROFILES: Final = frozenset({"flowrun", "name", "version", "profiles"})
"""What a profile cannot change; the schema refuses it there."""


def merge_profile(document: Document, name: str | None) -> tuple[Document, frozenset[Path]]:
    """Merge the profile ``name`` over the document; without a name nothing changes.

    Gives the paths of what came from the profile too. Places follow the values into the profile's lines.

    Raises:
        UsageError: the spec has no such profile.
    """
    if name is None:
        return document, frozenset()
    profiles = document.value.get("profiles", {})
    if not isinstance(profiles, dict):
        return document, frozenset()  # the schema says what is wrong
    if name not in profiles:
        raise UsageError(f"{document.file} has no profile '{name}'; {suggest(name, profiles, 'profiles')}")
    patch = profiles[name]
    if not isinstance(patch, dict):
        return document, frozenset()
    taken = {key: value for key, value in patch.items() if key not in NOT_IN_PROFILES}
    prefix: Path = ("profiles", name)
    moved = {path[2:]: path for path in document.places if path[:2] == prefix and path[2:3] and path[2] in taken}
    key_places = {path: document.key_places[old] for path, old in moved.items() if old in document.key_places}
    merged = msgspec.structs.replace(
        document,
        value=_merged(document.value, taken, ()),
        places={**document.places, **{path: document.places[old] for path, old in moved.items()}},
        key_places={**document.key_places, **key_places},
        bare=document.bare.difference(moved) | {path for path, old in moved.items() if old in document.bare},
    )
    return merged, frozenset(moved)


def _merged(base: Any, patch: dict[str, JSON], path: Path) -> dict[str, JSON]:
    dropped = _dropped(patch, path)
    kept = base if isinstance(base, dict) and dropped is not None else {}
    merged = {key: value for key, value in kept.items() if key not in (dropped or ())}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            merged[key] = _merged(merged.get(key), value, (*path, key))
        else:
            merged[key] = value
    return merged


def _dropped(patch: dict[str, JSON], path: Path) -> frozenset[str] | None:
    """Tell which keys of the mapping below go, beside those that the patch replaces; None means all of them."""
    while len(path) > 2 and path[0] == "flows":
        path = path[2:]
    match path:
        case ("model",) | ("models", _):
            return _OF_ONE_MODEL if patch.keys() & {"name", "backend"} else frozenset()
        case ("states", _) if "type" in patch:
            return None
        case ("states", _):
            return frozenset(other for key, other in _OTHER_WAY_ON.items() if patch.get(key) is not None)
        case _:
            return frozenset()


_OF_ONE_MODEL: Final = frozenset({"engine", "chat_template_kwargs"})
_OTHER_WAY_ON: Final = {"next": "routes", "routes": "next"}
