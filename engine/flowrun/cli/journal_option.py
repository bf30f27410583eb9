"""The default path of the journal, and the option ``--journal`` for the verbs that need one."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

VARIABLE: Final = "FLOWRUN_JOURNAL"


def default_journal(environ: Mapping[str, str]) -> Path:
    """Return the path of the journal in the user's state folder (XDG Base Directory Specification 0.8)."""
    state = environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return folder / "flowrun" / "journal.sqlite"


def journal_option(command: F) -> F:
    """Add the option ``--journal`` to a verb."""
    return click.option(
        "--journal",
        type=click.Path(dir_okay=False, path_type=Path),
        envvar=VARIABLE,
        default=lambda: default_journal(os.environ),
        show_default="flowrun/journal.sqlite in the state folder",
        help=f"The file that durable runs are kept in, also {VARIABLE}.",
    )(command)
