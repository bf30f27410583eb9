"""One change of a spec, as data."""

from typing import Final, Literal, get_args

import msgspec

from flowrun.errors import Path
from flowrun.spec.model import JSON

Impact = Literal["breaking", "compatible", "internal"]
"""breaking: callers of the flow have to change something. compatible: callers may use something new.
internal: inputs, answers and outputs stay the same, and the flow works differently."""

IMPACTS: Final[tuple[Impact, ...]] = get_args(Impact)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A change at ``path``; ``old`` or ``new`` is UNSET where that version has no value."""

    impact: Impact
    path: Path
    what: str
    old: JSON = msgspec.UNSET
    new: JSON = msgspec.UNSET

    def with_prefix(self, path: Path) -> "Change":
        """Return the same change with ``path`` put before its path."""
        return msgspec.structs.replace(self, path=(*path, *self.path))

    def as_internal(self) -> "Change":
        """Return the same change with the impact ``internal``."""
        return msgspec.structs.replace(self, impact="internal")
