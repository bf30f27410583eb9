"""One side of an evaluation: the runs of one version of the flow, in a folder of their own, resumable as a batch.

A version is the flow with the Python code of its project: editing a tool makes another version, so that nothing is
taken for its result that an earlier one made.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from flowrun.batch.batch import Options, row_result, run_id_of
from flowrun.batch.job import BatchJob, BatchReporter, ResultOptions, open_job
from flowrun.batch.results import OnChange
from flowrun.batch.rows import Row
from flowrun.batch.sinks import OneFile
from flowrun.core.ports import ModelBackend
from flowrun.evaluation.project_code import code_of
from flowrun.evaluation.trace_log import TraceLog
from flowrun.runtime.engines import BackendSettings
from flowrun.runtime.project import CompiledFlow
from flowrun.runtime.run_result import guard
from flowrun.runtime.session import Session
from flowrun.testing.cassettes import CassetteBackend, RecordingBackend

RESULTS: Final = "results.jsonl"

_HASHED: Final = 16_000_000
"""The bytes of a model's file up to which its content counts, as that of scripted replies; else its size and time."""


class SideJob(msgspec.Struct, frozen=True, kw_only=True):
    """What one side runs, as plain data: another process may run it.

    Attributes:
        spec, rows: the paths of the spec and the rows.
        folder: in which each version of the flow has a folder with its results.
        record: the cassette to which the replies are added; all runs must be made now.
        cassette: the cassette that replies in place of the models.
        run: False: look for the results only.
        done: results that are there already: if they are of this version, nothing is run.
    """

    spec: str
    profile: str | None
    rows: str
    samples: int
    folder: str
    project_dir: str | None = None
    on_change: OnChange = "refuse"
    retry_failed: bool = False
    tokens: bool = False
    locked: bool = False
    max_live: int | None = None
    max_tokens: int | None = None
    max_tools: int = 256
    stall: float = 600.0
    record: str | None = None
    cassette: str | None = None
    verbose: bool = False
    quiet: bool = False
    run: bool = True
    done: str | None = None


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """The results of one side.

    Attributes:
        results: the file with the records.
        stopped: why the batch ended early.
    """

    results: str
    stopped: str | None = None
    interrupted: bool = False


def results_of(job: SideJob, flow: CompiledFlow) -> Path:
    """Return the path of the results of a side, for its version as it is now."""
    return Path(job.folder) / version_of(flow, job.cassette) / RESULTS


def open_side(job: SideJob, flow: CompiledFlow, results: Path, view: BatchReporter) -> BatchJob:
    """Open the batch of a side with its results. Raises as ``open_job`` does."""
    results.parent.mkdir(parents=True, exist_ok=True)
    return open_job(
        flow,
        Path(job.rows),
        ResultOptions(
            sink=OneFile(results), samples=job.samples, on_change=job.on_change, retry_failed=job.retry_failed
        ),
        options=Options(max_live=job.max_live, max_tokens=job.max_tokens, messages=True),
        settings=BackendSettings(
            verbose=job.verbose,
            stall=job.stall,
            locked=job.locked,
            keeps_tokens=job.tokens,
            progress=view.progress,
            note=view.say,
        ),
        max_tools=job.max_tools,
        view=view,
    )


async def run_side(job: SideJob, batch: BatchJob) -> None:
    """Run the batch of a side; each record has its messages, and what expectations compare as ``trace``.

    Raises:
        BatchStopped: the batch ended early.
    """
    meter = batch.totals.meter
    flow, changed = with_cassette(batch.flow, record=job.record, cassette=job.cassette)
    async with Session(max_tools=batch.max_tools, keep_waiting=False, settings=batch.settings) as session:
        runs = await session.runs_of(flow, wrap=lambda name, backend: meter.wrap(name, changed(backend)))

        async def run_row(row: Row) -> dict[str, Any]:
            run_id = run_id_of(batch.results.batch, row)
            log = TraceLog(run_id)
            running = runs.start(row.inputs, run_id, observer=log, seed=row.seed)
            result = await guard(f"row {row.number}", running)
            return {**row_result(result, messages=True), "trace": log.data(result.run)}

        await batch.run_rows(run_row, meter)


def with_cassette(
    flow: CompiledFlow, *, record: str | None, cassette: str | None
) -> tuple[CompiledFlow, Callable[[ModelBackend], ModelBackend]]:
    """Return a flow, with a cassette in place of its models if one is given, and what records to one."""
    if cassette is not None:
        backend = CassetteBackend(Path(cassette), reader_of=_no_reader, secrets=flow.secrets)
        return msgspec.structs.replace(flow, backends=dict.fromkeys(flow.models, backend)), lambda backend: backend
    if record is None:
        return flow, lambda backend: backend
    return flow, lambda backend: RecordingBackend(backend, Path(record), flow.secrets)


async def _no_reader(request: object) -> None:
    """Return no reader: replies are taken as they were parsed when they were recorded."""


def version_of(flow: CompiledFlow, cassette: str | None = None) -> str:
    """Return the name of a version: of the flow, its variables, its code, its lock, and the small files of its models.

    Args:
        cassette: what replies in place of the models: its replies are not taken for theirs.
    """
    parts: list[object] = [flow.origin.snapshot.digest, sorted(flow.origin.snapshot.variables.items())]
    parts += code_of(flow.functions.values(), flow.project)
    parts += [one for bound in flow.models.values() for one in _files_of(bound.folder, bound.model.name, bound.model)]
    parts += _locked(flow)
    parts += [] if cassette is None else [hashlib.sha256(Path(cassette).read_bytes()).hexdigest()]
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:16]


def _locked(flow: CompiledFlow) -> list[list[str]]:
    """Return what is locked of the models of a flow; they are other models once that changes."""
    found = [(one.key, one.lock.find(one.key, one.bound.model)) for one in flow.locks if one.lock is not None]
    return [[key, model.digest] for key, model in found if model is not None]


def _files_of(folder: Path, name: str, model: object) -> Iterator[tuple[str, str]]:
    """Yield the files that a model names, each with its digest, or its size and time."""
    names = [name, *(getattr(model, field, None) for field in ("chat_template", "adapter"))]
    for written in filter(None, names):
        path = folder / str(written)
        try:
            if path.is_dir():
                content = [[one.name, one.stat().st_size, one.stat().st_mtime_ns] for one in sorted(path.iterdir())]
                yield str(written), hashlib.sha256(msgspec.json.encode(content)).hexdigest()
            elif path.stat().st_size <= _HASHED:
                yield str(written), hashlib.sha256(path.read_bytes()).hexdigest()
            else:
                yield str(written), f"{path.stat().st_size} {path.stat().st_mtime_ns}"
        except (OSError, ValueError):  # it is no file, but the name of a model
            continue
