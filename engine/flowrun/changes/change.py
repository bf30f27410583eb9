"""One change of a spec, as data."""

from typing import Final, Literal, get_args

import msgspec

from flowrun.errors import Path
from flowrun.spec.model import JSON

Impact = Literal["breaking", "compatible", "internal"]
"""breaking: somebody who runs the flow has to change something. compatible: somebody may use something new.
internal: the flow takes and gives the same, and works differently."""

IMPACTS: Final[tuple[Impact, ...]] = get_args(Impact)


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What changed at ``path``; ``old`` and ``new`` are UNSET where nothing stands."""

    impact: Impact
    path: Path
    what: str
    old: JSON = msgspec.UNSET
    new: JSON = msgspec.UNSET

    def below(self, path: Path) -> "Change":
        """Give the same change further down in a document."""
        return msgspec.structs.replace(self, path=(*path, *self.path))

    def inside(self) -> "Change":
        """Give the same change as one that nobody outside can notice."""
        return msgspec.structs.replace(self, impact="internal")
