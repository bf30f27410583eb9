"""A flow with its sub-flows: files are loaded as they are, local flows take what they lack from their file."""

from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath

import msgspec

from flowrun.errors import Issue, Path, SpecError
from flowrun.loading.document import issue_at
from flowrun.loading.load import ON_DISK, Files, Loaded, load_spec
from flowrun.spec import Flow, Map, Parallel, Spec


class FlowTree(msgspec.Struct, frozen=True, kw_only=True):
    """A flow and those that it runs, by the texts that refer to them.

    ``base`` is a local flow's path in its file, ``model_dir`` the folder from which the paths of its models count.
    """

    loaded: Loaded
    base: Path = ()
    model_dir: FilePath
    flows: Mapping[str, "FlowTree"] = {}

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
) -> FlowTree:
    """Load the sub-flows of a spec, and theirs. What a reference leads to nowhere is left out: the checks tell of it.

    A sub-flow's file is loaded with the same profile where it has one of that name.

    Raises:
        SpecError: everything that is wrong with the files of sub-flows, and sub-flows that run themselves.
    """
    return _Loader(profile, environ, require_environment, files).tree(loaded, (), _folder(loaded), ())


def references(spec: Spec) -> Iterator[tuple[Path, str]]:
    """Give each reference to a sub-flow, with its path in the spec."""
    for name, state in spec.states.items():
        match state:
            case Flow() | Map():
                yield ("states", name, "flow"), state.flow
            case Parallel():
                for branch, part in state.branches.items():
                    yield ("states", name, "branches", branch, "flow"), part.flow


class _Loader:
    """One pass over a tree of flows. A flow is known by its file and, if it is a local one, its name."""

    def __init__(self, profile: str | None, environ: Mapping[str, str], require_environment: bool, disk: Files) -> None:
        self._profile = profile
        self._environ = environ
        self._require_environment = require_environment
        self._disk = disk
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
        path = FilePath(loaded.document.file).parent / reference
        if not self._disk.has(path):
            return None
        file = self._file(path)
        models = file.spec.models or loaded.spec.models
        whole = msgspec.structs.replace(file, spec=msgspec.structs.replace(file.spec, models=models))
        return whole, (), bool(file.spec.models)

    def _file(self, path: FilePath) -> Loaded:
        key = path.resolve()
        if key not in self._files:
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
