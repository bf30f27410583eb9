"""What a check looks at, and how it says what it found."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal

import msgspec

from flowrun.checks.dataflow import StateGraph, build_state_graph
from flowrun.errors import FlowrunError, Issue, Path
from flowrun.spec import Loaded, issue_at
from flowrun.spec.document import written_path
from flowrun.spec.model import Spec


class Subject(msgspec.Struct, frozen=True, kw_only=True, dict=True):
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

    @cached_property
    def ways(self) -> StateGraph:
        """The states as a graph."""
        return build_state_graph(self.spec)

    def has(self, path: Path) -> bool:
        """Tell whether the file says something at a path; a flow may have it from the one that runs it."""
        return written_path(self.loaded.document, (*self.base, *path)) in self.loaded.document.places

    def issue(
        self,
        code: str,
        path: Path,
        message: str,
        remedy: str = "",
        *,
        key: bool = False,
        severity: Literal["error", "warning"] = "error",
    ) -> Issue:
        """Make an issue at a path of the spec; ``key`` points at the key rather than the value."""
        issue = issue_at(self.loaded.document, code, (*self.base, *path), message, remedy, key=key)
        return issue if severity == "error" else msgspec.structs.replace(issue, severity=severity)
