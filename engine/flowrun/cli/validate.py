"""``flowrun validate``: reports all issues of all given specs."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from flowrun.cli.completion import complete_profiles
from flowrun.cli.options import named, project_option
from flowrun.cli.report import colours_wanted, render_github, render_json, render_sarif, render_with_source
from flowrun.cli.streams import answer_stream
from flowrun.cli.terminal import echo, echo_commands, echo_json
from flowrun.errors import Issue, UsageError
from flowrun.runtime.project import Project, find_all_specs
from flowrun.runtime.signature_reader import IMPORT_SECONDS
from flowrun.spec.find import find_evals
from flowrun.spec.project import current_project
from flowrun.version import __version__

if TYPE_CHECKING:
    from flowrun.runtime.prompt_counter import PromptCounter

_PRINTERS: Final[Mapping[str, Callable[[str], None]]] = {
    "text": partial(echo, coloured=True),
    "json": echo_json,
    "sarif": echo_json,
    "github": echo_commands,
}


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path), metavar="[PATH]...")
@click.option("--format", type=click.Choice(list(_PRINTERS)), default="text", help="The report's form.")
@click.option(
    "--profile",
    envvar="FLOWRUN_PROFILE",
    help="Check the specs with this profile merged in first.",
    shell_complete=complete_profiles,
)
@click.option("--no-import", is_flag=True, help="Do not import the Python functions of the specs.")
@click.option("--if-any", is_flag=True, help="Exit with 0 if there are no specs.")
@click.option(
    "--import-timeout",
    type=click.IntRange(min=1),
    default=IMPORT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="The time that the import of each module may take.",
)
@click.option(
    "--tokenizer",
    is_flag=True,
    help="Compare with its context window what is the same in each prompt of a model in process (vLLM).",
)
@project_option
def command(
    paths: tuple[Path, ...],
    format: str,
    profile: str | None,
    no_import: bool,
    if_any: bool,
    import_timeout: int,
    tokenizer: bool,
    project_dir: Path | None,
) -> int:
    """Check specs and report every issue, with each of their profiles; and evals, against their flows and rows.

    The Python functions are imported in a process of their own, which may end or hang; nothing else of a spec runs.

    A folder stands for the specs below it, the YAML files with a top-level key ``flowrun``, and for the evals, those
    whose names end in .eval.yaml. Without PATH, it is the
    project's: the nearest folder upwards with .git or pyproject.toml, else the current one. Exits with 1 if there are
    errors.

    With --tokenizer, the messages that no template changes and the tools of each state are counted by the tokenizer
    and chat template of its model, if they are on this machine: nothing is fetched, and no engine is started.

    sarif is for code scanning, github for annotations in a GitHub Actions log.
    """
    given = paths or (current_project(),)
    evals = find_evals(given)
    others = [path for path in given if path not in evals]
    files = find_all_specs(others, shown=named(paths), if_any=if_any or bool(evals))
    project = Project(folder=project_dir, environ=os.environ, require_environment=False, import_seconds=import_timeout)
    with answer_stream(), _counting(tokenizer, imports=not no_import) as counter:  # modules print no part of the report
        issues = project.check_all(files, profile=profile, imports=not no_import, counter=counter)
        issues += _check_evals(evals, project, imports=not no_import)
    if counter is not None:
        echo(_counted(counter), err=True)
    if report := _report(issues, format):
        _PRINTERS[format](report)
    echo(_summary(issues, len(files), len(evals)), err=True)
    return 1 if any(issue.severity == "error" for issue in issues) else 0


def _check_evals(evals: Sequence[Path], project: Project, *, imports: bool) -> list[Issue]:
    """Check evals; without any, nothing of what runs them is imported."""
    if not evals:
        return []
    from flowrun.evaluation.check import check_evals

    return check_evals(evals, project, imports=imports)


def _counting(tokenizer: bool, *, imports: bool) -> "AbstractContextManager[PromptCounter | None]":
    """Return what counts prompts, if they are to be counted.

    Raises:
        UsageError: the tools, which are a part of them, are not read.
    """
    if not tokenizer:
        return nullcontext()
    if not imports:
        raise UsageError("--tokenizer counts the tools too, which --no-import leaves unread")
    from flowrun.runtime.prompt_counter import PromptCounter

    return PromptCounter(lambda note: echo(f"flowrun: {note}", err=True))


def _counted(counter: "PromptCounter") -> str:
    """Return how many prompts were counted, and the one that leaves the least room."""
    if not counter.measured:
        return "no prompt counted"
    fullest = max(counter.measured, key=lambda prompt: prompt.length / prompt.window)
    where = f"state {fullest.state}, {fullest.length:,} of {fullest.window:,} tokens"
    count = len(counter.measured)
    return f"the beginnings of {count} prompt{'s' if count > 1 else ''} counted; the fullest: {where}"


def _report(issues: Sequence[Issue], format: str) -> str:
    match format:
        case "text":
            return render_with_source(issues, _source, coloured=colours_wanted(sys.stdout, environ=os.environ))
        case "json":
            return render_json(issues)
        case "sarif":
            return render_sarif(issues, version=__version__, folder=Path.cwd())
        case _:
            return render_github(issues)


def _source(file: str) -> str:
    """Read a file again, for the source lines of its issues."""
    try:
        return Path(file).read_bytes().decode("utf-8", errors="replace")
    except OSError:
        return ""


def _summary(issues: Sequence[Issue], files: int, evals: int) -> str:
    errors = sum(issue.severity == "error" for issue in issues)
    warnings = len(issues) - errors
    counts = [f"{files} spec{'s' if files != 1 else ''}"] if files or not evals else []
    counts += [f"{evals} eval{'s' if evals != 1 else ''}"] if evals else []
    checked = f"{' and '.join(counts)} checked"
    if not issues:
        return f"{checked}: no issues"
    return f"{checked}: {errors} error{'s' if errors != 1 else ''}, {warnings} warning{'s' if warnings != 1 else ''}"
