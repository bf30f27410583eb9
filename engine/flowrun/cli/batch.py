"""``flowrun batch``: a run for each row of a file, all on the same models, each at its own pace."""

import asyncio
import json
import os
from pathlib import Path
from typing import Final

import click

from flowrun.batch import (
    BatchStopped,
    Fingerprint,
    Folder,
    Format,
    Meter,
    OnChange,
    OneFile,
    Options,
    Results,
    RowFile,
    count_outcomes,
)
from flowrun.cli import ray
from flowrun.cli.batches import (
    BatchJob,
    BatchTotals,
    EarlierRuns,
    FlowReference,
    count_rows_to_run,
    rows_to_run,
    run_durably,
    run_in_process,
    states_that_wait,
)
from flowrun.cli.driving import warn_of_network
from flowrun.cli.journal_option import journal_option
from flowrun.cli.progress import BatchView
from flowrun.cli.streams import answer_stream
from flowrun.cli.terminal import echo, write_json
from flowrun.errors import UsageError
from flowrun.runtime.backends import BackendSettings
from flowrun.runtime.durable import store_flow
from flowrun.runtime.prepare import prepare_flow

MAX_TOOLS: Final = 256


@click.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.argument("rows", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="The results, JSON lines; with --ray a folder.",
)
@click.option("--profile", envvar="FLOWRUN_PROFILE", help="Merge this profile of the spec over it.")
@click.option("--max-live", type=click.IntRange(1), help="Runs live at once; else derived from the engine's limits.")
@click.option(
    "--max-tools", type=click.IntRange(1), default=MAX_TOOLS, show_default=True, help="Tool calls running at once."
)
@click.option("--messages", is_flag=True, help="Put the messages into the results.")
@click.option("--restart", is_flag=True, help="Put earlier results aside and run every row.")
@click.option("--continue", "go_on", is_flag=True, help="Keep earlier results although the spec or input changed.")
@click.option("--retry-failed", is_flag=True, help="Run only the rows whose results say that they failed.")
@click.option("--fail-after", type=click.IntRange(1), help="Stop early once so many rows have failed.")
@click.option("--durable", is_flag=True, help="Write each run down as it goes, so that it outlives a crash.")
@journal_option
@click.option("--ray", "address", metavar="ADDRESS", help="Run on a Ray cluster; 'local' starts a Ray here.")
@click.option("--replicas", type=click.IntRange(1), help="With --ray: so many; else as many as there is place for.")
@click.option("--shard-rows", type=click.IntRange(1), help="With --ray: rows in one part of the results [100000].")
@click.option("--format", "kind", type=click.Choice(["jsonl", "parquet"]), help="With --ray: of all results [jsonl].")
@click.option("--json", "as_json", is_flag=True, help="Print the closing figures as JSON on stdout.")
@click.option("-q", "--quiet", is_flag=True, help="Show no progress; the closing table stays.")
@click.option("-v", "--verbose", is_flag=True, help="Show the log of vLLM too.")
@click.option(
    "--project-dir", type=click.Path(file_okay=False, exists=True, path_type=Path), help="Where entrypoints start."
)
def command(
    spec: Path,
    rows: Path,
    output: Path,
    profile: str | None,
    max_live: int | None,
    max_tools: int,
    messages: bool,
    restart: bool,
    go_on: bool,
    retry_failed: bool,
    fail_after: int | None,
    durable: bool,
    journal: Path,
    address: str | None,
    replicas: int | None,
    shard_rows: int | None,
    kind: Format | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    project_dir: Path | None,
) -> int:
    """Run a flow once for each row of ROWS (.jsonl, .csv, .parquet), and write a result line each.

    A row holds the run's inputs, and an id if it likes. Interrupted, the same command goes on where it was: rows that
    are finished are not run again. With --ray, one engine runs on each replica, and the results are parts in a folder,
    merged at the end. Exits with 0 if every row of the file succeeded.
    """
    with answer_stream() as answers:
        if restart and (go_on or retry_failed):
            raise UsageError("--restart runs every row anew: it goes with neither --continue nor --retry-failed")
        if durable and address is not None:
            raise UsageError("--durable and --ray do not go together: finished rows are kept either way")
        rays = ray.read_options(output, address=address, replicas=replicas, shard_rows=shard_rows, kind=kind)
        flow = prepare_flow(spec, profile=profile, project_dir=project_dir, environ=os.environ, max_calls=max_tools)
        file = RowFile(rows, flow.loaded.spec)
        survey = file.survey()
        kept = store_flow(flow, spec, profile=profile, project_dir=project_dir)
        if output.exists() and any(output.samefile(given) for given in (spec, rows)):
            raise UsageError(f"-o {output} is the spec or the rows themselves: name another file")
        if not survey.count:
            raise UsageError(f"{rows} has no rows")
        if not durable and (waits := states_that_wait(flow)):
            echo(f"flowrun: {waits} waits for people, whom a batch can only hear with --durable", err=True)
        layout: OneFile | Folder = OneFile(output) if rays is None else rays.folder
        on_change: OnChange = "restart" if restart else "continue" if go_on else "refuse"
        fingerprint = Fingerprint(
            spec=kept.snapshot.digest, input=survey.digest, journal=str(journal.resolve()) if durable else None
        )
        results = Results(layout, fingerprint, on_change=on_change)
        total, skipped = count_rows_to_run(results.outcomes, survey.count, retry_failed=retry_failed)
        session = BatchTotals(meter=Meter())
        with BatchView(quiet=quiet, secrets=flow.secrets) as view:
            if results.mended:
                view.say(f"{output}: {results.mended} broken lines dropped; their rows are run again")
            job = BatchJob(
                flow=flow,
                origin=FlowReference(kept=kept, max_tools=max_tools),
                rows=rows_to_run(file, results, retry_failed=retry_failed),
                total=total,
                results=results,
                options=Options(max_live=max_live, fail_after=fail_after, messages=messages, durable=durable),
                settings=BackendSettings(verbose=verbose, progress=view.say),
                view=view,
                session=session,
            )
            try:
                if total > 0:
                    _run(job, rays, journal if durable else None)
            except KeyboardInterrupt:
                session.interrupted = True
            except BatchStopped as exc:
                session.stopped = str(exc)
            finally:
                results.close()
            outcomes = count_outcomes(layout)
            missing = max(0, survey.count - outcomes.total() - sum(session.open.values()))
            view.conclude(outcomes, skipped=skipped, missing=missing, figures=session.spell())
            for status, count in session.open.items():
                what = "wait for people" if status == "waiting" else "have a call in doubt"
                which = f"flowrun runs --batch {results.batch} --status {status}"
                view.say(f"{count} {what}, and get their results once they are over: {which}", important=True)
            if rays is not None and not missing:
                ray.merge(job, rays)
        if as_json:
            whole = {"rows": survey.count, "outcomes": dict(outcomes), "skipped": skipped, **session.figures()}
            write_json(answers, json.dumps(whole))
    if session.interrupted:
        raise KeyboardInterrupt
    if session.stopped is not None:
        raise BatchStopped(session.stopped)
    return 0 if outcomes["succeeded"] == survey.count else 1


def _run(job: BatchJob, rays: ray.RayOptions | None, journal: Path | None) -> None:
    if rays is not None:
        ray.run_on_ray(job, rays)
    elif journal is not None:
        warn_of_network(journal)
        asyncio.run(run_durably(job, journal, EarlierRuns(journal, job.results.batch)))
    else:
        asyncio.run(run_in_process(job))
