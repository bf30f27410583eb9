"""A flow as it is when a run begins: what a batch or a durable run belongs to, and goes on with.

It holds what decides a run's transitions: the texts of the spec and its sub-flows, the values of their variables, and
the tools as the models are told of them. No secret is kept: in the texts it is ``${VAR}``. The digest is that of a
canonical form, which comments, other profiles and the folder that the files lie in do not change.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from flowrun.core.events import ToolDeclaration
from flowrun.core.graph import Graph
from flowrun.spec import Document, FlowTree, StoredFiles, read_yaml
from flowrun.spec.model import JSON


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A flow's files, by their paths relative to the folder of ``main``, and its tools, by flow and name.

    ``variables`` are what the environment gave for those that are neither secret nor a server's address; they count
    when a run goes on. The ``addresses`` that it gave count only where there are no others by then.
    """

    digest: str
    main: str
    profile: str | None
    files: Mapping[str, str]
    tools: Mapping[str, Mapping[str, ToolDeclaration]]
    variables: Mapping[str, str] = {}
    addresses: Mapping[str, str] = {}

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Give the environment in which the flow is prepared as it was; secrets are those of ``environ``."""
        return {**self.addresses, **environ, **self.variables}

    def files_in(self, folder: Path) -> StoredFiles:
        """Give the files as if they lay in and around a folder, where ``main`` would be."""
        return StoredFiles({(folder / name).resolve(): text.encode() for name, text in self.files.items()})


class _Canonical(msgspec.Struct, frozen=True):
    """What the digest is of. The order of keys is the author's, for that of states and variables has a meaning."""

    main: str
    profile: str | None
    files: Mapping[str, tuple[JSON, list[str]]]
    tools: Mapping[str, Mapping[str, ToolDeclaration]]


def take_snapshot(tree: FlowTree, graph: Graph, *, profile: str | None) -> Snapshot:
    """Take the snapshot of a loaded and compiled flow."""
    main = Path(tree.loaded.document.file).resolve()
    documents = {flow_name(flow, main.parent): flow.loaded.document for flow in tree.walk() if not flow.base}
    tools: dict[str, Mapping[str, ToolDeclaration]] = {}
    _declare(tree, graph, main.parent, tools)
    written = {name: _written(document, profile) for name, document in documents.items()}
    canonical = _Canonical(main.name, profile, written, tools)
    return Snapshot(
        digest=hashlib.sha256(msgspec.json.encode(canonical)).hexdigest(),
        main=main.name,
        profile=profile,
        files={name: document.text for name, document in documents.items()},
        tools=tools,
        variables=tree.variables.values,
        addresses=tree.variables.addresses,
    )


def flow_name(flow: FlowTree, folder: Path) -> str:
    """Name a flow by its file, relative to a folder, and by its path in it if it is a local one."""
    file = os.path.relpath(Path(flow.loaded.document.file).resolve(), folder)
    return "#".join([file, *map(str, flow.base[1::2])])


def _written(document: Document, profile: str | None) -> tuple[JSON, list[str]]:
    """Give a file's value with no other profile than the chosen one, and where it has unquoted variables."""
    read = read_yaml(document.text, document.file)
    value = dict(read.value)
    profiles = value.pop("profiles", {})
    if profile in profiles:
        value["profiles"] = {profile: profiles[profile]}
    return value, sorted(map(repr, read.bare))


def _declare(flow: FlowTree, graph: Graph, folder: Path, tools: dict[str, Mapping[str, ToolDeclaration]]) -> None:
    name = flow_name(flow, folder)
    if name not in tools:
        tools[name] = {tool: compiled.declaration for tool, compiled in graph.tools.items()}
        for reference, child in flow.flows.items():
            _declare(child, graph.flows[reference], folder, tools)
