"""A project's specs become flows that can run: loaded, checked and compiled, their functions imported. Runs nothing.

``validate`` and a run take the same path, so that what passes the checks starts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from flowrun.checks import Subject, check_spec
from flowrun.checks.windows import check_windows
from flowrun.core.events import ToolDeclaration
from flowrun.core.fixed_prompts import fixed_prompts
from flowrun.core.graph import Graph, compile_graph
from flowrun.core.ports import ModelBackend
from flowrun.core.states.decide import DecideNode
from flowrun.errors import (
    BackendError,
    Bug,
    FlowrunError,
    Issue,
    Place,
    SpecError,
    UnreadableFile,
    UsageError,
    crash_issue,
)
from flowrun.errors import Path as ErrorPath
from flowrun.functions.bound_server import BoundServer
from flowrun.runtime.origin import Origin
from flowrun.runtime.signature_reader import IMPORT_SECONDS, Request, SignatureReader
from flowrun.runtime.snapshot import Snapshot, flow_name
from flowrun.spec import (
    ON_DISK,
    EntrypointError,
    FlowTree,
    Loaded,
    Signature,
    find_project,
    issue_at,
    lies_in,
    load_entrypoint,
    load_flows,
    load_spec,
    signature_of,
)
from flowrun.spec.document import written_path
from flowrun.spec.find import find_specs
from flowrun.spec.load import Files, ParsedOnce
from flowrun.spec.mcp_lock import locked_tools
from flowrun.spec.model import JSON, MCP, CallState, ChatState, Holds, Model, Spec, Tool, is_template
from flowrun.spec.model_lock import ModelLock, key_of
from flowrun.spec.parts import parts_of
from flowrun.spec.project import is_file
from flowrun.spec.suggestions import suggest
from flowrun.unicode import find_encoding_error, well_formed

if TYPE_CHECKING:
    from flowrun.runtime.prompt_counter import PromptCounter

Function = Callable[..., JSON]

_ONLY_A_SUB_FLOW = "FR704"
"""As a warning, the code of a flow without a model of its own: such a flow can be checked alone, but not run alone."""


class BoundModel(msgspec.Struct, frozen=True):
    """A model, and the folder that its paths are relative to."""

    model: Model
    folder: Path


class BoundLock(msgspec.Struct, frozen=True):
    """A model of a spec, with the lock of that spec.

    Attributes:
        key: the model's key in the lock, without a profile.
        file: the file of the spec.
    """

    bound: BoundModel
    key: str
    file: Path
    lock: ModelLock | None


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
        servers: the MCP servers of its tools, by their names.
        locks: the models of the spec and its sub-flows, with what is locked of them.
        backends: backends that are used in place of models, by the same names.
        secrets: the values of secret variables, each with the text that is shown in its place.
        origin: what the records of its results say of it.
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
    origin: Origin
    servers: Mapping[str, BoundServer] = {}
    locks: tuple[BoundLock, ...] = ()
    backends: Mapping[str, ModelBackend] = {}
    secrets: Mapping[str, str] = {}

    @property
    def spec(self) -> Spec:
        """Return the spec, without its sub-flows."""
        return self.tree.loaded.spec

    @property
    def states_that_wait(self) -> list[str]:
        """Return the states of the flow and its sub-flows that ask a person, as text for messages."""
        specs = [tree.loaded.spec for tree in self.tree.walk()]
        return [
            f"state {name} of {spec.name}"
            for spec in specs
            for name, state in spec.states.items()
            if spec.may_ask(state)
        ]

    @property
    def is_greedy(self) -> bool:
        """Whether the flow and its sub-flows have chats, all with temperature 0: each reply is the likeliest one."""
        specs = [tree.loaded.spec for tree in self.tree.walk()]
        chats = [(spec, state) for spec in specs for state in spec.states.values() if isinstance(state, ChatState)]
        samplings = [sampling for spec, state in chats for sampling in spec.samplings_of(state).values()]
        return bool(samplings) and all(sampling.get("temperature") == 0 for sampling in samplings)

    def graphs(self) -> list[Graph]:
        """Return the graphs of the flow and its sub-flows, each once."""
        found: dict[int, Graph] = {}
        waiting = [self.graph]
        while waiting:
            graph = waiting.pop()
            if id(graph) not in found:
                found[id(graph)] = graph
                waiting += graph.flows.values()
        return list(found.values())

    @property
    def deciding_models(self) -> frozenset[str]:
        """Return the models that decide states of the flow and its sub-flows ask, by the names of their backends."""
        return frozenset(_deciding_models(self.graph))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.spec.name} {self.spec.version} of {self.path}>"


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """Loads, checks and compiles specs.

    Attributes:
        folder: the folder that entrypoints are imported from; None: it is found from each spec's file.
        environ: the variables for ``${VAR}``.
        require_environment: report variables that are not set. A machine that only checks or tests specs has no keys.
        functions: functions by the entrypoints that they are used for; these entrypoints are not imported.
        import_seconds: the time that a check gives the import of one module.
    """

    folder: Path | None = None
    environ: Mapping[str, str] = {}
    require_environment: bool = True
    functions: Mapping[str, Function] = {}
    import_seconds: int = IMPORT_SECONDS

    def check(self, path: Path, *, profile: str | None = None, imports: bool = True) -> list[Issue]:
        """Return the issues of a spec's file and its sub-flows; every failure with this file becomes an issue.

        Nothing of the spec runs in this process: its functions are imported in another one.

        Args:
            profile: the profile to merge over the spec. The file's other profiles are checked too.
            imports: import the Python functions, and check them.

        Raises:
            UsageError: the file has no such profile.
        """
        return self.check_all([path], profile=profile, imports=imports)

    def check_all(
        self,
        files: Iterable[Path],
        *,
        profile: str | None = None,
        imports: bool = True,
        counter: "PromptCounter | None" = None,
    ) -> list[Issue]:
        """Return the issues of specs. Those of a sub-flow are found with each flow that runs it, and returned once.

        Args:
            counter: measures prompts, so that they are compared with the context windows of their models.
        """
        found: dict[Issue, None] = {}
        with SignatureReader(self.folder, seconds=self.import_seconds) as reader:
            for file in files:
                found |= dict.fromkeys(self._check_file(file, profile, reader if imports else None, counter))
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
            UsageError: there is no such file or profile, ``functions`` names an entrypoint that is not in the specs, or
                has a function for ``isolation: process`` that a worker process cannot import.
        """
        for entrypoint, function in self.functions.items():
            if not callable(function):
                raise UsageError(f"{entrypoint}: {function!r} is no function")
        if well_formed(str(path)) != str(path):
            raise UsageError(f"the name of {well_formed(str(path))} is no valid Unicode: rename the file")
        project = find_project(path, self.folder)
        files = ON_DISK if snapshot is None else snapshot.files_in(path.parent)
        around = project if snapshot is None else None
        loaded = self.load(path, profile, files, around)
        tree = self.load_flows(loaded, profile, files, around)
        functions = self._import_all(tree) if imports else {}
        signatures = _signatures_of(functions)
        issues = _check(tree, signatures) if imports else []
        _raise_errors(issues)
        compiler = _Compiler(path.resolve().parent, signatures, {} if snapshot is None else snapshot.tools)
        graph = compiler.compile(tree)
        imported = {name: found for own in functions.values() for name, found in own.items() if callable(found)}
        self._refuse_unused(imported)
        self._refuse_unreachable(tree)
        secrets = tree.variables.masked()
        return CompiledFlow(
            path=path,
            profile=profile,
            project_dir=self.folder,
            project=project,
            issues=(*loaded.issues, *issues),
            tree=tree,
            graph=graph,
            functions=imported,
            models=compiler.models,
            servers=_servers_of(tree),
            locks=tuple(_locks_of(tree)),
            origin=Origin(tree, graph, profile=profile, secrets=secrets),
            secrets=secrets,
        )

    def _check_file(
        self, path: Path, profile: str | None, reader: SignatureReader | None, counter: "PromptCounter | None"
    ) -> list[Issue]:
        """Return the issues of a file with a profile, and those that only other profiles bring, which they name."""
        check = _FileCheck(self, path, reader, counter)
        issues = check.issues(profile)
        known = {(issue.code, issue.place) for issue in issues}
        for other in check.profiles():
            if other == profile:
                continue
            for issue in check.issues(other):
                if (issue.code, issue.place) not in known:
                    known.add((issue.code, issue.place))
                    message = f"with the profile {other!r}: {issue.message}"
                    issues.append(msgspec.structs.replace(issue, message=message))
        return issues

    def read_signatures(self, tree: FlowTree, reader: SignatureReader | None) -> "Signatures | None":
        """Read the signatures of a flow and its sub-flows in the reader's process; None if there is no reader."""
        if reader is None:
            return None
        wanted = {
            _key(flow): {entrypoint: Request(entrypoint, Path(flow.loaded.document.file)) for entrypoint in entrypoints}
            for flow in tree.walk()
            for entrypoints in [_entrypoints(flow.loaded.spec)]
        }
        requests = [request for own in wanted.values() for name, request in own.items() if name not in self.functions]
        if requests:
            reader.start()
            import_module("networkx")  # which the checks need, while the process gets ready
        found = reader.read(requests)
        return {
            key: {
                name: signature_of(self.functions[name]) if name in self.functions else found[request]
                for name, request in own.items()
            }
            for key, own in wanted.items()
        }

    def load(self, path: Path, profile: str | None, files: Files = ON_DISK, project: Path | None = None) -> Loaded:
        """Load a spec's file without its sub-flows. See ``load_spec`` for the arguments."""
        return load_spec(
            path,
            profile=profile,
            environ=self.environ,
            require_environment=self.require_environment,
            files=files,
            project=project,
        )

    def load_flows(self, loaded: Loaded, profile: str | None, files: Files, project: Path | None) -> FlowTree:
        """Load the sub-flows of a spec."""
        return load_flows(
            loaded,
            profile=profile,
            environ=self.environ,
            require_environment=self.require_environment,
            files=files,
            project=project,
        )

    def _import_all(self, tree: FlowTree) -> "Functions":
        """Import the functions of a flow and its sub-flows."""
        return {_key(flow): self.import_functions(flow.loaded) for flow in tree.walk()}

    def import_functions(self, loaded: Loaded) -> dict[str, Function | EntrypointError]:
        """Import the functions of a spec's entrypoints; the value is the error for one that cannot be imported."""
        path = Path(loaded.document.file)
        functions: dict[str, Function | EntrypointError] = {}
        for entrypoint in _entrypoints(loaded.spec):
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

    def _refuse_unreachable(self, tree: FlowTree) -> None:
        """Refuse functions that run in a worker process but exist in this one only."""
        if not self.functions:
            return
        from flowrun.functions.processes import Unreachable, find_target

        for flow in tree.walk():
            spec = flow.loaded.spec
            calls = [state for state in spec.states.values() if isinstance(state, CallState)]
            parts: list[Tool | CallState] = [*spec.tools.values(), *calls]
            for part in parts:
                function = None if part.entrypoint is None else self.functions.get(part.entrypoint)
                if part.entrypoint is None or function is None or spec.isolation_of(part) != "process":
                    continue
                try:
                    find_target(part.entrypoint, function)
                except Unreachable as exc:
                    remedy = "define it at the top of a module, or load a profile with `isolation: thread`"
                    raise UsageError(f"{part.entrypoint} has isolation: process, but {exc}: {remedy}") from exc


def find_all_specs(paths: Iterable[Path], *, shown: str, if_any: bool = False) -> list[Path]:
    """Return the specs among files and in folders, each once.

    Args:
        shown: names the paths in the error.
        if_any: no spec is no error.

    Raises:
        UsageError: there is no such path, or no spec in any.
    """
    listed = list(paths)
    if missing := [path for path in listed if not path.exists()]:
        raise UsageError(f"there is no {missing[0]}")
    files = list(dict.fromkeys(file for path in listed for file in find_specs(path)))
    if not files and not if_any:
        raise UsageError(f"no spec in {shown}: a spec is a YAML file with a key 'flowrun'")
    return files


Functions = Mapping[tuple[str, ErrorPath], Mapping[str, Function | EntrypointError]]
"""The functions of each flow of a tree by their entrypoints, or the error of one that cannot be imported."""

Signatures = Mapping[tuple[str, ErrorPath], Mapping[str, Signature | EntrypointError]]
"""The signatures of the same functions. They are data, so it does not matter in which process they were read."""


def _entrypoints(spec: Spec) -> list[str]:
    """Return the entrypoints of a spec's tools and states, each once."""
    called = (part.value for state in spec.states.values() for part in parts_of(state, Holds.ENTRYPOINT))
    of_tools = (tool.entrypoint for tool in spec.tools.values() if tool.entrypoint is not None)
    return [name for name in dict.fromkeys([*of_tools, *called]) if not name.startswith(MCP)]


def _signatures_of(functions: Functions) -> Signatures:
    return {
        key: {name: found if isinstance(found, EntrypointError) else signature_of(found) for name, found in own.items()}
        for key, own in functions.items()
    }


def _servers_of(tree: FlowTree) -> dict[str, BoundServer]:
    """Return the MCP servers of a flow and its sub-flows, by their names.

    Raises:
        SpecError: two differ that have the same name.
    """
    found: dict[str, BoundServer] = {}
    for flow in tree.walk():
        document = flow.loaded.document
        folder = Path(document.file).resolve().parent
        for name, server in flow.loaded.spec.mcp_servers.items():
            at = (*flow.base, "mcp_servers", name)
            if at not in document.places:
                continue  # it is inherited
            bound = BoundServer(server, folder, locked_tools(document, flow.base, name))
            if found.setdefault(name, bound) != bound:
                message = f"another flow of the tree has a server {name!r} with other settings"
                raise SpecError([issue_at(document, "FR717", at, message, "give one another name", key=True)])
    return found


def _locks_of(tree: FlowTree) -> Iterator[BoundLock]:
    """Yield the models that a flow and its sub-flows name themselves."""
    for flow in tree.walk():
        document = flow.loaded.document
        for name, model in flow.loaded.spec.models.items():
            if written_path(document, (*flow.base, "models", name)) in document.places:  # else it is inherited
                bound = BoundModel(model, flow.model_dir)
                yield BoundLock(bound, key_of(flow.base, name), Path(document.file), document.lock)


class _FileCheck:
    """Checks one file with several profiles. Each file that it includes is parsed once."""

    def __init__(
        self, project: Project, path: Path, reader: SignatureReader | None, counter: "PromptCounter | None"
    ) -> None:
        self._project = project
        self._path = path
        self._reader = reader
        self._counter = counter
        self._files = ParsedOnce()
        self._checked: list[Spec] = []

    def profiles(self) -> list[str]:
        """Return the names of the file's profiles; none if it cannot be read."""
        try:
            profiles = self._files.document(self._path).value["profiles"]
        except (UnreadableFile, TypeError, KeyError):
            return []
        return list(profiles) if isinstance(profiles, dict) else []

    def issues(self, profile: str | None) -> list[Issue]:
        """Return the issues with a profile; every failure becomes one.

        Raises:
            UsageError: the file has no such profile.
        """
        try:
            return self._issues(profile)
        except UnreadableFile as exc:
            place, remedy = Place(str(self._path), 1, 1), "see whether it may be read"
            return [Issue(code="FR706", place=place, message=str(exc), remedy=remedy)]
        except Exception as exc:
            if isinstance(exc, FlowrunError) and not isinstance(exc, Bug):
                raise
            return [crash_issue(str(self._path), exc)]

    def _issues(self, profile: str | None) -> list[Issue]:
        project = self._project
        folder = find_project(self._path, project.folder)
        try:
            loaded = project.load(self._path, profile, self._files, folder)
        except SpecError as exc:
            return list(exc.issues)
        try:
            tree = project.load_flows(loaded, profile, self._files, folder)
        except SpecError as exc:
            alone = FlowTree(loaded=loaded, model_dir=self._path.parent)
            issues = [*loaded.issues, *exc.issues, *_check(alone, project.read_signatures(alone, self._reader))]
            return sorted(issues, key=self._order)
        replies = list(dict.fromkeys(_check_scripts(tree, folder)))
        if self._differs_in_models(tree):
            issues = [*loaded.issues, *sorted([*_check(tree, None, only_models=True), *replies], key=self._order)]
            if self._counter is None:
                return issues
            signatures = project.read_signatures(tree, self._reader)
        else:
            signatures = project.read_signatures(tree, self._reader)
            issues = [*loaded.issues, *sorted([*_check(tree, signatures), *replies], key=self._order)]
        if signatures is not None and not any(map(_keeps_from_running, issues)):
            compiler = _Compiler(self._path.resolve().parent, signatures, {})
            compiler.compile(tree)  # the last step before an engine
            if self._counter is not None:
                issues += sorted(_check_windows(tree, compiler, self._counter), key=self._order)
        return issues

    def _order(self, issue: Issue) -> tuple[bool, Place, str]:
        return issue.place.file != str(self._path), issue.place, issue.code

    def _differs_in_models(self, tree: FlowTree) -> bool:
        """Return whether a spec that was checked already is the same but for its models and its sampling."""
        spec = msgspec.structs.replace(tree.loaded.spec, models={}, sampling={})
        alone = all(flow.loaded.document.file == str(self._path) for flow in tree.walk())
        seen = alone and spec in self._checked
        self._checked.append(spec)
        return seen


def _key(tree: FlowTree) -> tuple[str, ErrorPath]:
    """Return the identity of a flow: its file, and the path in the file of a local flow."""
    return tree.loaded.document.file, tree.base


def _check(tree: FlowTree, signatures: Signatures | None, *, only_models: bool = False) -> list[Issue]:
    issues: dict[Issue, None] = {}
    for flow in tree.walk():
        subject = Subject(tree=flow, functions=None if signatures is None else signatures[_key(flow)])
        issues |= dict.fromkeys(check_spec(subject, only_models=only_models))
    return list(issues)


def _check_windows(tree: FlowTree, compiler: "_Compiler", counter: "PromptCounter") -> list[Issue]:
    """Return the issues of prompts that are too long for their models."""
    issues: dict[Issue, None] = {}
    for flow in tree.walk():
        measured = counter.measure(compiler.models, fixed_prompts(compiler.graphs[_key(flow)]))
        issues |= dict.fromkeys(check_windows(Subject(tree=flow), measured))
    return list(issues)


def _check_scripts(tree: FlowTree, project: Path) -> Iterator[Issue]:
    """Yield the issues of the files that say what the scripted models of a flow and its sub-flows reply."""
    for flow in tree.walk():
        for name, model in flow.loaded.spec.models.items():
            at, document = (*flow.base, "models", name, "name"), flow.loaded.document
            if model.backend != "scripted" or "${" in model.name or written_path(document, at) not in document.places:
                continue
            beside = Path(document.file).parent
            file = (beside if beside.resolve() == flow.model_dir.resolve() else flow.model_dir) / model.name
            if not lies_in(file, project):
                message = f"the scripted replies {model.name} lie outside of the project {project}"
                yield issue_at(document, "FR709", at, message, "move the file into the project")
            elif not is_file(file):
                remedy = "give the path of a file of replies, relative to this file"
                yield issue_at(document, "FR706", at, f"there is no file {model.name!r}", remedy)
            else:
                from flowrun.backends.scripted import check_replies  # what most checks need not import

                try:
                    yield from check_replies(file)
                except BackendError as exc:  # reported in the spec: no line of a file that is something else is shown
                    message = str(exc).replace(str(file), model.name)
                    yield issue_at(document, "FR210", at, message, "write a list of replies under the key 'replies'")


def _deciding_models(graph: Graph) -> Iterator[str]:
    for node in graph.nodes.values():
        if isinstance(node, DecideNode):
            yield from (model.backend for model in node.model.models.values())
    for child in graph.flows.values():
        yield from _deciding_models(child)


def _raise_errors(issues: list[Issue]) -> None:
    """Raise the issues that keep a flow from running, if there are any."""
    if errors := [issue for issue in issues if _keeps_from_running(issue)]:
        raise SpecError(msgspec.structs.replace(issue, severity="error") for issue in errors)


def _keeps_from_running(issue: Issue) -> bool:
    return issue.severity == "error" or issue.code == _ONLY_A_SUB_FLOW


class _Compiler:
    """Compiles a tree of checked flows: each flow once, with one backend for all equal models."""

    def __init__(
        self, folder: Path, signatures: Signatures, declared: Mapping[str, Mapping[str, ToolDeclaration]]
    ) -> None:
        self.models: dict[str, BoundModel] = {}
        self._folder = folder
        self._signatures = signatures
        self._declared = declared
        self.graphs: dict[tuple[str, ErrorPath], Graph] = {}

    def compile(self, tree: FlowTree) -> Graph:
        key = _key(tree)
        if key not in self.graphs:
            self.graphs[key] = self._compile(tree)
        return self.graphs[key]

    def _compile(self, tree: FlowTree) -> Graph:
        spec = tree.loaded.spec
        found = self._signatures.get(_key(tree), {})
        used = {part.value for state in spec.states.values() for part in parts_of(state, Holds.MODEL)}
        if any(map(is_template, used)):
            used = set(spec.models)
        backends = {name: self._backend(tree, name, model) for name, model in spec.models.items() if name in used}
        declared = self._declared.get(flow_name(tree, self._folder), {})
        return compile_graph(
            spec,
            declarations={
                name: declared[name] if name in declared else declare_tool(name, tool, found)
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


def declare_tool(name: str, tool: Tool, signatures: Mapping[str, Signature | EntrypointError]) -> ToolDeclaration:
    """Return the declaration of a tool; the parts that the spec leaves out come from the function.

    Args:
        signatures: the signatures of functions, by their entrypoints.

    Raises:
        EntrypointError: the parameters are left out, and cannot be derived.
        UsageError: the parameters of the function have a default value that is not valid Unicode.
    """
    description, parameters = tool.description, tool.parameters
    of_python = tool.entrypoint is not None and not tool.entrypoint.startswith(MCP)
    signature = signatures[tool.entrypoint or ""] if of_python else Signature()
    if isinstance(signature, EntrypointError):
        raise signature
    if parameters is None:
        if signature.arguments is None:
            raise EntrypointError(*(signature.underivable or ("it has no parameters", "")))
        parameters = signature.arguments
    description = well_formed(signature.description if description is None else description)
    if wrong := find_encoding_error(parameters):
        raise UsageError(f"tool {name!r}: the parameters that its function takes cannot be written down: {wrong}")
    return ToolDeclaration(name=name, description=description, parameters=parameters, strict=tool.strict)
