"""``flowrun validate``: every issue of every spec, in one go."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import click

from flowrun.cli.report import render_json, render_text
from flowrun.errors import Issue, UsageError
from flowrun.prepare import check_file

_FORMATS: Final[Mapping[str, Callable[[Sequence[Issue]], str]]] = {"text": render_text, "json": render_json}
_IS_SPEC: Final = re.compile(rb"^[\"']?flowrun[\"']?\s*:", re.MULTILINE)


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path), metavar="PATH...")
@click.option("--format", "form", type=click.Choice(list(_FORMATS)), default="text", help="The report's form.")
@click.option("--profile", envvar="FLOWRUN_PROFILE", help="Check the specs with this profile merged in.")
@click.option("--no-import", is_flag=True, help="Do not import the Python functions of the specs.")
@click.option(
    "--project-dir", type=click.Path(file_okay=False, exists=True, path_type=Path), help="Where entrypoints start."
)
def command(paths: tuple[Path, ...], form: str, profile: str | None, no_import: bool, project_dir: Path | None) -> int:
    """Check specs and report every issue.

    A folder stands for the specs below it: the YAML files with a top-level key ``flowrun``. Exits with 1 if there are
    errors.
    """
    files = list(dict.fromkeys(_files(paths)))
    if not files:
        raise UsageError(f"no spec in {', '.join(map(str, paths))}: a spec is a YAML file with a key 'flowrun'")
    issues: list[Issue] = []
    for file in files:
        issues += check_file(file, profile=profile, project_dir=project_dir, environ=os.environ, imports=not no_import)
    report = _FORMATS[form](issues)
    if report:
        click.echo(report)
    click.echo(_summary(issues, len(files)), err=True)
    return 1 if any(issue.severity == "error" for issue in issues) else 0


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if _is_spec(file, path))
        else:
            yield path


def _is_spec(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    if hidden or file.suffix not in (".yaml", ".yml") or not file.is_file():
        return False
    return _IS_SPEC.search(file.read_bytes()) is not None


def _summary(issues: Sequence[Issue], files: int) -> str:
    errors = sum(issue.severity == "error" for issue in issues)
    warnings = len(issues) - errors
    checked = f"{files} spec{'s' if files != 1 else ''} checked"
    if not issues:
        return f"{checked}: no issues"
    return f"{checked}: {errors} error{'s' if errors != 1 else ''}, {warnings} warning{'s' if warnings != 1 else ''}"
