"""What a shell completes beyond verbs and options: specs, profiles of the named spec, ids of durable runs.

A shell asks at each press of Tab, so only what an answer needs is imported, and a search is bounded. An error is no
completion: it must not be printed into the line that is being typed.
"""

import os
from collections.abc import Callable, Iterable
from functools import wraps
from itertools import islice
from pathlib import Path
from typing import Final

import click
from click.shell_completion import CompletionItem

Completer = Callable[[click.Context, click.Parameter | None, str], list[CompletionItem]]

MAX_FOLDERS: Final = 1000
"""Folders that are searched for specs, the nearest first: a home folder may hold many."""

MAX_RUNS: Final = 100
"""Runs that are offered: the newest."""


def _silent(find: Callable[[click.Context, str], Iterable[CompletionItem]]) -> Completer:
    """Make a completer: of what is found, only what begins as the user typed; nothing after an error."""

    @wraps(find)
    def complete(ctx: click.Context, param: click.Parameter | None, incomplete: str) -> list[CompletionItem]:
        try:
            found = list(find(ctx, incomplete))
        except Exception:
            return []
        return [item for item in found if item.value.startswith(incomplete) and item.value.isprintable()]

    return complete


@_silent
def complete_specs(ctx: click.Context, incomplete: str) -> Iterable[CompletionItem]:
    """Find the specs below the folder that is typed so far; their paths begin as it is typed."""
    from flowrun.spec.find import is_spec, walk_files

    typed = incomplete[: incomplete.rfind("/") + 1]
    folder = Path(typed)
    files = (file for files in islice(walk_files(folder), MAX_FOLDERS) for file in files)
    yamls = (file for file in files if file.suffix in (".yaml", ".yml"))
    return [CompletionItem(f"{typed}{file.relative_to(folder)}") for file in yamls if is_spec(file.read_bytes())]


@_silent
def complete_profiles(ctx: click.Context, incomplete: str) -> Iterable[CompletionItem]:
    """Find the profiles of the spec that the command names."""
    from flowrun.spec.yaml.reader import read_document

    # click leaves the arguments unparsed where an option, such as this one, still lacks its value.
    named = [ctx.params.get("spec"), *(ctx.params.get("paths") or ()), *ctx.args]
    spec = next(Path(path) for path in named if path and Path(path).is_file())
    return [CompletionItem(str(name)) for name in read_document(spec.read_bytes(), str(spec)).value["profiles"]]


@_silent
def complete_runs(ctx: click.Context, incomplete: str) -> Iterable[CompletionItem]:
    """Find the newest durable runs that the verb can be used on."""
    from flowrun.cli.options import default_journal
    from flowrun.journal import open_history

    history = open_history(Path(ctx.params.get("journal") or default_journal(os.environ)))
    status = "waiting" if ctx.info_name == "answer" else None
    runs = history.runs(status=status)
    if ctx.info_name in ("resume", "cancel"):
        runs = (row for row in runs if row.ended is None)
    fitting = (row for row in runs if row.id.startswith(incomplete))
    return [CompletionItem(row.id, help=f"{row.flow}, {row.status}") for row in islice(fitting, MAX_RUNS)]
