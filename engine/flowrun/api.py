"""The first functions of the Python API: from files to flows, or to their issues."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flowrun.errors import Issue
from flowrun.runtime.flow import Flow, as_flow
from flowrun.runtime.project import Project, find_all_specs
from flowrun.spec.project import current_project

_log = logging.getLogger(__name__)


def load(
    path: str | Path,
    *,
    profile: str | None = None,
    functions: Mapping[str, Callable[..., Any]] = {},
    project_dir: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Flow:
    """Load a spec with its sub-flows, check it, and import its functions. Starts no engine.

    Args:
        profile: the profile to merge over the spec.
        functions: functions by the entrypoints that they are used for, such as ``tools.weather:get_current_weather``;
            these entrypoints are not imported.
        project_dir: the folder that entrypoints are imported from; by default it is found from the file.
        environ: the variables for ``${VAR}``; by default those of the process.

    Raises:
        SpecError: the spec has errors; ``issues`` holds all of them.
        UsageError: there is no such file or profile, or no such entrypoint in the spec.
    """
    project = Project(folder=_folder(project_dir), environ=_environ(environ), functions=functions)
    return as_flow(project.compile(Path(path), profile=profile))


def check(
    *paths: str | Path,
    profile: str | None = None,
    imports: bool = True,
    tokenizer: bool = False,
    project_dir: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> list[Issue]:
    """Return the issues of specs, as ``flowrun validate`` reports them.

    Args:
        paths: files, and folders that stand for the specs below them; without any, the project around the current
            folder.
        profile: the profile to merge over the specs.
        imports: import the Python functions, and check them.
        tokenizer: compare with its context window what is the same in each prompt of a model in process. Of a model
            whose files are not on this machine, the log says why its prompts are not counted. Needs ``imports``.
        project_dir: the folder that entrypoints are imported from; by default it is found from each file.
        environ: the variables for ``${VAR}``; by default those of the process; one that is not set is no issue.

    Raises:
        UsageError: there is no such path, or no spec in it, or a spec has no such profile.
    """
    project = Project(folder=_folder(project_dir), environ=_environ(environ), require_environment=False)
    looked_at = [Path(path) for path in paths] or [current_project()]
    files = find_all_specs(looked_at, shown=", ".join(str(path.resolve()) for path in looked_at))
    if not tokenizer:
        return project.check_all(files, profile=profile, imports=imports)
    from flowrun.runtime.prompt_counter import PromptCounter

    with PromptCounter(_log.warning) as counter:
        return project.check_all(files, profile=profile, imports=imports, counter=counter)


def _folder(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _environ(environ: Mapping[str, str] | None) -> Mapping[str, str]:
    return os.environ if environ is None else environ
