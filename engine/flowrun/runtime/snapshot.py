"""A flow at the time when a run starts: a batch and a durable run resume with it.

A snapshot holds all that determines a run's transitions: the texts of the spec and its sub-flows, the values of their
variables, and the declarations of the tools. It holds no secret: the texts have ``${VAR}`` in its place. The digest is
that of a canonical form, which does not depend on comments, other profiles and the folder of the files.
"""

import hashlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from flowrun.core.events import ToolDeclaration
from flowrun.core.graph import Graph
from flowrun.spec import Document, FlowTree, StoredFiles, read_yaml
from flowrun.spec.model import JSON


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The files and tools of a flow.

    Attributes:
        digest: the SHA-256 of the canonical form, in hexadecimal.
        files: the texts of the files, by their paths relative to the folder of ``main``.
        tools: the declarations of the tools, by flow and name.
        variables: the environment variables other than secrets and addresses of servers; a resumed run uses these.
        addresses: the addresses of servers; a resumed run uses these only if the environment has no others.
    """

    digest: str
    main: str
    profile: str | None
    files: Mapping[str, str]
    tools: Mapping[str, Mapping[str, ToolDeclaration]]
    variables: Mapping[str, str] = {}
    addresses: Mapping[str, str] = {}

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the environment to prepare the flow with: that of the snapshot, with the secrets of ``environ``."""
        return {**self.addresses, **environ, **self.variables}

    def files_in(self, folder: Path) -> StoredFiles:
        """Return the files as if ``main`` were in a folder, and the others relative to it."""
        return StoredFiles({(folder / name).resolve(): text.encode() for name, text in self.files.items()})


class _Canonical(msgspec.Struct, frozen=True):
    """The canonical form. Keys keep the order of the file, since that of states and variables has a meaning."""

    main: str
    profile: str | None
    files: Mapping[str, tuple[JSON, list[str]]]
    tools: Mapping[str, Mapping[str, ToolDeclaration]]


def take_snapshot(tree: FlowTree, graph: Graph, *, profile: str | None) -> Snapshot:
    """Build the snapshot of a loaded and compiled flow."""
    main = Path(tree.loaded.document.file).resolve()
    documents = {flow_name(flow, main.parent): flow.loaded.document for flow in tree.walk() if not flow.base}
    texts = _included(documents.values(), main.parent)
    tools: dict[str, Mapping[str, ToolDeclaration]] = {}
    _declare(tree, graph, main.parent, tools)
    files = {name: _canonical_file(document, profile) for name, document in documents.items()}
    files |= {name: (text, []) for name, text in texts.items()}
    canonical = _Canonical(main.name, profile, files, tools)
    return Snapshot(
        digest=hashlib.sha256(msgspec.json.encode(canonical)).hexdigest(),
        main=main.name,
        profile=profile,
        files={
            **{name: document.text for name, document in documents.items()},
            **texts,
            **_locks(documents.values(), main.parent),
        },
        tools=tools,
        variables=tree.variables.values,
        addresses=tree.variables.addresses,
    )


def _included(documents: Iterable[Document], folder: Path) -> dict[str, str]:
    """Return the texts of the files that stand for texts of specs, by their names."""
    included = [one for document in documents for one in document.included.values()]
    return {os.path.relpath(Path(one.file).resolve(), folder): one.text for one in included}


def _locks(documents: Iterable[Document], folder: Path) -> dict[str, str]:
    """Return the texts of the locks of models. They are no part of the digest: they change nothing of a flow."""
    locks = [document.lock for document in documents if document.lock is not None]
    return {os.path.relpath(Path(one.file).resolve(), folder): one.text for one in locks}


def flow_name(flow: FlowTree, folder: Path) -> str:
    """Return the name of a flow: its file, relative to a folder, and the path in the file of a local flow."""
    file = os.path.relpath(Path(flow.loaded.document.file).resolve(), folder)
    return "#".join([file, *map(str, flow.base[1::2])])


def _canonical_file(document: Document, profile: str | None) -> tuple[JSON, list[str]]:
    """Return a file's value without the other profiles, and the paths of its unquoted variables."""
    read = read_yaml(document.text, document.file)
    value = dict(read.value)
    profiles = value.pop("profiles", {})
    if profile in profiles:
        value["profiles"] = {profile: profiles[profile]}
    return value, sorted(map(repr, read.bare))


def _declare(flow: FlowTree, graph: Graph, folder: Path, tools: dict[str, Mapping[str, ToolDeclaration]]) -> None:
    name = flow_name(flow, folder)
    if name not in tools:
        tools[name] = {tool: compiled.declared for tool, compiled in graph.tools.items()}
        for reference, child in flow.flows.items():
            _declare(child, graph.flows[reference], folder, tools)
