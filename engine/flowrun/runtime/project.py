"""Prepares a spec's file to run: loads, checks and compiles it, and imports its functions. Runs nothing.

Modules that only a run needs are imported when a flow is prepared, so that checking many specs does not pay for them.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from flowrun.checks import Subject, check_spec
from flowrun.core.events import ToolDeclaration
from flowrun.core.graph import Graph, compile_graph
from flowrun.core.ports import Functions
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
    load_entrypoint,
    load_flows,
    load_spec,
)
from flowrun.spec.document import MIN_MASKED_LENGTH
from flowrun.spec.model import JSON, CallState, ChatState, Model, Tool
from flowrun.unicode import find_encoding_error, well_formed

Function = Callable[..., JSON]

_ONLY_A_SUB_FLOW = "FR704"
"""As a warning, the code of a flow without a model of its own: such a flow can be checked alone, but not run alone."""


class BoundModel(msgspec.Struct, frozen=True):
    """A model, and the folder that its paths are relative to."""

    model: Model
    folder: Path


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """A spec that can run: loaded with its sub-flows, checked, compiled, its functions imported.

    Attributes:
        tree: the spec and its sub-flows, with their files and places.
        models: the models that a chat state uses, by the names of their backends.
        project: the folder that all included files lie in.
        secrets: the values of secret variables, each with the text that is shown in its place.
    """

    loaded: Loaded
    tree: FlowTree
    graph: Graph
    functions: Functions
    models: Mapping[str, BoundModel]
    project: Path
    secrets: Mapping[str, str] = {}


def check_file(
    path: Path,
    *,
    profile: str | None,
    project_dir: Path | None,
    environ: Mapping[str, str],
    imports: bool,
    require_environment: bool = False,
) -> list[Issue]:
    """Return the issues of a spec's file and its sub-flows; every failure with this file becomes an issue.

    Args:
        imports: import the Python functions, and check them.
        require_environment: report variables that are not set; a machine that only checks specs has no keys.

    Raises:
        UsageError: the file has no such profile.
    """
    try:
        return _check_file(
            path, profile, project_dir, environ, imports=imports, require_environment=require_environment
        )
    except UnreadableFile as exc:
        return [
            Issue(code="FR706", place=Place(str(path), 1, 1), message=str(exc), remedy="see whether it may be read")
        ]
    except Exception as exc:
        if isinstance(exc, FlowrunError) and not isinstance(exc, Bug):
            raise
        return [crash_issue(str(path), exc)]


def _check_file(
    path: Path,
    profile: str | None,
    project_dir: Path | None,
    environ: Mapping[str, str],
    *,
    imports: bool,
    require_environment: bool,
) -> list[Issue]:
    try:
        loaded = load_spec(path, profile=profile, environ=environ, require_environment=require_environment)
    except SpecError as exc:
        return list(exc.issues)
    try:
        tree = load_flows(
            loaded,
            profile=profile,
            environ=environ,
            require_environment=require_environment,
            project=find_project(path, project_dir),
        )
    except SpecError as exc:
        own = _check(FlowTree(loaded=loaded, model_dir=path.parent), project_dir, imports)
        issues = [*loaded.issues, *exc.issues, *own]
        return sorted(issues, key=lambda issue: (issue.place.file != str(path), issue.place, issue.code))
    return [*loaded.issues, *_check(tree, project_dir, imports)]


def _check(tree: FlowTree, project_dir: Path | None, imports: bool) -> list[Issue]:
    issues: dict[Issue, None] = {}
    for flow in tree.walk():
        subject = Subject(
            loaded=flow.loaded,
            functions=import_functions(flow.loaded, project_dir) if imports else None,
            flows={reference: child.loaded.spec for reference, child in flow.flows.items()},
            base=flow.base,
        )
        issues |= dict.fromkeys(check_spec(subject))
    return list(issues)


def import_functions(loaded: Loaded, project_dir: Path | None) -> dict[str, Function | FlowrunError]:
    """Import the functions of a spec's entrypoints; the value is the error for one that cannot be imported."""
    spec, path = loaded.spec, Path(loaded.document.file)
    called = (state.entrypoint for state in spec.states.values() if isinstance(state, CallState))
    functions: dict[str, Function | FlowrunError] = {}
    for entrypoint in dict.fromkeys([*(tool.entrypoint for tool in spec.tools.values()), *called]):
        try:
            functions[entrypoint] = load_entrypoint(entrypoint, spec_file=path, project_dir=project_dir)
        except EntrypointError as exc:
            functions[entrypoint] = exc
    return functions


def prepare_flow(
    path: Path,
    *,
    profile: str | None,
    project_dir: Path | None,
    environ: Mapping[str, str],
    require_environment: bool = True,
    max_calls: int | None = None,
    snapshot: Snapshot | None = None,
    imports: bool = True,
) -> Flow:
    """Load, check and compile a spec and its sub-flows.

    Args:
        require_environment: report variables that are not set; spec tests use no model, so they need no keys.
        max_calls: the number of functions that may run at once.
        snapshot: use its files and tools instead of the current ones; ``path`` is then only their place.
        imports: import the functions. If False, which needs a ``snapshot``, the flow can be shown, but not run.

    Raises:
        SpecError: the specs have errors; it has all of them.
        UsageError: there is no such file or profile.
    """
    if well_formed(str(path)) != str(path):
        raise UsageError(f"the name of {well_formed(str(path))} is no valid Unicode: rename the file")
    files = ON_DISK if snapshot is None else snapshot.files_in(path.parent)
    project = find_project(path, project_dir)
    loaded = load_spec(path, profile=profile, environ=environ, require_environment=require_environment, files=files)
    tree = load_flows(
        loaded,
        profile=profile,
        environ=environ,
        require_environment=require_environment,
        files=files,
        project=project if snapshot is None else None,
    )
    issues = _check(tree, project_dir, imports=True) if imports else []
    errors = [
        msgspec.structs.replace(issue, severity="error")
        for issue in issues
        if issue.severity == "error" or issue.code == _ONLY_A_SUB_FLOW
    ]
    if errors:
        raise SpecError(errors)
    from flowrun.functions.python import MAX_THREADS, PythonFunctions

    declared = {} if snapshot is None else snapshot.tools
    compiler = _Compiler(project_dir, path.resolve().parent, declared, imports=imports)
    graph = compiler.compile(tree)
    return Flow(
        loaded=loaded,
        tree=tree,
        graph=graph,
        functions=PythonFunctions(
            compiler.functions, max_calls=max_calls, max_threads=max(MAX_THREADS, max_calls or 0)
        ),
        models=compiler.models,
        project=project,
        secrets={
            value: f"${{{name}}}" for name, value in tree.variables.secrets.items() if len(value) >= MIN_MASKED_LENGTH
        },
    )


class _Compiler:
    """Compiles a tree of checked flows: each flow once, with one backend for all equal models."""

    def __init__(
        self,
        project_dir: Path | None,
        folder: Path,
        declared: Mapping[str, Mapping[str, ToolDeclaration]],
        *,
        imports: bool,
    ) -> None:
        self._imports = imports
        self._folder = folder
        self._declared = declared
        self.functions: dict[str, Function] = {}
        self.models: dict[str, BoundModel] = {}
        self._project_dir = project_dir
        self._graphs: dict[tuple[str, ErrorPath], Graph] = {}

    def compile(self, tree: FlowTree) -> Graph:
        key = (tree.loaded.document.file, tree.base)
        if key not in self._graphs:
            self._graphs[key] = self._compile(tree)
        return self._graphs[key]

    def _compile(self, tree: FlowTree) -> Graph:
        spec = tree.loaded.spec
        imported = import_functions(tree.loaded, self._project_dir) if self._imports else {}
        found = {entrypoint: function for entrypoint, function in imported.items() if callable(function)}
        self.functions |= found
        used = {state.model for state in spec.states.values() if isinstance(state, ChatState)}
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
