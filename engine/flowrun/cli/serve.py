"""``flowrun serve``: serves flows as models of the OpenAI chat API, as tools of an MCP server, and as pages."""

import hashlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from flowrun.cli.completion import complete_specs
from flowrun.cli.event_loop import run_in_loop
from flowrun.cli.next_steps import warn_of_network
from flowrun.cli.options import (
    VARIABLE,
    allow_host_option,
    allow_origin_option,
    api_key_file_option,
    default_journal,
    drain_option,
    host_option,
    max_tools_option,
    port_option,
    profile_option,
    project_option,
    read_duration,
    stall_option,
    verbose_option,
)
from flowrun.cli.server_options import read_access, require_serve
from flowrun.cli.terminal import echo, hide
from flowrun.collector import calm_collector
from flowrun.errors import SpecError, UsageError
from flowrun.runtime.engines import BackendSettings
from flowrun.runtime.project import Project, find_all_specs
from flowrun.runtime.session import Session
from flowrun.spec import find_project

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from flowrun.serving.gate import Access
    from flowrun.serving.served_flow import ServedFlow
    from flowrun.serving.served_runs import ServedRuns

_LAST_SECONDS: Final = 1.0
"""What calls get to return that are still under way when runs have had their time to end."""

_NO_MODEL: Final = "FR704"
"""The code of a flow that has no model of its own, because others run it."""


@click.command()
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PATH...", shell_complete=complete_specs
)
@profile_option
@host_option
@port_option
@api_key_file_option
@allow_host_option
@allow_origin_option
@click.option("--durable", is_flag=True, help="Write the runs down as they go, so that they outlive the server.")
@click.option(
    "--journal",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar=VARIABLE,
    help=f"With --durable: the file of runs, all of which the server shows and answers, also {VARIABLE}; else that of "
    "the servers of this project.",
)
@click.option("--preload", is_flag=True, help="Start the engines of all flows before the first request.")
@click.option("--max-live", type=click.IntRange(1), default=1024, show_default=True, help="Runs of requests at once.")
@max_tools_option
@click.option(
    "--timeout",
    default="9m",
    show_default=True,
    metavar="TIME",
    callback=read_duration,
    help="How long a request may take; less than its client waits.",
)
@click.option(
    "--max-body", type=click.IntRange(1), default=4_000_000, show_default=True, metavar="BYTES", help="Of a request."
)
@stall_option
@verbose_option
@project_option
@drain_option
def command(**options: Any) -> int:
    """Serve flows, each of them a model of the OpenAI chat API, a tool of an MCP server, and pages of its runs.

    PATH is a spec or a folder of specs. SIGTERM lets the runs in progress end, for --drain.
    """
    require_serve()
    access = read_access(
        host=options["host"],
        api_key_file=options["api_key_file"],
        allow_host=options["allow_host"],
        allow_origin=options["allow_origin"],
        environ=os.environ,
        max_body=options["max_body"],
        body_seconds=options["timeout"],
    )
    flows = load_flows(options["paths"], profile=options["profile"], project_dir=options["project_dir"])
    run_in_loop(_serve(flows, access, options))
    return 0


def load_flows(paths: Sequence[Path], *, profile: str | None, project_dir: Path | None) -> "dict[str, ServedFlow]":
    """Return the flows of specs and of folders of specs, by their names.

    A flow in a folder that has no model of its own is a part of others, and is left out.

    Raises:
        SpecError: some have errors; it has all of them.
        UsageError: two have the same name, or there is none.
    """
    from flowrun.serving.served_flow import serve_flow

    project = Project(folder=project_dir, environ=os.environ)
    flows: dict[str, ServedFlow] = {}
    issues = []
    for file in find_all_specs(paths, shown=", ".join(map(str, paths))):
        try:
            flow = project.compile(file, profile=profile)
        except SpecError as exc:
            if file not in paths and all(issue.code == _NO_MODEL for issue in exc.issues):
                echo(f"{file} is not served by itself: {exc.issues[0].message}", err=True)
            else:
                issues += exc.issues
            continue
        if (other := flows.get(flow.spec.name)) is not None:
            raise UsageError(f"{other.flow.path} and {file} have the same name, {flow.spec.name}: serve one of them")
        hide(flow.secrets)
        flows[flow.spec.name] = serve_flow(flow)
    if issues:
        raise SpecError(issues)
    if not flows:
        raise UsageError(f"none of {', '.join(map(str, paths))} is a flow with a model of its own")
    return flows


async def _serve(flows: "Mapping[str, ServedFlow]", access: "Access", options: Mapping[str, Any]) -> None:
    from flowrun.serving.app import make_app
    from flowrun.serving.pages.routes import page_routes
    from flowrun.serving.served_runs import BATCH, ServedRuns
    from flowrun.serving.server import address_of, listen, serve
    from flowrun.serving.shown_flows import ShownFlows
    from flowrun.serving.temporary_journal import temporary_journal

    durable: bool = options["durable"]
    calm_collector()
    async with AsyncExitStack() as stack:
        listener = listen(options["host"], options["port"])
        stack.callback(listener.close)
        journal = _own_journal(options) if durable else await stack.enter_async_context(temporary_journal())
        session = Session(
            journal=journal,
            synchronous="full" if durable else "off",
            batch=BATCH,
            max_tools=options["max_tools"],
            drain=min(_LAST_SECONDS, options["drain"]),
            settings=BackendSettings(verbose=options["verbose"], stall=options["stall"], note=_note, progress=_note),
        )
        await stack.enter_async_context(session)
        shown = ShownFlows(os.environ, hide)
        runs = ServedRuns(session, shown, max_live=options["max_live"], outlives_requests=durable)
        if options["preload"]:
            for served in flows.values():
                await session.runs_of(served.flow)
        if durable:
            warn_of_network(journal)
            runs.watch(flows.keys())
        has_mcp = find_spec("mcp") is not None
        tools = [await stack.enter_async_context(_mcp_route(flows, runs, options))] if has_mcp else []
        others = [*tools, *page_routes(runs, access)]
        app = make_app(flows, runs, access, timeout=options["timeout"], others=others)
        _say_hello(flows, address_of(listener), journal if durable else None, has_mcp=has_mcp)
        await serve(app, listener, runs, drain=options["drain"], timeout=options["timeout"])


@asynccontextmanager
async def _mcp_route(
    flows: "Mapping[str, ServedFlow]", runs: "ServedRuns", options: Mapping[str, Any]
) -> AsyncIterator["BaseRoute"]:
    """Yield the route of the MCP server, whose sessions end with the block."""
    from flowrun.serving.mcp_endpoint import McpEndpoint

    tools = McpEndpoint(flows, runs, timeout=options["timeout"], max_body=options["max_body"])
    async with tools.manager.run():
        yield tools.route()


def _own_journal(options: Mapping[str, Any]) -> Path:
    """Return the journal of a server: that of its project, unless one is named. Others hold what is not its own."""
    if options["journal"] is not None:
        journal: Path = options["journal"]
        return journal
    project = find_project(options["paths"][0], options["project_dir"]).resolve()
    name = hashlib.sha256(os.fsencode(project)).hexdigest()[:12]
    return default_journal(os.environ).with_name(f"serve-{name}.sqlite")


def _note(message: str) -> None:
    echo(message, err=True)


def _say_hello(flows: "Mapping[str, ServedFlow]", address: str, journal: Path | None, *, has_mcp: bool) -> None:
    for line in (
        f"flowrun serves {', '.join(flows)} on {address}",
        f"  {address}/v1    the OpenAI chat API: each flow is a model",
        f"  {address}/mcp   MCP: each flow is a tool{'' if has_mcp else ' (needs: pip install flowrun[mcp])'}",
        f"  {address}/      the runs, and the questions that wait",
        *([] if journal is None else [f"  runs are kept in {journal}"]),
    ):
        echo(line, err=True)
