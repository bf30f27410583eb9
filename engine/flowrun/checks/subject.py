"""The input of all checks: a loaded spec, and a method that builds issues about it."""

from collections.abc import Mapping
from functools import cached_property
from typing import Literal

import msgspec

from flowrun.checks.dataflow import StateGraph, build_state_graph
from flowrun.checks.shapes import shapes_everywhere
from flowrun.core.graph import edges
from flowrun.core.shapes import Shape
from flowrun.core.texts import Text, texts_of
from flowrun.errors import Issue, Path
from flowrun.spec import EntrypointError, FlowTree, Loaded, Signature, issue_at
from flowrun.spec.document import written_path
from flowrun.spec.model import JSON, Spec, Tool

Severity = Literal["error", "warning"]


class Subject(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A loaded spec to check, with its sub-flows. A local flow is a subject of its own.

    ``functions`` maps each entrypoint to its signature, or to the error of its import; it is None if nothing may be
    imported (``--no-import``).
    """

    tree: FlowTree
    functions: Mapping[str, Signature | EntrypointError] | None = None

    @property
    def loaded(self) -> Loaded:
        """Return the loaded file."""
        return self.tree.loaded

    @property
    def base(self) -> Path:
        """Return the path of the spec in its file."""
        return self.tree.base

    @property
    def spec(self) -> Spec:
        """Return the spec."""
        return self.loaded.spec

    @cached_property
    def flows(self) -> Mapping[str, Spec]:
        """Return the specs of the sub-flows, by the references to them."""
        return {reference: flow.loaded.spec for reference, flow in self.tree.flows.items()}

    @cached_property
    def state_graph(self) -> StateGraph:
        """Return the graph of the spec's states."""
        return build_state_graph(self.spec)

    @cached_property
    def texts(self) -> tuple[Text, ...]:
        """Return all templates and expressions of the spec."""
        return tuple(texts_of(self.spec))

    @cached_property
    def unsure(self) -> bool:
        """Whether a route leads to no state, or a text is not valid: what follows from that is not reported too."""
        if any(edge.target not in self.spec.states for edge in edges(self.spec)):
            return True
        return any(not text.is_valid for text in self.texts)

    @cached_property
    def shapes(self) -> Mapping[str, Shape]:
        """Return the shapes of the names that have the same one in all texts."""
        return shapes_everywhere(self.spec, self.flows)

    def parameters_of(self, tool: Tool) -> Mapping[str, JSON] | None:
        """Return the JSON Schema of all arguments of a tool; None if it is that of a function that is not known."""
        if tool.parameters is not None:
            return tool.parameters
        signature = (self.functions or {}).get(tool.entrypoint or "")
        return signature.arguments if isinstance(signature, Signature) else None

    def has(self, path: Path) -> bool:
        """Return whether the file has a value at a path. It has none for a value that a flow inherits."""
        return written_path(self.loaded.document, (*self.base, *path)) in self.loaded.document.places

    def issue(
        self,
        code: str,
        path: Path,
        message: str,
        remedy: str = "",
        *,
        key: bool = False,
        word: str = "",
        line: int = 1,
        severity: Severity = "error",
    ) -> Issue:
        """Build an issue at a path of the spec. See ``issue_at`` for the arguments."""
        at = (*self.base, *path)
        issue = issue_at(self.loaded.document, code, at, message, remedy, key=key, word=word, line=line)
        return issue if severity == "error" else msgspec.structs.replace(issue, severity=severity)
