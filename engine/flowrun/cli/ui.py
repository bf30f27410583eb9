"""``flowrun ui``: shows a journal in the browser, and lets people answer what its runs ask."""

import os
import sys
from contextlib import closing
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Final

import click

from flowrun.cli.event_loop import run_in_loop
from flowrun.cli.next_steps import warn_of_network
from flowrun.cli.options import (
    allow_host_option,
    allow_origin_option,
    api_key_file_option,
    drain_option,
    host_option,
    journal_option,
    port_option,
    project_option,
    verbose_option,
)
from flowrun.cli.server_options import read_access, require_serve
from flowrun.cli.terminal import echo, hide
from flowrun.collector import calm_collector
from flowrun.errors import UsageError
from flowrun.runtime.engines import BackendSettings
from flowrun.runtime.session import Session

if TYPE_CHECKING:
    from flowrun.serving.gate import Access

_MAX_LIVE: Final = 1024
"""The most runs that requests may begin at once; pages begin none."""


@click.command()
@journal_option
@host_option
@port_option
@click.option("--no-open", is_flag=True, help="Start no browser.")
@api_key_file_option
@allow_host_option
@allow_origin_option
@verbose_option
@project_option
@drain_option
@click.pass_context
def command(
    ctx: click.Context,
    journal: Path,
    host: str,
    port: int,
    no_open: bool,
    api_key_file: Path | None,
    allow_host: tuple[str, ...],
    allow_origin: tuple[str, ...],
    verbose: bool,
    project_dir: Path | None,
    drain: float,
) -> int:
    """Show the runs of a journal in the browser: find them, follow them, answer what they ask, resume and cancel them.

    Runs that are answered or resumed go on in this process, until Ctrl-C or SIGTERM.
    """
    require_serve()
    access = read_access(
        host=host, api_key_file=api_key_file, allow_host=allow_host, allow_origin=allow_origin, environ=os.environ
    )
    chosen = ctx.get_parameter_source("port") is not click.core.ParameterSource.DEFAULT
    with closing(_listener(host, port, chosen=chosen)) as listener:
        if not journal.exists():
            echo(f"no durable run is stored in {journal} yet: flowrun SPEC --durable stores one", err=True)
        warn_of_network(journal)
        session = Session(
            journal=journal, project_dir=project_dir, drain=drain, settings=BackendSettings(verbose=verbose)
        )
        run_in_loop(_serve(session, listener, access, opens=not no_open, drain=drain))
    return 0


def _listener(host: str, port: int, *, chosen: bool) -> socket:
    """Return the socket to listen on: any free port, if nobody has ``chosen`` the one that is taken."""
    from flowrun.serving.server import listen

    try:
        return listen(host, port)
    except UsageError:
        if chosen:
            raise
        return listen(host, 0)


async def _serve(session: Session, listener: socket, access: "Access", *, opens: bool, drain: float) -> None:
    from starlette.applications import Starlette

    from flowrun.serving.app import guarded
    from flowrun.serving.pages.routes import page_routes
    from flowrun.serving.served_runs import ServedRuns
    from flowrun.serving.server import address_of, serve
    from flowrun.serving.shown_flows import ShownFlows

    calm_collector()
    async with session:
        runs = ServedRuns(session, ShownFlows(os.environ, hide), max_live=_MAX_LIVE, outlives_requests=True)
        app = Starlette(routes=page_routes(runs, access))
        address = address_of(listener)
        echo(f"{address} shows {session.journal.history.path}: Ctrl-C ends it", err=True)
        if opens and _has_browser():
            _open_browser(address)
        await serve(guarded(app, access), listener, runs, drain=drain)


def _has_browser() -> bool:
    """Return whether somebody is likely to see a browser that is started here."""
    has_display = sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return has_display and sys.stderr is not None and sys.stderr.isatty()


def _open_browser(address: str) -> None:
    """Show an address in the user's browser. That it cannot be started is no error: the address is printed."""
    import threading
    import webbrowser

    def show() -> None:
        try:
            webbrowser.open(address)
        except (webbrowser.Error, OSError) as exc:
            echo(f"no browser could be started: {exc}", err=True)

    threading.Thread(target=show, daemon=True).start()
