"""``flowrun engine``: keeps an engine of vLLM warm for the next commands, says how it is, and ends it."""

import asyncio
import os
import time
from contextlib import closing
from json import dumps
from pathlib import Path

import click
import msgspec
from rich.table import Table
from rich.text import Text

from flowrun.backends.warm.client import end, look_at
from flowrun.backends.warm.find import outdated
from flowrun.backends.warm.orders import Order, find_or_lock, start_process
from flowrun.backends.warm.records import EngineRecord, engine_records
from flowrun.backends.warm.wire import Health
from flowrun.cli.event_loop import run_in_loop
from flowrun.cli.options import profile_option, project_option, read_duration, spec_argument
from flowrun.cli.streams import answer_stream, real_path
from flowrun.cli.terminal import echo, rich_console, write_json
from flowrun.durations import spell_duration
from flowrun.errors import BackendError, UsageError
from flowrun.runtime.engines import EngineModel, engine_model, held_model_of
from flowrun.runtime.project import Project


@click.group()
def command() -> None:
    """Keep an engine of vLLM warm in a process of its own, which run, batch, eval and serve use."""


@command.command()
@spec_argument
@profile_option
@click.option(
    "--idle",
    default="15m",
    show_default=True,
    metavar="TIME",
    callback=read_duration,
    help="End an engine that nobody was connected to for so long.",
)
@project_option
def up(spec: Path, profile: str | None, idle: float, project_dir: Path | None) -> int:
    """Start the engines of the models of SPEC, unless they are warm already.

    Commands on a spec with the same model use them from then on, and say so. Of two of these commands at once, one
    starts an engine, and the other waits for it.
    """
    flow = Project(folder=project_dir, environ=os.environ).compile(real_path(spec), profile=profile)
    models = [engine_model(flow, name) for name, bound in flow.models.items() if bound.model.backend == "vllm"]
    if not models:
        raise UsageError(f"{spec} asks no model of vLLM in this process")
    for place, model in enumerate(models):
        if model not in models[:place]:
            _start(model, idle)
    return 0


def _start(model: EngineModel, idle: float) -> None:
    held = held_model_of(model)
    found = find_or_lock(held, note=_say)
    if isinstance(found, EngineRecord):
        why = outdated(held, found)
        if why is None and (others := held.differences(found.model)):
            why = f"it has another {', '.join(others)}"
        if why is not None:
            raise UsageError(f"the warm engine of {held.name} does not fit: {why}; end it by flowrun engine down")
        run_in_loop(look_at(found))  # one that hangs is none
        _say(f"{held.name} is warm already (process {found.pid})")
        return
    order = Order(
        model=msgspec.structs.replace(model.bound.model, timeout=None),
        folder=str(model.bound.folder.resolve()),
        adapters=tuple(sorted(model.adapters)),
        held=held,
        idle=idle,
    )
    with closing(found) as lock:
        pid = start_process(order, lock, progress=_say, note=_say)
    _say(f"{held.name} is warm (process {pid}); it ends after {spell_duration(idle, whole=True)} without use")


def _say(text: str) -> None:
    echo(text, err=True)


@command.command()
@click.option("--json", is_flag=True, help="Print a JSON object a line.")
def status(json: bool) -> int:
    """List the engines that are warm."""
    found = run_in_loop(_looked_at(list(engine_records())))
    with answer_stream() as answers:
        if json:
            for record, health in found:
                about = {"socket": str(record.socket), **msgspec.to_builtins(record)}
                how = None if health is None else msgspec.to_builtins(health)
                write_json(answers, dumps({**about, "health": how}, ensure_ascii=False))
            return 0
        if not found:
            echo("no engine is warm: flowrun engine up SPEC starts one", err=True)
            return 0
        rich_console(file=answers).print(_table_of(found))
    return 0


async def _looked_at(records: list[EngineRecord]) -> list[tuple[EngineRecord, Health | None]]:
    """Return how engines are; None for those that do not answer."""
    found = await asyncio.gather(*map(look_at, records), return_exceptions=True)
    return [
        (record, health if isinstance(health, Health) else None) for record, health in zip(records, found, strict=True)
    ]


def _table_of(found: list[tuple[EngineRecord, Health | None]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("process", "model", "vLLM", "age", "clients", "live", "served", "ends in"):
        table.add_column(name, justify="left" if name in ("model", "vLLM") else "right")
    for record, health in found:
        age = spell_duration(time.time() - record.started, whole=True)
        if health is None:
            how = ["?", "?", "?", "it does not answer"]
        else:
            left = spell_duration(max(0.0, record.idle - health.idle), whole=True) if not health.clients else ""
            how = [str(health.clients), str(health.live), str(health.served), left]
        table.add_row(*map(Text, (str(record.pid), record.model.name, record.vllm, age, *how)))
    return table


@command.command()
@click.argument("spec", required=False, type=click.Path(path_type=Path))
@profile_option
@click.option("--force", is_flag=True, help="End those too that others are connected to.")
@project_option
def down(spec: Path | None, profile: str | None, force: bool, project_dir: Path | None) -> int:
    """End the engines that are warm and not in use; with SPEC only those of its models."""
    records = list(engine_records())
    if spec is not None:
        flow = Project(folder=project_dir, environ=os.environ).compile(real_path(spec), profile=profile)
        held = [held_model_of(engine_model(flow, name)) for name in flow.models]
        records = [record for record in records if any(map(record.is_of, held))]
    if not records:
        echo("no engine is warm", err=True)
    faults = [fault for record in records if (fault := _end(record, force=force)) is not None]
    if faults:
        raise BackendError("\n".join(faults))
    return 0


def _end(record: EngineRecord, *, force: bool) -> str | None:
    """End an engine, and say so; return why it goes on."""
    try:
        run_in_loop(end(record, force=force))
    except BackendError as exc:
        return str(exc)
    _say(f"{record.model.name}: process {record.pid} has ended")
    return None
