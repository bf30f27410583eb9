"""What a check looks at, and how it says what it found."""

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from flowrun.errors import FlowrunError, Issue, Path
from flowrun.loading import Loaded, issue_at
from flowrun.spec import Spec


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A loaded spec; with ``functions``, the Python functions of its entrypoints, or why one could not be loaded.

    ``functions`` is None where nothing may be imported (``--no-import``). ``flows`` are the specs of its sub-flows by
    the texts that refer to them. A local flow is a subject of its own: ``base`` is its path in the file.
    """

    loaded: Loaded
    functions: Mapping[str, Callable[..., Any] | FlowrunError] | None = None
    flows: Mapping[str, Spec] = {}
    base: Path = ()

    @property
    def spec(self) -> Spec:
        """The spec."""
        return self.loaded.spec

    def issue(self, code: str, path: Path, message: str, remedy: str = "", *, key: bool = False) -> Issue:
        """Make an issue at a path of the spec; ``key`` points at the key rather than the value."""
        return issue_at(self.loaded.document, code, (*self.base, *path), message, remedy, key=key)
