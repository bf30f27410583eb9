"""The next steps of the user for a durable run: complete commands, and warnings."""

import itertools
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from json import dumps
from pathlib import Path

from flowrun.cli.options import VARIABLE, default_journal
from flowrun.cli.terminal import echo
from flowrun.journal import network_file_system
from flowrun.runtime.project import CompiledFlow
from flowrun.runtime.run_result import RunResult
from flowrun.runtime.stored_flow import StoredFlow
from flowrun.spec.model import JSON


def warn_of_network(journal: Path) -> None:
    """Print a warning if a journal is on a network file system."""
    if kind := network_file_system(journal):
        echo(f"flowrun: {journal} lies on a network file system ({kind}), where SQLite can be damaged", err=True)


def warn_of_changes(stored: StoredFlow) -> None:
    """Print a warning if the file of a run's spec has changed since the run began."""
    if what := stored.what_changed(os.environ):
        echo(f"flowrun: {what}; the run resumes with the spec that it began with", err=True)


def warn_of_alike_samples(flow: CompiledFlow, samples: int) -> None:
    """Print a warning if several samples are made of a flow whose replies are always the likeliest ones."""
    if samples > 1 and flow.is_greedy:
        what = f"all chats of {flow.spec.name} have temperature 0, so the {samples} samples of a row will be alike"
        echo(f"flowrun: {what}: set sampling.temperature, such as 1.0", err=True)


def next_commands(run: str, result: RunResult, journal: Path, project_dir: Path | None = None) -> list[str]:
    """Return the commands that answer or resume a run that has not ended; each of them moves it on.

    Calls of one state are made again together, so one command names all of them.
    """
    option = [*journal_arguments(journal), *_project_arguments(project_dir)]
    asking = [ask.run for ask in result.waiting]
    lines = [
        answer_command(ask.run if asking.count(ask.run) == 1 else ask.id, ask.schema, option) for ask in result.waiting
    ]
    calls = [["--call", call.key] for call in result.in_doubt]
    lines += [shlex.join(["flowrun", "resume", run, *call, "--assume-done", *option]) for call in calls]
    if calls:
        lines.append(shlex.join(["flowrun", "resume", run, *itertools.chain(*calls), "--run-again", *option]))
    return lines


def answer_command(name: str, schema: Mapping[str, JSON], option: list[str]) -> str:
    """Return the command that answers a question, with an example of an answer.

    Args:
        name: the id of the question, or of its run if that has no other one.
    """
    example = dumps(_example_of(schema), ensure_ascii=False)
    return shlex.join(["flowrun", "answer", name, "--value", example, *option])


def show_command(run: str, journal: Path) -> str:
    """Return the command that shows a durable run."""
    return shlex.join(["flowrun", "show", run, *journal_arguments(journal)])


def resume_command(run: str, journal: Path, project_dir: Path | None = None) -> str:
    """Return the command that resumes a durable run."""
    return shlex.join(["flowrun", "resume", run, *journal_arguments(journal), *_project_arguments(project_dir)])


@contextmanager
def interruptions_explained(run: str, journal: Path, project_dir: Path | None = None) -> Iterator[None]:
    """Print the command that resumes a durable run if Ctrl-C interrupts the context."""
    try:
        yield
    except KeyboardInterrupt:
        command = resume_command(run, journal, project_dir)
        echo(f"flowrun: what was done is stored; resume the run by: {command}", err=True)
        raise


def journal_arguments(journal: Path) -> list[str]:
    """Return the option that names a journal; empty if a command without it uses the same journal."""
    return [] if journal == default_journal(os.environ) or VARIABLE in os.environ else ["--journal", str(journal)]


def _project_arguments(project_dir: Path | None) -> list[str]:
    return [] if project_dir is None else ["--project-dir", str(project_dir)]


def _example_of(schema: object) -> object:
    """Build an example answer for a schema from its types and required members; it may not match the full schema."""
    if not isinstance(schema, Mapping):  # true and false are schemas too
        return "..."
    match schema:
        case {"enum": [first, *_]}:
            return first
        case {"const": value}:
            return value
        case {"type": "object", "properties": dict() as properties}:
            required = schema.get("required")
            names = required if isinstance(required, list) and required else list(properties)
            return {name: _example_of(properties.get(name, {})) for name in names}
        case _:
            types = schema.get("type", "string")
            return _EXAMPLES.get(str(types[0] if isinstance(types, list) else types), "...")


_EXAMPLES: Mapping[str, object] = {"boolean": True, "integer": 1, "number": 1, "array": [], "object": {}, "null": None}
