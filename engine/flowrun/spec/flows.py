"""Loading of a flow with its sub-flows. A local flow inherits models, tools and more from its file (``inherit``)."""

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path as FilePath
from typing import Final

import msgspec

from flowrun.errors import Issue, Path, SpecError
from flowrun.spec.document import Variables, issue_at
from flowrun.spec.load import ON_DISK, Files, Loaded, load_spec
from flowrun.spec.model import Holds, Spec
from flowrun.spec.parts import parts_of
from flowrun.spec.project import lies_in
from flowrun.spec.yaml.reader import read_document

_KEY: Final = re.compile(rb"^[\"']?flowrun[\"']?\s*:", re.MULTILINE)


class FlowTree(msgspec.Struct, frozen=True, kw_only=True):
    """A flow and its sub-flows. ``flows`` maps each reference, as the spec writes it, to the sub-flow.

    ``base`` is a local flow's path in its file. Relative paths in the flow's models start at the folder ``model_dir``.
    """

    loaded: Loaded
    base: Path = ()
    model_dir: FilePath
    flows: Mapping[str, "FlowTree"] = {}

    @property
    def variables(self) -> Variables:
        """Return the environment variables of all flows in the tree. A secret of one flow is a secret in all."""
        found = Variables()
        for flow in self.walk():
            found |= flow.loaded.document.variables
        return Variables(
            values={name: value for name, value in found.values.items() if name not in found.secrets},
            addresses={name: value for name, value in found.addresses.items() if name not in found.secrets},
            secrets=found.secrets,
        )

    def walk(self) -> Iterator["FlowTree"]:
        """Yield this flow and all flows below it, each once, however many references lead to it."""
        seen: set[tuple[str, Path]] = set()
        queue = [self]
        while queue:
            tree = queue.pop(0)
            key = (tree.loaded.document.file, tree.base)
            if key not in seen:
                seen.add(key)
                yield tree
                queue.extend(tree.flows.values())


def load_flows(
    loaded: Loaded,
    *,
    profile: str | None = None,
    environ: Mapping[str, str] = {},
    require_environment: bool = True,
    files: Files = ON_DISK,
    project: FilePath | None = None,
) -> FlowTree:
    """Load the sub-flows of a spec, recursively. A local flow that does not exist is left out: the checks report it.

    Args:
        profile: the profile to merge over each sub-flow's file that has a profile of this name.
        environ: the variables for ``${VAR}``.
        require_environment: report a variable that is not set; see ``load_spec``.
        files: the source of the sub-flows' files.
        project: the folder that must contain the files. Issues show no text of a file outside of it, or of a file that
            is not a spec.

    Raises:
        SpecError: the files of sub-flows have errors, or a sub-flow runs itself.
    """
    return _Loader(profile, environ, require_environment, files, project).tree(loaded, (), _folder(loaded), ())


def may_be_spec(content: bytes) -> bool:
    """Return whether a file is probably meant as a spec: it has its top-level key. Issues show no text of others."""
    if _KEY.search(content):
        return True
    value = read_document(content, "").value
    return isinstance(value, dict) and "flowrun" in value


def references(spec: Spec) -> Iterator[tuple[Path, str]]:
    """Yield each reference to a sub-flow with its path in the spec."""
    for name, state in spec.states.items():
        for part in parts_of(state, Holds.FLOW):
            yield ("states", name, *part.path), part.value


class _NotASpec(Exception):
    """A reference that leads to no spec. The message shows no text of the file."""

    def __init__(self, code: str, message: str, remedy: str) -> None:
        self.code = code
        self.remedy = remedy
        super().__init__(message)


class _Loader(msgspec.Struct):
    """A single pass over a tree of flows. A flow is identified by its file and its path in the file."""

    profile: str | None
    environ: Mapping[str, str]
    require_environment: bool
    files: Files
    project: FilePath | None
    loaded: dict[FilePath, Loaded] = msgspec.field(default_factory=dict)

    def tree(
        self, loaded: Loaded, base: Path, model_dir: FilePath, ancestors: tuple[tuple[FilePath, Path], ...]
    ) -> FlowTree:
        here = (FilePath(loaded.document.file).resolve(), base)
        chain = (*ancestors, here)
        flows: dict[str, FlowTree] = {}
        issues: list[Issue] = []
        for path, reference in (*references(loaded.spec), *_declared_flows(loaded, base)):
            if reference in flows:
                continue
            try:
                child = self._child(loaded, base, reference)
            except SpecError as exc:
                issues += exc.issues
                continue
            except _NotASpec as exc:
                issues.append(issue_at(loaded.document, exc.code, (*base, *path), str(exc), exc.remedy))
                continue
            if child is None:
                continue
            found, child_base, has_models = child
            if (FilePath(found.document.file).resolve(), child_base) in chain:
                message = f"the sub-flow {reference!r} runs itself, through {' > '.join(map(_flow_name, chain))}"
                issues.append(issue_at(loaded.document, "FR707", (*base, *path), message, "loop by routes instead"))
                continue
            try:
                flows[reference] = self.tree(found, child_base, _folder(found) if has_models else model_dir, chain)
            except SpecError as exc:
                issues += exc.issues
        if issues:
            raise SpecError(dict.fromkeys(issues))
        return FlowTree(loaded=loaded, base=base, model_dir=model_dir, flows=flows)

    def _child(self, loaded: Loaded, base: Path, reference: str) -> tuple[Loaded, Path, bool] | None:
        """Return a sub-flow, its path in its file, and whether it has models of its own; None if it does not exist."""
        if reference.startswith("#"):
            name = reference[1:]
            if name not in loaded.spec.flows:
                return None
            own = loaded.spec.flows[name]
            found = msgspec.structs.replace(loaded, spec=inherit(loaded.spec, own))
            return found, _declared_path(loaded, base, name), bool(own.models)
        path = FilePath(loaded.document.file).parent / reference
        if reference in loaded.spec.flows and not self.files.has(path):
            raise _NotASpec("FR706", f"there is no file {reference!r}", f"did you mean '#{reference}'?")
        file = self._file(path, reference)
        models = file.spec.models or loaded.spec.models
        with_models = msgspec.structs.replace(file, spec=msgspec.structs.replace(file.spec, models=models))
        return with_models, (), bool(file.spec.models)

    def _file(self, path: FilePath, reference: str) -> Loaded:
        """Load a file, or return it if it is loaded already.

        Raises:
            _NotASpec: the file does not exist, lies outside of the project, or is not a spec.
        """
        if self.project is not None and not lies_in(path, self.project):
            remedy = "move it into the project, or name a folder around both with --project-dir"
            raise _NotASpec("FR709", f"the file {reference!r} lies outside of the project {self.project}", remedy)
        key = path.resolve()
        if key not in self.loaded:
            if not self.files.has(path):
                raise _NotASpec(
                    "FR706", f"there is no file {reference!r}", "give its path relative to this spec's file"
                )
            if not may_be_spec(self.files.read(path)):
                raise _NotASpec("FR709", f"the file {reference!r} is no spec", "a spec has a top-level key 'flowrun'")
            self.loaded[key] = self._load(path)
        return self.loaded[key]

    def _load(self, path: FilePath) -> Loaded:
        load = partial(load_spec, path, environ=self.environ, files=self.files, project=self.project)
        profile = self.profile
        if profile is not None:
            plain = load(require_environment=False)
            profile = profile if profile in plain.document.value.get("profiles", {}) else None
        return load(profile=profile, require_environment=self.require_environment)


def inherit(parent: Spec, child: Spec) -> Spec:
    """Return the local flow ``child`` with what it has from the flow around it.

    These are models, tools, sampling, isolation and local flows. The child's own values win: sampling and flows are
    merged by name, the others are replaced.
    """
    return msgspec.structs.replace(
        child,
        models=child.models or parent.models,
        tools=child.tools or parent.tools,
        mcp_servers={**parent.mcp_servers, **child.mcp_servers},
        sampling={**parent.sampling, **child.sampling},
        flows={**parent.flows, **child.flows},
        isolation=child.isolation or parent.isolation,
    )


def _declared_flows(loaded: Loaded, base: Path) -> Iterator[tuple[Path, str]]:
    """Yield a reference to each local flow that this flow declares, so that an unused one is checked too."""
    for name in loaded.spec.flows:
        if (*base, "flows", name) in loaded.document.places:
            yield ("flows", name), f"#{name}"


def _folder(loaded: Loaded) -> FilePath:
    return FilePath(loaded.document.file).resolve().parent


def _declared_path(loaded: Loaded, base: Path, name: str) -> Path:
    """Return the path of a local flow: in the flow that refers to it, or in the nearest flow around that one."""
    while base and (*base, "flows", name) not in loaded.document.places:
        base = base[:-2]
    return (*base, "flows", name)


def _flow_name(flow: tuple[FilePath, Path]) -> str:
    file, base = flow
    return f"{file.name}#{base[-1]}" if base else file.name
