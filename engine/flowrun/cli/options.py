"""The arguments and options that several verbs have, and the default path of the journal."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from flowrun.cli.completion import complete_profiles, complete_runs, complete_specs
from flowrun.errors import UsageError

if TYPE_CHECKING:
    from flowrun.journal import History

VARIABLE: Final = "FLOWRUN_JOURNAL"

result_option = click.option("--json", is_flag=True, help="Print the whole result as JSON rather than the answer.")
quiet_option = click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
verbose_option = click.option("-v", "--verbose", is_flag=True, help="Show the log of vLLM too.")
tokens_option = click.option(
    "--tokens", is_flag=True, help="Put the tokens into the results, with masks and log-probabilities: to train on."
)
locked_option = click.option(
    "--locked", is_flag=True, help="Refuse models that are not those of the lock (flowrun lock); else it is noted."
)
spec_argument = click.argument("spec", type=click.Path(path_type=Path), shell_complete=complete_specs)
run_argument = click.argument("run", shell_complete=complete_runs)
profile_option = click.option(
    "--profile",
    envvar="FLOWRUN_PROFILE",
    help="Merge this profile of the spec over it.",
    shell_complete=complete_profiles,
)
project_option = click.option(
    "--project-dir", type=click.Path(file_okay=False, exists=True, path_type=Path), help="Where entrypoints start."
)


def read_duration(ctx: click.Context, param: click.Parameter, value: str) -> float:
    """Return the seconds of an option that is a duration."""
    from flowrun.spec.parse import parse_duration

    try:
        return float(parse_duration(value))
    except ValueError as exc:
        raise click.BadParameter(str(exc)) from exc


drain_option = click.option(
    "--drain",
    default="10s",
    show_default=True,
    metavar="TIME",
    callback=read_duration,
    help="How long SIGTERM lets calls of a durable run return, before they are left in doubt.",
)


def _stall(ctx: click.Context, param: click.Parameter, value: str) -> float:
    from flowrun.spec.parse import parse_duration

    try:
        return float(parse_duration(value))
    except ValueError as exc:
        raise UsageError(f"--stall {value}: {exc}") from exc


max_live_option = click.option(
    "--max-live", type=click.IntRange(1), help="Runs live at once; else derived from the engine's limits."
)
max_tools_option = click.option(
    "--max-tools", type=click.IntRange(1), default=256, show_default=True, help="Tool calls running at once."
)
max_tokens_option = click.option(
    "--max-tokens",
    type=click.IntRange(1),
    metavar="N",
    help="Begin no further row once so many tokens are read and written; rows under way end.",
)
stall_option = click.option(
    "--stall",
    metavar="TIME",
    default="10m",
    show_default=True,
    callback=_stall,
    help="How long a busy server (429, 503) may answer no request at all before rows fail.",
)

PORT: Final = 8765
"""The port of a server of flowrun."""

host_option = click.option(
    "--host", default="127.0.0.1", show_default=True, help="The address to listen on; beyond this machine with a key."
)
port_option = click.option(
    "--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="The port; 0: any free one."
)
api_key_file_option = click.option(
    "--api-key-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The keys of clients, one a line; one may also be in FLOWRUN_API_KEY.",
)
allow_host_option = click.option(
    "--allow-host", multiple=True, metavar="NAME", help="Also answer by this name of the server; may be repeated."
)
allow_origin_option = click.option(
    "--allow-origin",
    multiple=True,
    metavar="ORIGIN",
    help="Let pages of this site ask, such as https://chat.example.com; may be repeated.",
)


def require_json(*, tokens: bool, json: bool) -> None:
    """Check that tokens which a verb is to print have a place to be printed in.

    Raises:
        UsageError: they have none.
    """
    if tokens and not json:
        raise UsageError("--tokens is for what --json prints: give --json too")


def default_journal(environ: Mapping[str, str]) -> Path:
    """Return the path of the journal in the user's state folder (XDG Base Directory Specification 0.8)."""
    state = environ.get("XDG_STATE_HOME", "")
    folder = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return folder / "flowrun" / "journal.sqlite"


def open_journal(path: Path) -> "History":
    """Open a journal for reading, and close it when the verb ends.

    Nothing is left to a finalizer: it takes time, and a signal that comes meanwhile would be lost in it.

    Raises:
        StoreError: the file does not exist, or cannot be read.
    """
    from flowrun.journal import open_history

    history = open_history(path)
    click.get_current_context().call_on_close(history.close)
    return history


journal_option = click.option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar=VARIABLE,
    default=lambda: default_journal(os.environ),
    show_default="flowrun/journal.sqlite in the state folder",
    help=f"The file that durable runs are stored in, also {VARIABLE}.",
)


def named(paths: Sequence[Path]) -> str:
    """Return paths as text for a message; without any, the full path of the project that stands for them."""
    from flowrun.spec.project import current_project

    return ", ".join(map(str, paths or (current_project().resolve(),)))
