"""``flowrun run``: runs a flow once. Only the answer goes to stdout; progress goes to stderr."""

import os
from collections.abc import Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import click

from flowrun.cli.console import Console, RunView
from flowrun.cli.durable_run import drive_durable_run
from flowrun.cli.event_loop import run_in_loop
from flowrun.cli.human_input import is_interactive, terminal_input
from flowrun.cli.next_steps import warn_of_network
from flowrun.cli.options import (
    drain_option,
    journal_option,
    locked_option,
    profile_option,
    project_option,
    quiet_option,
    require_json,
    result_option,
    spec_argument,
    tokens_option,
    verbose_option,
)
from flowrun.cli.streams import answer_stream, real_path
from flowrun.cli.terminal import echo
from flowrun.collector import calm_collector
from flowrun.core.ports import ModelBackend
from flowrun.errors import UsageError
from flowrun.excerpts import one_line
from flowrun.runtime.project import CompiledFlow, Project
from flowrun.runtime.run_result import RunResult
from flowrun.runtime.session import Session, new_run_id, read_inputs
from flowrun.spec.json_types import declared_types, may_be_text
from flowrun.spec.model import JSON, Spec
from flowrun.spec.strict_json import parse_json
from flowrun.testing.cassettes import RecordingBackend, create_cassette


@click.command()
@spec_argument
@click.option("-i", "--input", multiple=True, metavar="NAME=VALUE", help="An input; may be repeated.")
@click.option("--inputs", "file", type=click.File("r"), metavar="FILE", help="Inputs from a JSON file; - is stdin.")
@profile_option
@result_option
@tokens_option
@locked_option
@click.option(
    "--record",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Record the replies of the model, for tests.",
)
@click.option("--durable", is_flag=True, help="Write the run down as it goes, so that it outlives a crash.")
@journal_option
@quiet_option
@verbose_option
@project_option
@drain_option
def command(
    spec: Path,
    input: tuple[str, ...],
    file: TextIO | None,
    profile: str | None,
    json: bool,
    tokens: bool,
    locked: bool,
    record: Path | None,
    durable: bool,
    journal: Path,
    quiet: bool,
    verbose: bool,
    project_dir: Path | None,
    drain: float,
) -> int:
    """Run a flow and print its answer. Exits with 1 if the run failed, with 4 if it waits for an answer."""
    if record is not None:
        _require_recordable(durable=durable, tokens=tokens)
    require_json(tokens=tokens, json=json)
    given = read_inputs_file(file)  # before functions run: stdin is not theirs
    with answer_stream() as answers:
        flow = Project(folder=project_dir, environ=os.environ).compile(real_path(spec), profile=profile)
        given = {**given, **parse_inputs(flow.spec, input)}
        refuse_missing(flow, given)
        inputs = read_inputs(flow, given)
        with Console(flow.graph, flow.secrets, quiet=quiet) as console:
            view = RunView(answers, console, full=json, verbose=verbose, tokens=tokens, locked=locked)
            if not durable:
                warn_of_waits(flow)
                return view.conclude(run_in_loop(_run_once(flow, inputs, view, record)))
            warn_of_network(journal)
            run_id = new_run_id()

            def start(session: Session) -> Coroutine[Any, Any, RunResult]:
                console.note("run", f"{run_id}, stored in {journal}")
                return session.run(flow, inputs, run_id=run_id)

            return drive_durable_run(run_id, start, flow, journal, view=view, drain=drain)


def _require_recordable(*, durable: bool, tokens: bool) -> None:
    if durable:
        raise UsageError("--record is for runs that are not --durable: a durable run has its events in the journal")
    if tokens:
        raise UsageError("--tokens is not for cassettes: give no --record")


async def _run_once(flow: CompiledFlow, inputs: Mapping[str, JSON], view: RunView, record: Path | None) -> RunResult:
    if record is not None:
        create_cassette(record)
    calm_collector()
    async with Session(
        human_input=terminal_input(), observers=view.observers, keep_waiting=False, settings=view.settings
    ) as session:
        runs = await session.runs_of(flow, wrap=None if record is None else partial(_recording, record, flow.secrets))
        return await runs.start(inputs, new_run_id())


def _recording(record: Path, secrets: Mapping[str, str], name: str, backend: ModelBackend) -> ModelBackend:
    return RecordingBackend(backend, record, secrets)


def warn_of_waits(flow: CompiledFlow) -> None:
    """Print a warning if a run may wait for an answer that nobody can give, and is not durable."""
    if (waits := flow.states_that_wait) and not is_interactive():
        what = f"{', '.join(waits)} waits for an answer, and nobody can be asked here"
        echo(f"flowrun: {what}: the run is lost there; run it on a terminal, or with --durable", err=True)


def refuse_missing(flow: CompiledFlow, given: Mapping[str, JSON]) -> None:
    """Check that all inputs are given that have no default.

    Raises:
        UsageError: some are missing; the message has the options that give them.
    """
    schemas = {
        name: schema for name, schema in flow.spec.inputs.items() if name not in given and "default" not in schema
    }
    if not schemas:
        return
    missing = "; ".join(f'"{name}" is a required property' for name in schemas)
    options = " ".join(f"-i {name}=VALUE" for name in schemas)
    about = "".join(f"\n  {name}: {_describe(schema)}" for name, schema in schemas.items())
    raise UsageError(f"the inputs do not match what {flow.path} declares: {missing}; say {options}{about}")


def _describe(schema: Mapping[str, JSON]) -> str:
    """Describe an input: its types, and what its schema says about it."""
    types = " or ".join(sorted(declared_types(schema))) or "any value"
    about = schema.get("description", schema.get("title"))
    return f"{types}, {one_line(about, 100)}" if isinstance(about, str) and about else types


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
    if may_be_text(schema):
        return text
    try:
        return parse_json(text)
    except ValueError as exc:
        raise UsageError(
            f"-i {name}={text}: the input is declared as {schema['type']}, and the value is no JSON"
        ) from exc
