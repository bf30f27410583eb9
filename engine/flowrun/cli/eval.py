"""``flowrun eval``: runs a flow on rows, scores what comes of them, and compares two versions of it."""

import json as json_module
import os
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final, TextIO

import click
import msgspec
from rich.table import Table
from rich.text import Text

from flowrun.batch import BatchStopped
from flowrun.cli.eval_side import run_apart, run_here
from flowrun.cli.event_loop import run_in_loop
from flowrun.cli.options import (
    locked_option,
    max_live_option,
    max_tokens_option,
    max_tools_option,
    project_option,
    quiet_option,
    stall_option,
    tokens_option,
    verbose_option,
)
from flowrun.cli.streams import answer_stream, real_path
from flowrun.cli.terminal import echo, hide, rich_console, write_json
from flowrun.errors import SpecError, UsageError
from flowrun.evaluation.against import AGAINST_RECORDS, RECORDS, Against, find_against
from flowrun.evaluation.check import check_eval
from flowrun.evaluation.eval_file import EvalFile
from flowrun.evaluation.evaluate import Scoring
from flowrun.evaluation.judging import ask_judges
from flowrun.evaluation.load import load_eval
from flowrun.evaluation.report import as_data, notes_of, render_report, table_of, verdicts_of
from flowrun.evaluation.scored_side import ScoredSide, SideRecords
from flowrun.evaluation.sides import Side, SideJob
from flowrun.evaluation.statistics import require_scipy
from flowrun.evaluation.summary import EvalSummary, summarize
from flowrun.files import file_errors, replaced_private
from flowrun.runtime.engines import BackendSettings
from flowrun.runtime.project import CompiledFlow, Project
from flowrun.testing.cassettes import create_cassette
from flowrun.testing.junit import render_junit

FOLDER: Final = "eval-results"


class EvalOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of the verb; each field has the name of its option."""

    file: Path
    output: Path | None
    against: str | None
    profile: str | None
    samples: int | None
    rescore: bool
    restart: bool
    retry_failed: bool
    tokens: bool
    locked: bool
    max_live: int | None
    max_tokens: int | None
    max_tools: int
    stall: float
    record: Path | None
    cassette: Path | None
    junit: Path | None
    json: bool
    quiet: bool
    verbose: bool
    project_dir: Path | None


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help=f"Where records and the report are written [{FOLDER}/NAME].",
)
@click.option("--against", metavar="REF", help="Compare with a git revision, another spec, or a folder of results.")
@click.option("--profile", envvar="FLOWRUN_PROFILE", help="Merge this profile of the spec over it.")
@click.option("--samples", type=click.IntRange(1), metavar="N", help="Run each row N times, whatever the file says.")
@click.option("--rescore", is_flag=True, help="Run nothing: score anew what is recorded.")
@click.option("--restart", is_flag=True, help="Move earlier results away and run every row.")
@click.option("--retry-failed", is_flag=True, help="Run only the rows whose results say that they failed.")
@tokens_option
@locked_option
@max_live_option
@max_tokens_option
@max_tools_option
@stall_option
@click.option("--record", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Record the replies.")
@click.option(
    "--cassette",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Take recorded replies in place of the models.",
)
@click.option("--junit", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write JUnit XML there.")
@click.option("--json", is_flag=True, help="Print what the evaluation says as JSON.")
@quiet_option
@verbose_option
@project_option
def command(**values: Any) -> int:
    """Run the evaluation of an eval file (*.eval.yaml), and say what its scores are.

    DIR gets records.jsonl, the records with their scores, and report.html. Runs that are finished are not made again
    as long as the flow, its code and the inputs of the row are the same; what was interrupted goes on. Exits with 1 if
    a gate is not passed, or if a run that succeeded cannot be scored.
    """
    options = EvalOptions(**values)
    _require_compatible(options)
    require_scipy()
    with answer_stream() as answers:
        project = Project(folder=options.project_dir, environ=os.environ)
        file = _load(options, project)
        return _evaluate(file, options, project, answers)


def _require_compatible(options: EvalOptions) -> None:
    if options.against == "":
        raise UsageError("--against is empty: name a git revision, another spec, or a folder of results")
    if options.restart and options.retry_failed:
        raise UsageError("--restart runs every row anew: it does not go with --retry-failed")
    if options.rescore and (options.restart or options.retry_failed or options.record):
        raise UsageError("--rescore runs nothing: it goes with no option that says what is run")
    if options.record is not None and options.cassette is not None:
        raise UsageError("--record asks the models, --cassette does not: choose one of them")
    if options.tokens and (options.record is not None or options.cassette is not None):
        raise UsageError("--tokens is for models, not for cassettes")
    if options.cassette is not None and not options.cassette.is_file():
        raise UsageError(f"there is no cassette {options.cassette}: record it with --record {options.cassette}")


def _load(options: EvalOptions, project: Project) -> EvalFile:
    """Load the file, checked, with what the options say in place of it."""
    path = real_path(options.file)
    checking = msgspec.structs.replace(project, require_environment=False)
    issues = check_eval(path, checking, profile=options.profile)
    if errors := [issue for issue in issues if issue.severity == "error"]:
        raise SpecError(errors)
    file = load_eval(path)
    return msgspec.structs.replace(file, samples=options.samples or file.samples)


def _evaluate(file: EvalFile, options: EvalOptions, project: Project, answers: TextIO) -> int:
    """Run both sides, judge and score them, and report."""
    profile = options.profile or file.profile
    folder = options.output or Path(FOLDER, file.name)
    with ExitStack() as stack:
        ref = file.against if options.against is None else options.against
        against = None if ref is None else stack.enter_context(find_against(ref, file, profile))
        flow = project.compile(file.flow, profile=profile)
        hide(flow.secrets)
        job = _job(file, options, folder, profile)
        scoring = _open(file, flow, project, folder, job.cassette)
        hide(scoring.secrets)
        ours = _require_ended(run_here(job, flow))
        records = [stack.enter_context(closing(scoring.records(Path(ours.results))))]
        if against is not None:
            results = _other_side(against, msgspec.structs.replace(job, done=ours.results), options)
            records.append(stack.enter_context(closing(scoring.records(results))))
            if results == Path(ours.results):
                echo(f"flowrun: the flow and its code are the same at {against.what}: so are the runs", err=True)
        _judge(scoring, records, options, job)
        sides = _write_scored(scoring, records, folder)
    summary = summarize(file, scoring.shown_rows(), sides[0], sides[1] if len(sides) > 1 else None, ref)
    _report(file, summary, scoring, sides, folder, options, answers)
    return 0 if summary.passes and sides[0].runs else 1


def _open(file: EvalFile, flow: CompiledFlow, project: Project, folder: Path, cassette: str | None) -> Scoring:
    with file_errors(f"-o {folder}"):
        folder.mkdir(parents=True, exist_ok=True)
        if folder.parts[:1] == (FOLDER,) and not (ignored := Path(FOLDER, ".gitignore")).exists():
            ignored.write_text("*\n")  # results are no part of the project
    return Scoring(file, flow, project, folder, cassette)


def _job(file: EvalFile, options: EvalOptions, folder: Path, profile: str | None) -> SideJob:
    if options.record is not None:
        create_cassette(options.record)
    return SideJob(
        spec=str(file.flow),
        profile=profile,
        rows=str(file.rows.resolve()),
        samples=file.samples,
        folder=str((folder / "runs").resolve()),
        project_dir=None if options.project_dir is None else str(options.project_dir.resolve()),
        on_change="restart" if options.restart else "reconcile",
        retry_failed=options.retry_failed,
        tokens=options.tokens,
        locked=options.locked,
        max_live=options.max_live,
        max_tokens=options.max_tokens,
        max_tools=options.max_tools,
        stall=options.stall,
        record=None if options.record is None else str(options.record.resolve()),
        cassette=None if options.cassette is None else str(options.cassette.resolve()),
        verbose=options.verbose,
        quiet=options.quiet,
        run=not options.rescore,
    )


def _other_side(against: Against, job: SideJob, options: EvalOptions) -> Path:
    """Return the results of the other side, which are there or are made now."""
    if against.results is not None:
        return against.results
    if not options.quiet:
        echo(f"comparing with {against.what}", err=True)
    project_dir = against.moved(options.project_dir) if options.project_dir is not None else None
    other = msgspec.structs.replace(
        job,
        spec=str(against.spec),
        profile=against.profile,
        project_dir=None if project_dir is None else str(project_dir),
    )
    return Path(_require_ended(run_apart(other, against)).results)


def _require_ended(side: Side) -> Side:
    """Return a side whose runs have all ended.

    Raises:
        BatchStopped: the batch ended early.
        KeyboardInterrupt: it was interrupted.
    """
    if side.interrupted:
        raise KeyboardInterrupt
    if side.stopped is not None:
        raise BatchStopped(side.stopped)
    return side


def _judge(scoring: Scoring, records: Sequence[SideRecords], options: EvalOptions, job: SideJob) -> None:
    asked = scoring.questions(records)
    if not asked:
        return
    count = sum(len(questions) for _, questions in asked.values())
    if options.rescore:
        raise UsageError(f"--rescore runs nothing, and {count} judgements of {', '.join(asked)} are not recorded")
    if not options.quiet:
        echo(f"judging {count} answers ({', '.join(asked)})", err=True)
    settings = BackendSettings(verbose=options.verbose, stall=options.stall, locked=options.locked)
    run_in_loop(ask_judges(asked, scoring.judgements, settings, record=job.record, cassette=job.cassette))


def _write_scored(scoring: Scoring, records: Sequence[SideRecords], folder: Path) -> list[ScoredSide]:
    names = (RECORDS, AGAINST_RECORDS)
    sides = [scoring.write(side, folder / name) for name, side in zip(names, records, strict=False)]
    if len(sides) == 1:
        (folder / AGAINST_RECORDS).unlink(missing_ok=True)  # of an earlier comparison
    for side in sides:
        if side.changed:
            what = f"{side.path}: {side.changed} records answer other inputs than their rows have now"
            echo(f"flowrun: {what}, and are left out", err=True)
    return sides


def _report(
    file: EvalFile,
    summary: EvalSummary,
    scoring: Scoring,
    sides: Sequence[ScoredSide],
    folder: Path,
    options: EvalOptions,
    answers: TextIO,
) -> None:
    ours, theirs = sides[0], sides[1] if len(sides) > 1 else None
    page = folder / "report.html"
    with file_errors(str(page)), replaced_private(page) as written:
        written.writelines(render_report(summary, scoring.shown_rows(), ours, theirs))
    if options.junit is not None:
        with file_errors(f"--junit {options.junit}: the file cannot be written"):
            options.junit.write_text(render_junit(verdicts_of(file, summary)), encoding="utf-8")
    if options.json:
        write_json(answers, json_module.dumps(as_data(summary), ensure_ascii=False))
    else:
        _print(summary, answers)
    if not options.quiet:
        echo(f"records: {ours.path}, report: {page}", err=True)


def _print(summary: EvalSummary, answers: TextIO) -> None:
    console = rich_console(file=answers)
    if not console.is_terminal:
        console.width = 1000  # nothing is folded for programs
    sampled = f", {summary.samples} samples each" if summary.samples > 1 else ""
    compared = "" if summary.against is None else f"; {summary.paired} of them compared with {summary.against}"
    console.print(f"{summary.name}: {summary.rows} rows{sampled}{compared}", markup=False, soft_wrap=True)
    shown = table_of(summary)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in shown.head:
        table.add_column(Text(name), justify="left" if name == shown.head[0] else "right", overflow="fold")
    for row in shown.body:
        table.add_row(*map(Text, row), style="dim" if row[0].startswith(" ") else None)
    console.print(table)
    for gate in summary.gates:
        style = {"passed": "green", "failed": "red", "unchecked": "yellow"}[gate.status]
        console.print(Text(f"{gate.status:9} {gate.message}", style=style), soft_wrap=True)
    for line in notes_of(summary):
        console.print(Text(line, style="dim"), soft_wrap=True)
