"""A project's specs become flows that can run: loaded, checked and compiled, their functions imported. Runs nothing.

``validate`` and a run take the same path, so that what passes the checks starts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from flowrun.checks import Subject, check_spec
from flowrun.core.events import ToolDeclaration
from flowrun.core.graph import Graph, compile_graph
from flowrun.core.ports import ModelBackend
from flowrun.errors import Bug, FlowrunError, Issue, Place, SpecError, UnreadableFile, UsageError, crash_issue
from flowrun.errors import Path as ErrorPath
from flowrun.runtime.snapshot import Snapshot, flow_name
from flowrun.spec import (
    ON_DISK,
    EntrypointError,
    FlowTree,
    Loaded,
    derive_parameters,
    find_project,
    issue_at,
    lies_in,
    load_entrypoint,
    load_flows,
    load_spec,
)
from flowrun.spec.find import find_specs
from flowrun.spec.load import Files
from flowrun.spec.model import JSON, Holds, Model, Spec, Tool
from flowrun.spec.parts import parts_of
from flowrun.spec.project import is_file
from flowrun.spec.suggestions import suggest
from flowrun.unicode import find_encoding_error, well_formed

Function = Callable[..., JSON]

_ONLY_A_SUB_FLOW = "FR704"
"""As a warning, the code of a flow without a model of its own: such a flow can be checked alone, but not run alone."""


class BoundModel(msgspec.Struct, frozen=True):
    """A model, and the folder that its paths are relative to."""

    model: Model
    folder: Path


class CompiledFlow(msgspec.Struct, frozen=True, kw_only=True, eq=False, weakref=True):
    """A spec that can run: loaded with its sub-flows, checked and compiled.

    Attributes:
        path: the file of the spec.
        profile: the profile that is merged over it.
        project_dir: the folder that entrypoints are imported from; None: it is found from the file.
        project: the folder that all included files lie in.
        issues: the warnings of the spec and its sub-flows.
        tree: the spec and its sub-flows, with their files and places.
        functions: the functions of the tools and call states, by their entrypoints.
        models: the models that chat states use, by the names of their backends.
        backends: backends that are used in place of models, by the same names.
        secrets: the values of secret variables, each with the text that is shown in its place.
    """

    path: Path
    profile: str | None
    project_dir: Path | None
    project: Path
    issues: tuple[Issue, ...]
    tree: FlowTree
    graph: Graph
    functions: Mapping[str, Function]
    models: Mapping[str, BoundModel]
    backends: Mapping[str, ModelBackend] = {}
    secrets: Mapping[str, str] = {}

    @property
    def spec(self) -> Spec:
        """Return the spec, without its sub-flows."""
        return self.tree.loaded.spec

    @property
    def states_that_wait(self) -> list[str]:
        """Return the states of the flow and its sub-flows that ask a person, as text for messages."""
        return [
            f"state {name} of {tree.loaded.spec.name}"
            for tree in self.tree.walk()
            for name, state in tree.loaded.spec.states.items()
            if state.asks == "person"
        ]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.spec.name} {self.spec.version} of {self.path}>"


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """Loads, checks and compiles specs.

    Attributes:
        folder: the folder that entrypoints are imported from; None: it is found from each spec's file.
        environ: the variables for ``${VAR}``.
        require_environment: report variables that are not set. A machine that only checks or tests specs has no keys.
        functions: functions by the entrypoints that they are used for; these entrypoints are not imported.
    """

    folder: Path | None = None
    environ: Mapping[str, str] = {}
    require_environment: bool = True
    functions: Mapping[str, Function] = {}

    def check(self, path: Path, *, profile: str | None = None, imports: bool = True) -> list[Issue]:
        """Return the issues of a spec's file and its sub-flows; every failure with this file becomes an issue.

        Args:
            profile: the profile to merge over the spec.
            imports: import the Python functions, and check them.

        Raises:
            UsageError: the file has no such profile.
        """
        try:
            return self._check_file(path, profile, imports=imports)
        except UnreadableFile as exc:
            place, remedy = Place(str(path), 1, 1), "see whether it may be read"
            return [Issue(code="FR706", place=place, message=str(exc), remedy=remedy)]
        except Exception as exc:
            if isinstance(exc, FlowrunError) and not isinstance(exc, Bug):
                raise
            return [crash_issue(str(path), exc)]

    def check_all(self, files: Iterable[Path], *, profile: str | None = None, imports: bool = True) -> list[Issue]:
        """Return the issues of specs. Those of a sub-flow are found with each flow that runs it, and returned once."""
        found: dict[Issue, None] = {}
        for file in files:
            found |= dict.fromkeys(self.check(file, profile=profile, imports=imports))
        return list(found)

    def compile(
        self, path: Path, *, profile: str | None = None, snapshot: Snapshot | None = None, imports: bool = True
    ) -> CompiledFlow:
        """Load, check and compile a spec and its sub-flows.

        Args:
            profile: the profile to merge over the spec.
            snapshot: use its files and tools instead of the current ones; ``path`` is then only their place.
            imports: import the functions. If False, which needs a ``snapshot``, the flow can be shown, but not run.

        Raises:
            SpecError: the specs have errors; it has all of them.
            UsageError: there is no such file or profile, or ``functions`` names an entrypoint that is not in the specs.
        """
        for entrypoint, function in self.functions.items():
            if not callable(function):
                raise UsageError(f"{entrypoint}: {function!r} is no function")
        if well_formed(str(path)) != str(path):
            raise UsageError(f"the name of {well_formed(str(path))} is no valid Unicode: rename the file")
        project = find_project(path, self.folder)
        files = ON_DISK if snapshot is None else snapshot.files_in(path.parent)
        loaded = self._load(path, profile, files)
        tree = self._load_flows(loaded, profile, files, project if snapshot is None else None)
        imported = self._import_all(tree) if imports else None
        issues = _check(tree, imported) if imported is not None else []
        _raise_errors(issues)
        compiler = _Compiler(path.resolve().parent, imported or {}, {} if snapshot is None else snapshot.tools)
        graph = compiler.compile(tree)
        self._refuse_unused(compiler.functions)
        return CompiledFlow(
            path=path,
            profile=profile,
            project_dir=self.folder,
            project=project,
            issues=(*loaded.issues, *issues),
            tree=tree,
            graph=graph,
            functions=compiler.functions,
            models=compiler.models,
            secrets=tree.variables.masked(),
        )

    def _check_file(self, path: Path, profile: str | None, *, imports: bool) -> list[Issue]:
        try:
            loaded = self._load(path, profile)
        except SpecError as exc:
            return list(exc.issues)
        try:
            tree = self._load_flows(loaded, profile, ON_DISK, find_project(path, self.folder))
        except SpecError as exc:
            alone = FlowTree(loaded=loaded, model_dir=path.parent)
            own = _check(alone, self._import_all(alone) if imports else None)
            issues = [*loaded.issues, *exc.issues, *own]
            return sorted(issues, key=lambda issue: (issue.place.file != str(path), issue.place, issue.code))
        scripts = dict.fromkeys(_check_scripts(tree, find_project(path, self.folder)))
        return [*loaded.issues, *_check(tree, self._import_all(tree) if imports else None), *scripts]

    def _load(self, path: Path, profile: str | None, files: Files = ON_DISK) -> Loaded:
        return load_spec(
            path,
            profile=profile,
            environ=self.environ,
            require_environment=self.require_environment,
            files=files,
        )

    def _load_flows(self, loaded: Loaded, profile: str | None, files: Files, project: Path | None) -> FlowTree:
        return load_flows(
            loaded,
            profile=profile,
            environ=self.environ,
            require_environment=self.require_environment,
            files=files,
            project=project,
        )

    def _import_all(self, tree: FlowTree) -> "Imported":
        """Import the functions of a flow and its sub-flows."""
        return {_key(flow): self.import_functions(flow.loaded) for flow in tree.walk()}

    def import_functions(self, loaded: Loaded) -> dict[str, Function | FlowrunError]:
        """Import the functions of a spec's entrypoints; the value is the error for one that cannot be imported."""
        spec, path = loaded.spec, Path(loaded.document.file)
        called = (part.value for state in spec.states.values() for part in parts_of(state, Holds.ENTRYPOINT))
        functions: dict[str, Function | FlowrunError] = {}
        for entrypoint in dict.fromkeys([*(tool.entrypoint for tool in spec.tools.values()), *called]):
            if entrypoint in self.functions:
                functions[entrypoint] = self.functions[entrypoint]
                continue
            try:
                functions[entrypoint] = load_entrypoint(entrypoint, spec_file=path, project_dir=self.folder)
            except EntrypointError as exc:
                functions[entrypoint] = exc
        return functions

    def _refuse_unused(self, functions: Mapping[str, Function]) -> None:
        for entrypoint in self.functions:
            if entrypoint not in functions:
                near = suggest(entrypoint, functions, "entrypoints")
                raise UsageError(f"no tool and no call state of the flow has the entrypoint {entrypoint!r}; {near}")


def find_all_specs(paths: Iterable[Path], *, shown: str) -> list[Path]:
    """Return the specs among files and in folders, each once.

    Args:
        shown: names the paths in the error.

    Raises:
        UsageError: there is no such path, or no spec in any.
    """
    listed = list(paths)
    if missing := [path for path in listed if not path.exists()]:
        raise UsageError(f"there is no {missing[0]}")
    files = list(dict.fromkeys(file for path in listed for file in find_specs(path)))
    if not files:
        raise UsageError(f"no spec in {shown}: a spec is a YAML file with a key 'flowrun'")
    return files


Imported = Mapping[tuple[str, ErrorPath], Mapping[str, Function | FlowrunError]]
"""The functions of each flow of a tree by their entrypoints, or the error of one that cannot be imported."""


def _key(tree: FlowTree) -> tuple[str, ErrorPath]:
    """Return the identity of a flow: its file, and the path in the file of a local flow."""
    return tree.loaded.document.file, tree.base


def _check(tree: FlowTree, imported: Imported | None) -> list[Issue]:
    issues: dict[Issue, None] = {}
    for flow in tree.walk():
        subject = Subject(
            loaded=flow.loaded,
            functions=None if imported is None else dict(imported[_key(flow)]),
            flows={reference: child.loaded.spec for reference, child in flow.flows.items()},
            base=flow.base,
        )
        issues |= dict.fromkeys(check_spec(subject))
    return list(issues)


def _check_scripts(tree: FlowTree, project: Path) -> Iterator[Issue]:
    """Yield the issues of the files that say what the scripted models of a flow and its sub-flows reply."""
    from flowrun.backends.scripted import check_replies

    for flow in tree.walk():
        for name, model in flow.loaded.spec.models.items():
            if model.backend != "scripted":
                continue
            at, document = (*flow.base, "models", name, "name"), flow.loaded.document
            beside = Path(document.file).parent
            file = (beside if beside.resolve() == flow.model_dir.resolve() else flow.model_dir) / model.name
            if not lies_in(file, project):
                message = f"the scripted replies {model.name} lie outside of the project {project}"
                yield issue_at(document, "FR709", at, message, "move the file into the project")
            elif not is_file(file):
                remedy = "give the path of a file of replies, relative to this file"
                yield issue_at(document, "FR706", at, f"there is no file {model.name!r}", remedy)
            else:
                yield from check_replies(file)


def _raise_errors(issues: list[Issue]) -> None:
    """Raise the issues that keep a flow from running, if there are any."""
    errors = [
        msgspec.structs.replace(issue, severity="error")
        for issue in issues
        if issue.severity == "error" or issue.code == _ONLY_A_SUB_FLOW
    ]
    if errors:
        raise SpecError(errors)


class _Compiler:
    """Compiles a tree of checked flows: each flow once, with one backend for all equal models."""

    def __init__(self, folder: Path, imported: Imported, declared: Mapping[str, Mapping[str, ToolDeclaration]]) -> None:
        self.functions: dict[str, Function] = {}
        self.models: dict[str, BoundModel] = {}
        self._folder = folder
        self._imported = imported
        self._declared = declared
        self._graphs: dict[tuple[str, ErrorPath], Graph] = {}

    def compile(self, tree: FlowTree) -> Graph:
        key = _key(tree)
        if key not in self._graphs:
            self._graphs[key] = self._compile(tree)
        return self._graphs[key]

    def _compile(self, tree: FlowTree) -> Graph:
        spec = tree.loaded.spec
        imported = self._imported.get(_key(tree), {})
        found = {entrypoint: function for entrypoint, function in imported.items() if callable(function)}
        self.functions |= found
        used = {part.value for state in spec.states.values() for part in parts_of(state, Holds.MODEL)}
        backends = {name: self._backend(tree, name, model) for name, model in spec.models.items() if name in used}
        declared = self._declared.get(flow_name(tree, self._folder), {})
        return compile_graph(
            spec,
            declarations={
                name: declared[name] if name in declared else declare_tool(name, tool, found[tool.entrypoint])
                for name, tool in spec.tools.items()
            },
            flows={reference: self.compile(child) for reference, child in tree.flows.items()},
            backends=backends,
        )

    def _backend(self, tree: FlowTree, name: str, model: Model) -> str:
        """Return the name of a model's backend: the model's name, made unique if another model has it already."""
        bound = BoundModel(model, tree.model_dir)
        for known, other in self.models.items():
            if other == bound:
                return known
        backend = name
        while backend in self.models:
            backend = f"{tree.loaded.spec.name}.{backend}"
        self.models[backend] = bound
        return backend


def declare_tool(name: str, tool: Tool, function: Function) -> ToolDeclaration:
    """Return the declaration of a tool; the parts that the spec leaves out come from the function.

    Raises:
        UsageError: the parameters of the function have a default value that is not valid Unicode.
    """
    description, parameters = tool.description, tool.parameters
    if description is None or parameters is None:
        derived_description, derived_parameters = derive_parameters(function)
        description = derived_description if description is None else description
        parameters = derived_parameters if parameters is None else parameters
    description = well_formed(description)
    if wrong := find_encoding_error(parameters):
        raise UsageError(f"tool {name!r}: the parameters that its function takes cannot be written down: {wrong}")
    return ToolDeclaration(name=name, description=description, parameters=parameters, strict=tool.strict)
