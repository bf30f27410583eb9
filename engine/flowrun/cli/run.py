"""``flowrun run``: runs a flow once. Only the answer goes to stdout; progress goes to stderr."""

import asyncio
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

import click

from flowrun.cli.console import Console, conclude
from flowrun.cli.human_input import terminal_input
from flowrun.cli.next_steps import interruptions_explained, next_commands, warn_of_network
from flowrun.cli.options import (
    journal_option,
    profile_option,
    project_option,
    quiet_option,
    result_option,
    spec_argument,
    verbose_option,
)
from flowrun.cli.streams import answer_stream
from flowrun.core.strict_json import parse_json
from flowrun.errors import UsageError
from flowrun.runtime.backends import BackendSettings, make_backends, started
from flowrun.runtime.durable import open_durable_runs
from flowrun.runtime.prepare import Flow, prepare_flow
from flowrun.runtime.runner import Result, Runner, with_defaults
from flowrun.runtime.stored_flow import StoredFlow, store_flow
from flowrun.spec.model import JSON, Spec
from flowrun.testing.cassettes import RecordingBackend, create_cassette


@click.command()
@spec_argument
@click.option("-i", "--input", multiple=True, metavar="NAME=VALUE", help="An input; may be repeated.")
@click.option("--inputs", "file", type=click.File("r"), metavar="FILE", help="Inputs from a JSON file; - is stdin.")
@profile_option
@result_option
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Keep what the model says, for tests.",
)
@click.option("--durable", is_flag=True, help="Write the run down as it goes, so that it outlives a crash.")
@journal_option
@quiet_option
@verbose_option
@project_option
def command(
    spec: Path,
    input: tuple[str, ...],
    file: TextIO | None,
    profile: str | None,
    json: bool,
    record: Path | None,
    durable: bool,
    journal: Path,
    quiet: bool,
    verbose: bool,
    project_dir: Path | None,
) -> int:
    """Run a flow and print its answer. Exits with 1 if the run failed, with 4 if it waits for an answer."""
    if durable and record is not None:
        raise UsageError("--record is for runs that are not --durable: a durable run has its events in the journal")
    with answer_stream() as answers:
        flow = prepare_flow(spec, profile=profile, project_dir=project_dir, environ=os.environ)
        inputs = {**read_inputs_file(file), **parse_inputs(flow.loaded.spec, input)}
        if (wrong := flow.graph.inputs(with_defaults(flow.loaded.spec, inputs))) is not None:
            raise UsageError(f"the inputs do not match what {spec} declares: {wrong}")
        with Console(quiet=quiet, secrets=flow.secrets) as console:
            settings = BackendSettings(verbose=verbose, progress=console.progress)
            if not durable:
                result = asyncio.run(_run_once(flow, inputs, settings, console, record))
                return conclude(result, answers=answers, console=console, full=json)
            warn_of_network(journal)
            stored = store_flow(flow, spec, profile=profile, project_dir=project_dir)
            run_id = secrets.token_hex(6)
            with interruptions_explained(run_id, journal):
                result = asyncio.run(_run_durably(flow, stored, inputs, settings, console, journal, run_id))
            commands = next_commands(result.run.id, result, journal)
            return conclude(result, answers=answers, console=console, full=json, commands=commands)


async def _run_durably(
    flow: Flow,
    stored: StoredFlow,
    inputs: Mapping[str, JSON],
    settings: BackendSettings,
    console: Console,
    journal: Path,
    run_id: str,
) -> Result:
    async with open_durable_runs(
        flow, stored, journal, settings=settings, human_input=terminal_input(), observers=[console]
    ) as runs:
        console.note("run", f"{run_id}, kept in {journal}")
        return await runs.start(inputs, run_id)


async def _run_once(
    flow: Flow, inputs: Mapping[str, JSON], settings: BackendSettings, console: Console, record: Path | None
) -> Result:
    backends = make_backends(flow, settings)
    if record is not None:
        create_cassette(record)
        backends = {name: RecordingBackend(backend, record) for name, backend in backends.items()}
    async with started(backends):
        runner = Runner(backends=backends, functions=flow.functions, human_input=terminal_input(), observers=[console])
        return await runner.run(flow.graph, inputs, run_id=secrets.token_hex(6))


def read_inputs_file(file: TextIO | None) -> Mapping[str, JSON]:
    """Read inputs from a file with a JSON object; none if there is no file.

    Raises:
        UsageError: the file holds no JSON object.
    """
    if file is None:
        return {}
    try:
        inputs = parse_json(file.read())
    except ValueError as exc:
        raise UsageError(f"--inputs {file.name}: no JSON: {exc}") from exc
    if not isinstance(inputs, dict):
        raise UsageError(f"--inputs {file.name}: must be a JSON object, input names to values")
    return inputs


def parse_inputs(spec: Spec, arguments: tuple[str, ...]) -> dict[str, JSON]:
    """Parse ``NAME=VALUE`` arguments: a value is text if the input may be text, else JSON.

    Raises:
        UsageError: an argument has another form, names no input of the flow, or its value is no JSON.
    """
    inputs: dict[str, JSON] = {}
    for argument in arguments:
        name, equals, text = argument.partition("=")
        if not equals:
            raise UsageError(f"-i {argument}: write it as NAME=VALUE")
        if name not in spec.inputs:
            known = ", ".join(spec.inputs) or "none"
            raise UsageError(f"-i {argument}: the flow has no input {name!r}; it has: {known}")
        inputs[name] = _parse_value(name, text, spec.inputs[name])
    return inputs


def _parse_value(name: str, text: str, schema: Mapping[str, JSON]) -> JSON:
    types = schema.get("type", "string")
    if "string" in (types if isinstance(types, list) else [types]):
        return text
    try:
        return parse_json(text)
    except ValueError as exc:
        raise UsageError(f"-i {name}={text}: the input is declared as {types}, and the value is no JSON") from exc
