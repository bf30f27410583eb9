"""Loads and checks specs: what every verb does first. Imports nothing that only running needs."""

from collections.abc import Callable, Mapping
from pathlib import Path

from flowrun.checks import Subject, check_spec
from flowrun.errors import FlowrunError, Issue, SpecError
from flowrun.loading import EntrypointError, load_entrypoint, load_spec
from flowrun.spec import JSON, Call, Spec

Function = Callable[..., JSON]


def check_file(
    path: Path,
    *,
    profile: str | None,
    project_dir: Path | None,
    environ: Mapping[str, str],
    imports: bool,
    require_environment: bool = False,
) -> list[Issue]:
    """Give every issue of a spec's file; ``imports`` False leaves the Python functions alone.

    Environment variables need not be set: a machine that only checks specs has no keys.
    """
    try:
        loaded = load_spec(path, profile=profile, environ=environ, require_environment=require_environment)
    except SpecError as exc:
        return list(exc.issues)
    functions = import_functions(loaded.spec, path, project_dir) if imports else None
    return [*loaded.issues, *check_spec(Subject(loaded=loaded, functions=functions))]


def import_functions(spec: Spec, path: Path, project_dir: Path | None) -> dict[str, Function | FlowrunError]:
    """Import the Python functions of a spec's entrypoints; an error stands in for one that cannot be."""
    called = (state.entrypoint for state in spec.states.values() if isinstance(state, Call))
    functions: dict[str, Function | FlowrunError] = {}
    for entrypoint in dict.fromkeys([*(tool.entrypoint for tool in spec.tools.values()), *called]):
        try:
            functions[entrypoint] = load_entrypoint(entrypoint, spec_file=path, project_dir=project_dir)
        except EntrypointError as exc:
            functions[entrypoint] = exc
    return functions
