"""Driving durable runs from the command line: their models started, their journal open, and what to tell of them."""

import json
import os
import shlex
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec

from flowrun.adapters.journal import Database, History, RunRow, SqliteJournal, network_file_system
from flowrun.cli.assembly import Settings, backends_of, started
from flowrun.cli.journals import VARIABLE, default_journal
from flowrun.cli.terminal import echo
from flowrun.durable import DurableRuns, KeptFlow, Mailbox
from flowrun.errors import StoreError
from flowrun.events import AskPerson, CallFunction
from flowrun.ports import ModelBackend, Observer, People
from flowrun.prepare import Flow
from flowrun.runner import Decide, Result, Runner


@asynccontextmanager
async def driving(
    flow: Flow,
    kept: KeptFlow,
    journal: Path,
    *,
    settings: Settings,
    people: People | None = None,
    observers: Sequence[Observer] = (),
    decide: Decide | None = None,
    batch: str | None = None,
    around: Callable[[Mapping[str, ModelBackend]], dict[str, ModelBackend]] = dict,
) -> AsyncIterator[tuple[DurableRuns, SqliteJournal, Mailbox]]:
    """Start a flow's models and open the journal, and end both.

    Args:
        around: puts something around the backends, before they are started.
    """
    backends = around(backends_of(flow, settings))
    mailbox = Mailbox(people)
    async with SqliteJournal(journal, on_post=mailbox.receive, batch=batch) as kept_in:
        kept_in.keep_spec(kept.digest, msgspec.json.encode(kept).decode())
        async with started(backends):
            runner = Runner(
                backends=backends,
                functions=flow.functions,
                people=mailbox,
                journal=kept_in,
                observers=observers,
                decide=decide,
            )
            yield DurableRuns(runner, flow.graph, kept_in, mailbox), kept_in, mailbox


def warn_of_network(journal: Path) -> None:
    """Say that a journal should not lie where it does."""
    if kind := network_file_system(journal):
        echo(f"flowrun: {journal} lies on a network file system ({kind}), where SQLite can be damaged", err=True)


def history_of(journal: Path) -> History:
    """Open a journal for reading.

    Raises:
        StoreError: it is not there, or cannot be read.
    """
    return History(Database(journal, create=False), now=time.time)


def kept_flow_of(history: History, row: RunRow) -> KeptFlow:
    """Give the flow that a run began with."""
    try:
        return msgspec.json.decode(history.spec(row.spec), type=KeptFlow)
    except msgspec.MsgspecError as exc:
        raise StoreError(f"the flow of run {row.id} cannot be read: {exc}; was it written by a newer flowrun?") from exc


def top_of(history: History, prefix: str) -> RunRow:
    """Give the run that is named, or the one that it is a child of, at the top."""
    row = history.run(prefix)
    while row.parent is not None:
        row = history.run(row.parent)
    return row


def descendants_of(history: History, run: str) -> list[str]:
    """Give the ids of a run's children, and of theirs."""
    found = [row.id for row in history.runs(parent=run)]
    return [*found, *(below for child in found for below in descendants_of(history, child))]


def ways_on(run: str, result: Result, journal: Path) -> list[str]:
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


def describe_call(call: CallFunction) -> str:
    """Name a call with its arguments, for one who must say what became of it."""
    arguments = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in call.arguments.items())
    return f"{call.tool or call.entrypoint}({arguments}), key {call.key}"


def _example(ask: AskPerson) -> str:
    """Make up an answer that matches a schema, as far as its required members show it."""
    return json.dumps(_example_of(ask.schema), ensure_ascii=False)


def _example_of(schema: object) -> object:
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
            kinds = schema.get("type", "string")
            return _EXAMPLES.get(str(kinds[0] if isinstance(kinds, list) else kinds), "...")


_EXAMPLES: Mapping[str, object] = {"boolean": True, "integer": 1, "number": 1, "array": [], "object": {}, "null": None}
