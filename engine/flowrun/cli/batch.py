"""``flowrun batch``: runs a flow for each row of a file, with all runs on the same models."""

import os
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from flowrun.batch import (
    SHARD_ROWS,
    BatchStopped,
    Folder,
    Format,
    OneFile,
    Options,
    count_outcomes,
    require_format,
)
from flowrun.batch.distributed.run import RayOptions, merge, run_on_ray
from flowrun.batch.durable_batch import EarlierRuns, run_durably
from flowrun.batch.job import (
    BatchJob,
    ResultOptions,
    open_job,
    run_in_process,
)
from flowrun.cli.event_loop import run_in_loop
from flowrun.cli.next_steps import warn_of_alike_samples, warn_of_network
from flowrun.cli.options import (
    drain_option,
    journal_option,
    locked_option,
    max_live_option,
    max_tokens_option,
    max_tools_option,
    profile_option,
    project_option,
    spec_argument,
    stall_option,
    tokens_option,
    verbose_option,
)
from flowrun.cli.progress import BatchView
from flowrun.cli.streams import answer_stream, real_path
from flowrun.cli.terminal import echo, write_json
from flowrun.collector import calm_collector
from flowrun.errors import UsageError
from flowrun.runtime.engines import BackendSettings
from flowrun.runtime.project import CompiledFlow, Project
from flowrun.runtime.run_result import encode_json


class BatchOptions(Options, frozen=True, kw_only=True):
    """The options of the verb; each field has the name of its option."""

    spec: Path
    rows: Path
    output: Path
    profile: str | None
    max_tools: int
    stall: float
    samples: int
    tokens: bool
    locked: bool
    restart: bool
    continue_: bool
    retry_failed: bool
    journal: Path
    ray: str | None
    replicas: int | None
    shard_rows: int | None
    format: Format | None
    json: bool
    quiet: bool
    verbose: bool
    project_dir: Path | None
    drain: float


@click.command()
@spec_argument
@click.argument("rows", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The results, JSON lines; with --ray a folder.",
)
@profile_option
@max_live_option
@max_tools_option
@stall_option
@click.option(
    "--samples", type=click.IntRange(1), default=1, metavar="N", help="Run each row N times, with a seed each."
)
@tokens_option
@locked_option
@click.option("--messages", is_flag=True, help="Put the messages into the results.")
@click.option("--restart", is_flag=True, help="Move earlier results away and run every row.")
@click.option("--continue", "continue_", is_flag=True, help="Keep earlier results although the spec or input changed.")
@click.option("--retry-failed", is_flag=True, help="Run only the rows whose results say that they failed.")
@click.option("--fail-after", type=click.IntRange(1), help="Stop early once so many rows have failed.")
@max_tokens_option
@click.option("--durable", is_flag=True, help="Write each run down as it goes, so that it outlives a crash.")
@journal_option
@click.option("--ray", metavar="ADDRESS", help="Run on a Ray cluster; 'local' starts a Ray here.")
@click.option("--replicas", type=click.IntRange(1), help="With --ray: how many; else as many as its resources allow.")
@click.option("--shard-rows", type=click.IntRange(1), help="With --ray: rows in one part of the results [100000].")
@click.option("--format", type=click.Choice(["jsonl", "parquet"]), help="With --ray: of all results [jsonl].")
@click.option("--json", is_flag=True, help="Print the closing figures as JSON on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress; the closing table stays.")
@verbose_option
@project_option
@drain_option
def command(**values: Any) -> int:
    """Run a flow once for each row of ROWS (.jsonl, .csv, .parquet), and write a result line each.

    A row holds the run's inputs, and optionally an id. After an interruption, run the same command again: rows that
    are finished are not run again. With --ray, one engine runs on each replica, and the results are parts in a folder,
    merged at the end. Exits with 0 if every row of the file succeeded.
    """
    options = BatchOptions(**values)
    with answer_stream() as answers:
        require_compatible_options(options)
        ray_options = read_ray_options(options)
        flow = Project(folder=options.project_dir, environ=os.environ).compile(
            real_path(options.spec), profile=options.profile
        )
        with BatchView(quiet=options.quiet, secrets=flow.secrets) as view:
            job = _open(flow, options, ray_options, view)
            _run(job, options, ray_options, view)
            outcomes, runs = count_outcomes(job.results.sink, options.samples), job.rows_in_file * options.samples
            missing = max(0, runs - outcomes.total() - sum(job.totals.open.values()))
            view.conclude(outcomes, skipped=job.skipped, missing=missing, totals=job.totals)
            for status, count in job.totals.open.items():
                view.explain_open(status, count, job.results.batch)
            if ray_options is not None and not missing:
                merge(job, ray_options)
        if options.json:
            figures = {"skipped": job.skipped, **job.totals.figures()}
            write_json(answers, encode_json({"rows": job.rows_in_file, "outcomes": dict(outcomes), **figures}))
    if job.totals.interrupted:
        raise KeyboardInterrupt
    if job.totals.stopped is not None:
        raise BatchStopped(job.totals.stopped)
    return 0 if outcomes["succeeded"] == runs else 1


def require_compatible_options(options: BatchOptions) -> None:
    """Check that no options exclude each other.

    Raises:
        UsageError: some do.
    """
    if options.restart and (options.continue_ or options.retry_failed):
        raise UsageError("--restart runs every row anew: it goes with neither --continue nor --retry-failed")
    if options.durable and options.ray is not None:
        raise UsageError("--durable and --ray do not go together: finished rows are kept either way")
    if options.max_tokens is not None and options.ray is not None:
        raise UsageError(
            "--max-tokens and --ray do not go together: replicas take rows before the ones before are done"
        )


def read_ray_options(options: BatchOptions) -> RayOptions | None:
    """Return the options of Ray; None if the batch does not run on Ray.

    Raises:
        UsageError: options exclude each other or need ``--ray``, ``-o`` does not fit, or a package is missing.
    """
    output = options.output
    if options.ray is None:
        given = {"--replicas": options.replicas, "--shard-rows": options.shard_rows, "--format": options.format}
        if refused := [option for option, value in given.items() if value is not None]:
            raise UsageError(f"{', '.join(refused)}: only with --ray")
        if output.is_dir():
            raise UsageError(f"-o {output}: is a folder; only a batch with --ray writes into one")
        return None
    if output.exists() and not output.is_dir():
        raise UsageError(f"-o {output}: is a file; a batch with --ray writes into a folder")
    format = options.format or "jsonl"
    require_format(format)
    folder = Folder(output, options.shard_rows or SHARD_ROWS)
    return RayOptions(address=options.ray, replicas=options.replicas, folder=folder, format=format)


def _open(flow: CompiledFlow, options: BatchOptions, ray_options: RayOptions | None, view: BatchView) -> BatchJob:
    """Survey the rows and open the results."""
    if not options.durable and (waits := flow.states_that_wait):
        echo(f"flowrun: {', '.join(waits)} waits for human input, which a batch can only get with --durable", err=True)
    return open_job(
        flow,
        real_path(options.rows),
        ResultOptions(
            sink=OneFile(options.output) if ray_options is None else ray_options.folder,
            samples=options.samples,
            on_change="restart" if options.restart else "continue" if options.continue_ else "refuse",
            retry_failed=options.retry_failed,
            journal=options.journal if options.durable else None,
        ),
        options=options,
        settings=BackendSettings(
            verbose=options.verbose,
            stall=options.stall,
            locked=options.locked,
            keeps_tokens=options.tokens,
            progress=view.progress,
            note=view.say,
        ),
        max_tools=options.max_tools,
        view=view,
    )


def _run(job: BatchJob, options: BatchOptions, ray_options: RayOptions | None, view: BatchView) -> None:
    """Run the rows on Ray, with a journal, or in this process; record an early end in the totals."""
    view.say_kept(job.results, messages=options.messages)
    try:
        if job.total <= 0:
            return
        warn_of_alike_samples(job.flow, job.samples)
        calm_collector()
        if ray_options is not None:
            run_on_ray(job, ray_options)
        elif options.durable:
            warn_of_network(options.journal)
            with closing(EarlierRuns(options.journal, job.results.batch)) as earlier:
                run_in_loop(run_durably(job, options.journal, earlier, drain=options.drain))
        else:
            run_in_loop(run_in_process(job))
    except KeyboardInterrupt:
        job.totals.interrupted = True
    except BatchStopped as exc:
        job.totals.stopped = str(exc)
    finally:
        job.results.close()
