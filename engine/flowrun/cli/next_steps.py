"""What the user can do next about a durable run: commands, word by word."""

import json
import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from flowrun.cli.journal_option import VARIABLE, default_journal
from flowrun.cli.terminal import echo
from flowrun.core.events import RequestInput
from flowrun.journal import network_file_system
from flowrun.runtime.result import Result
from flowrun.runtime.stored_flow import StoredFlow


def warn_of_network(journal: Path) -> None:
    """Say that a journal should not lie where it does."""
    if kind := network_file_system(journal):
        echo(f"flowrun: {journal} lies on a network file system ({kind}), where SQLite can be damaged", err=True)


def warn_of_changes(stored: StoredFlow) -> None:
    """Warn that a run goes on with another spec than its file holds now."""
    if what := stored.what_changed(os.environ):
        echo(f"flowrun: {what}; the run goes on with the spec that it began with", err=True)


def next_commands(run: str, result: Result, journal: Path) -> list[str]:
    """Say how a run that is not over can go on: the commands, word by word."""
    where = _where(journal)
    lines = [shlex.join(["flowrun", "answer", ask.run, "--value", _example(ask), *where]) for ask in result.waiting]
    for call in result.doubtful:
        lines.append(shlex.join(["flowrun", "resume", run, "--call", call.key, "--assume-done", *where]))
        lines.append(shlex.join(["flowrun", "resume", run, "--call", call.key, "--run-again", *where]))
    return lines


@contextmanager
def interruptions_explained(run: str, journal: Path) -> Iterator[None]:
    """Say how a durable run goes on that Ctrl-C interrupts here."""
    try:
        yield
    except KeyboardInterrupt:
        way = shlex.join(["flowrun", "resume", run, *_where(journal)])
        echo(f"flowrun: what was done is kept; the run goes on by: {way}", err=True)
        raise


def _where(journal: Path) -> list[str]:
    """Give the option that names a journal, where it has to be named."""
    return [] if journal == default_journal(os.environ) or VARIABLE in os.environ else ["--journal", str(journal)]


def _example(ask: RequestInput) -> str:
    """Make up an answer that matches a schema, as far as its required members show it."""
    return json.dumps(_example_of(ask.schema), ensure_ascii=False)


def _example_of(schema: Mapping[str, object]) -> object:
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
            kinds = schema.get("type", "string")
            return _EXAMPLES.get(str(kinds[0] if isinstance(kinds, list) else kinds), "...")


_EXAMPLES: Mapping[str, object] = {"boolean": True, "integer": 1, "number": 1, "array": [], "object": {}, "null": None}
