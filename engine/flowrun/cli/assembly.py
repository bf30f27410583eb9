"""Puts the adapters in: from a loaded spec to what the runner needs. Only verbs that run something come here."""

import gc
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from flowrun.adapters.functions import PythonFunctions
from flowrun.checks import Subject, check_spec
from flowrun.cli.checking import Function, import_functions
from flowrun.errors import SpecError
from flowrun.events import ToolDeclaration
from flowrun.graph import Graph, compile_graph
from flowrun.loading import Loaded, derive_parameters, load_spec, redact
from flowrun.ports import Functions, ModelBackend
from flowrun.spec import Chat, Model, Tool


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says of how to run, beside the spec."""

    verbose: bool = False
    progress: Callable[[str], None] = lambda message: None


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """A spec that can run: loaded, checked, compiled, its functions imported."""

    loaded: Loaded
    graph: Graph
    functions: Functions


def prepare_flow(path: Path, *, profile: str | None, project_dir: Path | None, environ: Mapping[str, str]) -> Flow:
    """Load, check and compile a spec.

    Raises:
        SpecError: the spec has errors; all of them.
        UsageError: the file or the profile is not there.
    """
    loaded = load_spec(path, profile=profile, environ=environ)
    functions = import_functions(loaded.spec, path, project_dir)
    errors = [issue for issue in check_spec(Subject(loaded=loaded, functions=functions)) if issue.severity == "error"]
    if errors:
        raise SpecError(errors)
    found = {entrypoint: function for entrypoint, function in functions.items() if callable(function)}
    declarations = {name: declare_tool(name, tool, found[tool.entrypoint]) for name, tool in loaded.spec.tools.items()}
    graph = compile_graph(loaded.spec, declarations=declarations)
    return Flow(loaded=loaded, graph=graph, functions=PythonFunctions(found))


def declare_tool(name: str, tool: Tool, function: Function) -> ToolDeclaration:
    """Give a tool as the model is told of it; what the spec leaves out comes from the function."""
    description, parameters = tool.description, tool.parameters
    if description is None or parameters is None:
        derived_description, derived_parameters = derive_parameters(function)
        description = derived_description if description is None else description
        parameters = derived_parameters if parameters is None else parameters
    return ToolDeclaration(name=name, description=description, parameters=parameters, strict=tool.strict)


def backends_of(flow: Flow, settings: Settings) -> dict[str, ModelBackend]:
    """Make a backend, not yet started, for each model that a chat state uses."""
    spec = flow.loaded.spec
    used = {state.model for state in spec.states.values() if isinstance(state, Chat)}
    folder = Path(flow.loaded.document.file).resolve().parent
    return {
        name: make_backend(model, folder, lambda text: redact(text, flow.loaded.document.secrets), settings)
        for name, model in spec.models.items()
        if name in used
    }


def calm_collector() -> None:
    """Let Python's garbage collector look less often, and not at what is loaded by now and stays.

    A run makes many small objects that live as long as the run; with the default thresholds the collector takes a
    quarter of the engine's own time to find that none of them is garbage.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def make_backend(model: Model, folder: Path, redacted: Callable[[str], str], settings: Settings) -> ModelBackend:
    """Make the backend that a model asks for; ``folder`` is the spec's."""
    match model.backend:
        case "vllm":
            from flowrun.adapters.vllm import VllmBackend

            return VllmBackend(model, base_dir=folder, verbose=settings.verbose, progress=settings.progress)
        case "openai":
            from flowrun.adapters.openai import OpenAIBackend

            return OpenAIBackend(model, redact=redacted)
        case "scripted":
            from flowrun.adapters.scripted import ScriptedBackend, load_replies

            return ScriptedBackend(load_replies(folder / model.name))
