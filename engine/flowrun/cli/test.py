"""``flowrun test``: runs the tests of ``*.test.yaml`` files, without a model."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Final, TextIO

import click

from flowrun.cli.options import named, project_option
from flowrun.cli.streams import answer_stream
from flowrun.cli.terminal import echo, hide
from flowrun.errors import FlowrunError, Place, SpecError, UsageError
from flowrun.files import file_errors
from flowrun.functions.watchdog import watched_process
from flowrun.spec.project import current_project
from flowrun.testing.coverage import is_covered, render_coverage
from flowrun.testing.junit import render_junit
from flowrun.testing.load import find_suites, load_suite
from flowrun.testing.readers import find_vllm_reader
from flowrun.testing.selection import Selects, parse_selection
from flowrun.testing.session import SpecTestSession
from flowrun.testing.suite import SUFFIX
from flowrun.testing.verdict import Verdict, explain_error, render_verdict, summary
from flowrun.unicode import printable_line

_MARKS = {"passed": ".", "failed": "F", "skipped": "s"}
_PERCENT: Final = re.compile(r"\d+(\.\d+)?%?")


class _TestCommand(click.Command):
    """A command whose ``--coverage`` may stand alone, before a path, or with a number."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Join ``--coverage`` and the number after it; without one, it is 0."""
        joined: list[str] = []
        for number, word in enumerate(args):
            if number and args[number - 1] == "--coverage" and _PERCENT.fullmatch(word):
                joined[-1] = f"--coverage={word}"
            else:
                joined.append("--coverage=0" if word == "--coverage" else word)
        return super().parse_args(ctx, joined)


def _read_share(ctx: click.Context, param: click.Parameter, value: str | None) -> Fraction | None:
    """Read a percentage, such as 90, 99.5 or 90%, as a share of 1."""
    if value is None:
        return None
    if not _PERCENT.fullmatch(value) or (share := Fraction(value.removesuffix("%")) / 100) > 1:
        raise click.BadParameter(f"{value} is no number from 0 to 100", ctx, param)
    return share


@click.command(cls=_TestCommand)
@click.argument("paths", nargs=-1, type=click.Path(exists=True, path_type=Path), metavar="[PATH]...")
@click.option(
    "-k",
    "text",
    default="",
    metavar="EXPRESSION",
    help="Run only tests with this text in their file's name or theirs; texts may have not, and, or between them.",
)
@click.option("-v", "--verbose", is_flag=True, help="Name every test.")
@click.option(
    "--coverage",
    callback=_read_share,
    metavar="[PERCENT]",
    help="Report the states and edges of the specs that no test took; with a number, fail if less is covered.",
)
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write JUnit XML there.")
@click.option("--if-any", is_flag=True, help="Exit with 0 if there are no tests.")
@project_option
def command(
    paths: tuple[Path, ...],
    text: str,
    verbose: bool,
    coverage: Fraction | None,
    junit: Path | None,
    if_any: bool,
    project_dir: Path | None,
) -> int:
    """Run the tests of specs against scripted or recorded replies.

    A folder stands for the files below it whose names end in .test.yaml, a spec for the one beside it. Without PATH, it
    is the project's: the nearest folder upwards with .git or pyproject.toml, else the current one. Exits with 1 if a
    test failed, with 2 if there was none.
    """
    parse_selection(text)  # which refuses a wrong one before anything runs
    files = find_suites(paths or (current_project(),))
    if not files and if_any:
        echo(f"no tests in {named(paths)}")
        return 0
    if not files:
        raise UsageError(f"no tests in {named(paths)}: they are in files whose names end in {SUFFIX}")
    with answer_stream() as report, watched_process():
        return _run(files, text, project_dir, junit, report, coverage=coverage, verbose=verbose)


def _run(
    files: Sequence[Path],
    text: str,
    project_dir: Path | None,
    junit: Path | None,
    report: TextIO,
    *,
    coverage: Fraction | None,
    verbose: bool,
) -> int:
    """Run the tests of files, and write what came of them to ``report``; return the exit code."""
    say, selects = partial(echo, file=report), parse_selection(text)
    verdicts: list[Verdict] = []
    reader = find_vllm_reader()
    with SpecTestSession(project_dir=project_dir, environ=os.environ, open_reader=reader, hide=hide) as session:
        for file in files:
            verdicts += _run_file(session, file, selects, verbose, say)
        covered = list(session.coverage.flows())
    if not verdicts:
        raise UsageError(f"-k {text}: no test and no test file is called so")
    enough = coverage is None or is_covered(covered, coverage)
    if junit is not None:
        _write(junit, render_junit(verdicts))
    for entry in _report(verdicts):
        say(f"\n{entry}")
    if coverage is not None:
        say(f"\n{render_coverage(covered)}")
    if coverage is not None and not enough:
        say(f"\nFAILED less than {float(100 * coverage):g}% is covered")
    say(f"\n{summary(verdicts)}")
    return 0 if enough and not any(verdict.status == "failed" for verdict in verdicts) else 1


def _run_file(
    session: SpecTestSession, file: Path, selects: Selects, verbose: bool, say: Callable[..., None]
) -> list[Verdict]:
    """Run those of a file's tests that are selected by their name and their file's path, and print their progress."""
    try:
        suite = load_suite(file)
    except (SpecError, UsageError) as exc:
        say(f"{file} E")
        return [_unreadable(file, exc)]
    cases = [case for case in suite.cases if selects(f"{file} {case.name}")]
    if not cases:
        return []
    say(str(file) if verbose else f"{file} ", nl=verbose)
    verdicts = []
    for case in cases:
        verdict = session.run(suite, case)
        verdicts.append(verdict)
        say(f"  {verdict.status:<8} {printable_line(case.name)}" if verbose else _MARKS[verdict.status], nl=verbose)
    if not verbose:
        say()
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
