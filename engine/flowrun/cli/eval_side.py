"""Runs one side of an evaluation: in this process, or in one of its own, for a flow of another version or project."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from flowrun.batch import BatchStopped, count_outcomes
from flowrun.batch.job import BatchJob
from flowrun.cli.event_loop import run_in_loop
from flowrun.cli.next_steps import warn_of_alike_samples
from flowrun.cli.progress import BatchView
from flowrun.cli.streams import answer_stream
from flowrun.cli.terminal import echo, write_json
from flowrun.collector import calm_collector
from flowrun.errors import FlowrunError, UsageError
from flowrun.evaluation.against import Against
from flowrun.evaluation.sides import Side, SideJob, open_side, results_of, run_side
from flowrun.runtime.project import CompiledFlow, Project

_MODULE: Final = "flowrun.cli.eval_side"


class SideView(BatchView):
    """The progress of a side. Members of rows that are no inputs are for the scores: nothing is said of them."""

    def say_columns(self, rows: Path, columns: Sequence[str], inputs: Collection[str]) -> None:
        """Show nothing."""


def run_here(job: SideJob, flow: CompiledFlow) -> Side:
    """Run a side in this process, or look for its results only.

    Raises:
        UsageError: the results are refused, or there are none to look for.
        FlowrunError: an engine cannot start, or failed in a way that affects all rows.
    """
    results = results_of(job, flow)
    if str(results) == job.done:
        return Side(results=str(results))
    if not job.run:
        if not results.exists():
            raise UsageError(f"nothing is recorded of this version of {job.spec}: run it first, without --rescore")
        return Side(results=str(results))
    with SideView(quiet=job.quiet, secrets=flow.secrets) as view:
        batch = open_side(job, flow, results, view)
        _warn(job, flow, batch)
        view.say_kept(batch.results, messages=False)
        totals = batch.totals
        try:
            if batch.total > 0:
                calm_collector()
                run_in_loop(run_side(job, batch))
        except KeyboardInterrupt:
            totals.interrupted = True
        except BatchStopped as exc:
            totals.stopped = str(exc)
        finally:
            batch.results.close()
        outcomes, runs = count_outcomes(batch.results.sink, job.samples), batch.rows_in_file * job.samples
        missing = max(0, runs - outcomes.total())
        if batch.total > 0:
            view.conclude(outcomes, skipped=batch.skipped, missing=missing, totals=totals)
        else:
            view.say(f"all {runs:,} runs were finished before: --restart runs them anew")
        return Side(results=str(results), stopped=totals.stopped, interrupted=totals.interrupted)


def _warn(job: SideJob, flow: CompiledFlow, batch: BatchJob) -> None:
    """Print warnings about runs that are to be made.

    Raises:
        UsageError: replies are to be recorded, and some runs were made before.
    """
    if job.record is not None and batch.skipped:
        batch.results.close()
        what = f"{batch.skipped} runs were finished before, and only runs that are made now are recorded"
        raise UsageError(f"--record {job.record}: {what}: add --restart")
    if batch.total > 0:
        warn_of_alike_samples(flow, job.samples)
        if waits := flow.states_that_wait:
            echo(f"flowrun: {', '.join(waits)} waits for human input: in an evaluation, nobody answers", err=True)


def run_apart(job: SideJob, against: Against) -> Side:
    """Run a side in a process of its own, which ends with this one.

    Python finds its modules where this process does; those of the repository, in the other version.

    Raises:
        FlowrunError: it failed; it has said why.
    """
    given = [os.path.abspath(path) for path in filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    paths = [*against.moved_modules(sys.path), *map(str, map(against.moved_module, map(Path, given)))]
    environ = {**os.environ, **({"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))} if paths else {})}
    arguments = [sys.executable, "-P", "-c", f"from {_MODULE} import main; main()"]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=against.folder, env=environ
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(msgspec.json.encode(job) + b"\n")
            process.stdin.flush()
            said = process.stdout.read()
            code = process.wait()
        except BrokenPipeError:
            said, code = b"", process.wait()
        except KeyboardInterrupt:
            process.stdin.close()  # which interrupts it, if Ctrl-C has not: it keeps its results
            process.wait()
            raise
    if code == 130:
        raise KeyboardInterrupt
    if code:
        raise FlowrunError(f"the other version of the flow did not run ({job.spec}): see above")
    return msgspec.json.decode(said, type=Side)


def main() -> None:
    """Run the side whose job is the first line of stdin, and print its results as JSON. The end of stdin ends it."""
    from flowrun.cli import run_guarded

    def work() -> int:
        job = msgspec.json.decode(sys.stdin.buffer.readline(), type=SideJob)
        with _ending_with_stdin(), answer_stream() as answers:
            project = Project(folder=None if job.project_dir is None else Path(job.project_dir), environ=os.environ)
            side = run_here(job, project.compile(Path(job.spec), profile=job.profile))
            write_json(answers, json.dumps(msgspec.to_builtins(side)))
        return 130 if side.interrupted else 0

    run_guarded(work)


@contextmanager
def _ending_with_stdin() -> Iterator[None]:
    """End this process as Ctrl-C does once its stdin ends: the process that started it has gone."""
    descriptor, over = os.dup(0), threading.Event()

    def watch() -> None:
        while os.read(descriptor, 4096):
            pass
        if not over.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True, name="flowrun-stdin").start()
    yield
    over.set()
