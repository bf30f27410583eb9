"""A flow with its sub-flows: files are loaded as they are, local flows take what they lack from their file."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Final

import msgspec

from flowrun.errors import Issue, Path, SpecError
from flowrun.loading.document import Variables, issue_at
from flowrun.loading.load import ON_DISK, Files, Loaded, load_spec
from flowrun.loading.project import lies_in
from flowrun.loading.yaml_source import read_document
from flowrun.spec import Flow, Map, Parallel, Spec

_HAS_KEY: Final = re.compile(rb"^[\"']?flowrun[\"']?\s*:", re.MULTILINE)


class FlowTree(msgspec.Struct, frozen=True, kw_only=True):
    """A flow and those that it runs, by the texts that refer to them.

    ``base`` is a local flow's path in its file, ``model_dir`` the folder from which the paths of its models count.
    """

    loaded: Loaded
    base: Path = ()
    model_dir: FilePath
    flows: Mapping[str, "FlowTree"] = {}

    @property
    def variables(self) -> Variables:
        """Give what the environment gave to these flows. What is a secret anywhere is nothing else elsewhere."""
        found = Variables()
        for flow in self.walk():
            found |= flow.loaded.document.variables
        return Variables(
            values={name: value for name, value in found.values.items() if name not in found.secrets},
            addresses={name: value for name, value in found.addresses.items() if name not in found.secrets},
            secrets=found.secrets,
        )

    def walk(self) -> Iterator["FlowTree"]:
        """Give this flow and all below it, each once however often it is referred to."""
        seen: set[tuple[str, Path]] = set()
        waiting = [self]
        while waiting:
            tree = waiting.pop(0)
            key = (tree.loaded.document.file, tree.base)
            if key not in seen:
                seen.add(key)
                yield tree
                waiting.extend(tree.flows.values())


def load_flows(
    loaded: Loaded,
    *,
    profile: str | None = None,
    environ: Mapping[str, str] = {},
    require_environment: bool = True,
    files: Files = ON_DISK,
    project: FilePath | None = None,
) -> FlowTree:
    """Load the sub-flows of a spec, and theirs. A local flow that is not there is left out: the checks tell of it.

    A sub-flow's file is loaded with the same profile where it has one of that name. It must lie in the ``project``, if
    one is given, and be a spec: of any other file nothing is read or shown.

    Raises:
        SpecError: everything that is wrong with the files of sub-flows, and sub-flows that run themselves.
    """
    return _Loader(profile, environ, require_environment, files, project).tree(loaded, (), _folder(loaded), ())


def may_be_spec(content: bytes) -> bool:
    """Tell whether a file may be meant as a spec, by its top-level key: errors show nothing of any other."""
    if _HAS_KEY.search(content) is not None:
        return True
    value = read_document(content, "").value
    return isinstance(value, dict) and "flowrun" in value


def references(spec: Spec) -> Iterator[tuple[Path, str]]:
    """Give each reference to a sub-flow, with its path in the spec."""
    for name, state in spec.states.items():
        match state:
            case Flow() | Map():
                yield ("states", name, "flow"), state.flow
            case Parallel():
                for branch, part in state.branches.items():
                    yield ("states", name, "branches", branch, "flow"), part.flow


class _NoSpec(Exception):
    """A reference leads to no spec; nothing of what it leads to is told."""

    def __init__(self, code: str, message: str, remedy: str) -> None:
        self.code = code
        self.remedy = remedy
        super().__init__(message)


class _Loader:
    """One pass over a tree of flows. A flow is known by its file and, if it is a local one, its name."""

    def __init__(
        self,
        profile: str | None,
        environ: Mapping[str, str],
        require_environment: bool,
        disk: Files,
        project: FilePath | None,
    ) -> None:
        self._profile = profile
        self._environ = environ
        self._require_environment = require_environment
        self._disk = disk
        self._project = project
        self._files: dict[FilePath, Loaded] = {}

    def tree(
        self, loaded: Loaded, base: Path, model_dir: FilePath, above: tuple[tuple[FilePath, Path], ...]
    ) -> FlowTree:
        here = (FilePath(loaded.document.file).resolve(), base)
        chain = (*above, here)
        flows: dict[str, FlowTree] = {}
        issues: list[Issue] = []
        for path, reference in (*references(loaded.spec), *_declared_here(loaded, base)):
            if reference in flows:
                continue
            try:
                child = self._child(loaded, base, reference)
            except SpecError as exc:
                issues += exc.issues
                continue
            except _NoSpec as exc:
                issues.append(issue_at(loaded.document, exc.code, (*base, *path), str(exc), exc.remedy))
                continue
            if child is None:
                continue
            found, child_base, has_models = child
            if (FilePath(found.document.file).resolve(), child_base) in chain:
                message = f"the sub-flow {reference!r} runs itself, through {' > '.join(map(_name, chain))}"
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
        """Give what a reference leads to, its path in its file, and whether it has models of its own."""
        if reference.startswith("#"):
            name = reference[1:]
            if name not in loaded.spec.flows:
                return None
            own = loaded.spec.flows[name]
            found = msgspec.structs.replace(loaded, spec=inherit(loaded.spec, own))
            return found, _declared(loaded, base, name), bool(own.models)
        file = self._file(FilePath(loaded.document.file).parent / reference, reference)
        models = file.spec.models or loaded.spec.models
        whole = msgspec.structs.replace(file, spec=msgspec.structs.replace(file.spec, models=models))
        return whole, (), bool(file.spec.models)

    def _file(self, path: FilePath, reference: str) -> Loaded:
        """Load a file, once.

        Raises:
            _NoSpec: it is not there, not of the project, or no spec.
        """
        if self._project is not None and not lies_in(path, self._project):
            remedy = "move it into the project, or name a folder around both with --project-dir"
            raise _NoSpec("FR709", f"the file {reference!r} lies outside of the project {self._project}", remedy)
        key = path.resolve()
        if key not in self._files:
            if not self._disk.has(path):
                raise _NoSpec("FR706", f"there is no file {reference!r}", "give its path relative to this spec's file")
            if not may_be_spec(self._disk.read(path)):
                raise _NoSpec("FR709", f"the file {reference!r} is no spec", "a spec has a top-level key 'flowrun'")
            self._files[key] = self._load(path)
        return self._files[key]

    def _load(self, path: FilePath) -> Loaded:
        profile = self._profile
        if profile is not None:
            plain = load_spec(path, environ=self._environ, require_environment=False, files=self._disk)
            profile = profile if profile in plain.document.value.get("profiles", {}) else None
        return load_spec(
            path,
            profile=profile,
            environ=self._environ,
            require_environment=self._require_environment,
            files=self._disk,
        )


def inherit(parent: Spec, child: Spec) -> Spec:
    """Give a local flow with the models, tools, sampling and local flows of its file where it has none of its own."""
    return msgspec.structs.replace(
        child,
        models=child.models or parent.models,
        tools=child.tools or parent.tools,
        sampling={**parent.sampling, **child.sampling},
        flows={**parent.flows, **child.flows},
    )


def _declared_here(loaded: Loaded, base: Path) -> Iterator[tuple[Path, str]]:
    """Give a reference to each local flow that this flow declares, so that one that nothing runs is checked too."""
    for name in loaded.spec.flows:
        if (*base, "flows", name) in loaded.document.places:
            yield ("flows", name), f"#{name}"


def _folder(loaded: Loaded) -> FilePath:
    return FilePath(loaded.document.file).resolve().parent


def _declared(loaded: Loaded, base: Path, name: str) -> Path:
    """Give the path of a local flow: in the flow that refers to it, or in one around that."""
    while base and (*base, "flows", name) not in loaded.document.places:
        base = base[:-2]
    return (*base, "flows", name)


def _name(flow: tuple[FilePath, Path]) -> str:
    file, base = flow
    return f"{file.name}#{base[-1]}" if base else file.name
