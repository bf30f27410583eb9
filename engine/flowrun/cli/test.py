"""``flowrun test``: runs the tests of ``*.test.yaml`` files, without a model."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from flowrun.cli.options import named, project_option
from flowrun.cli.terminal import echo, hide
from flowrun.errors import FlowrunError, Place, SpecError, UsageError
from flowrun.files import file_errors
from flowrun.spec.project import current_project
from flowrun.testing.coverage import render_coverage
from flowrun.testing.junit import render_junit
from flowrun.testing.load import find_suites, load_suite
from flowrun.testing.readers import find_vllm_reader
from flowrun.testing.session import SpecTestSession
from flowrun.testing.suite import SUFFIX
from flowrun.testing.verdict import Verdict, explain_error, render_verdict, summary
from flowrun.unicode import printable_line

_MARKS = {"passed": ".", "failed": "F", "skipped": "s"}


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path), metavar="[PATH]...")
@click.option("-k", "text", default="", metavar="TEXT", help="Run only tests with this in their file's name or theirs.")
@click.option("-v", "--verbose", is_flag=True, help="Name every test.")
@click.option("--coverage", is_flag=True, help="Report the states and edges of the specs that no test took.")
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write JUnit XML there.")
@project_option
def command(
    paths: tuple[Path, ...], text: str, verbose: bool, coverage: bool, junit: Path | None, project_dir: Path | None
) -> int:
    """Run the tests of specs against scripted or recorded replies.

    A folder stands for the files below it whose names end in .test.yaml, a spec for the one beside it. Without PATH, it
    is the project's: the nearest folder upwards with .git or pyproject.toml, else the current one. Exits with 1 if a
    test failed, with 2 if there was none.
    """
    files = find_suites(paths or (current_project(),))
    if not files:
        raise UsageError(f"no tests in {named(paths)}: they are in files whose names end in {SUFFIX}")
    verdicts: list[Verdict] = []
    reader = find_vllm_reader()
    with SpecTestSession(project_dir=project_dir, environ=os.environ, open_reader=reader, hide=hide) as session:
        for file in files:
            verdicts += _run_file(session, file, text, verbose)
        covered = list(session.coverage.flows())
    if not verdicts:
        raise UsageError(f"-k {text}: no test and no test file is called so")
    if junit is not None:
        _write(junit, render_junit(verdicts))
    for entry in _report(verdicts):
        echo(f"\n{entry}")
    if coverage:
        echo(f"\n{render_coverage(covered)}")
    echo(f"\n{summary(verdicts)}")
    return 1 if any(verdict.status == "failed" for verdict in verdicts) else 0


def _run_file(session: SpecTestSession, file: Path, text: str, verbose: bool) -> list[Verdict]:
    """Run a file's tests, and print their progress.

    Args:
        text: runs only the tests with this text in their name or their file's path; the case is ignored.
    """
    try:
        suite = load_suite(file)
    except (SpecError, UsageError) as exc:
        echo(f"{file} E")
        return [_unreadable(file, exc)]
    cases = [case for case in suite.cases if text.casefold() in f"{file} {case.name}".casefold()]
    if not cases:
        return []
    echo(str(file) if verbose else f"{file} ", nl=verbose)
    verdicts = []
    for case in cases:
        verdict = session.run(suite, case)
        verdicts.append(verdict)
        echo(f"  {verdict.status:<8} {printable_line(case.name)}" if verbose else _MARKS[verdict.status], nl=verbose)
    if not verbose:
        echo()
    return verdicts


def _unreadable(file: Path, exc: FlowrunError) -> Verdict:
    """Return a failed verdict for a test file with mistakes."""
    return Verdict(
        file=str(file),
        name="the test file has mistakes",
        place=Place(str(file), 1, 1),
        status="failed",
        problems=tuple(explain_error(exc)),
    )


def _report(verdicts: Sequence[Verdict]) -> Iterator[str]:
    """Yield a text for each test that failed or was skipped."""
    for verdict in verdicts:
        if verdict.status == "failed":
            yield f"FAILED {render_verdict(verdict)}"
        elif verdict.status == "skipped":
            yield f"SKIPPED {verdict.place}  {printable_line(verdict.name)}\n  {verdict.reason}"


def _write(path: Path, text: str) -> None:
    with file_errors(f"--junit {path}: the file cannot be written"):
        path.write_text(text, encoding="utf-8")
