"""``flowrun mcp``: lists the tools of a spec's MCP servers, and writes them into its lock."""

import json as json_module
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import click

from flowrun.cli.event_loop import run_in_loop
from flowrun.cli.options import profile_option, spec_argument
from flowrun.cli.streams import answer_stream, real_path
from flowrun.cli.terminal import echo, hide, write_json
from flowrun.errors import UsageError
from flowrun.files import file_errors
from flowrun.functions.bound_server import BoundServer
from flowrun.functions.mcp_servers import differences, list_tools
from flowrun.spec import Loaded, load_spec, mask
from flowrun.spec.lock_file import lock_path
from flowrun.spec.mcp_lock import LockedServer, LockedTool, LockFile, encode_lock, key_of
from flowrun.spec.model import McpTool, Spec


@click.group()
def command() -> None:
    """Look at the MCP servers of a spec, and lock their tools."""


@command.command()
@spec_argument
@profile_option
@click.option("--json", is_flag=True, help="Print the tools as JSON.")
def list(spec: Path, profile: str | None, json: bool) -> int:
    """List the tools of the servers of SPEC, as they say them now."""
    with answer_stream() as answers:
        found = _ask(_load(spec, profile))
        if json:
            write_json(answers, json_module.dumps(json_module.loads(encode_lock(LockFile(mcp=found), None))["mcp"]))
            return 0
        for name, server in found.items():
            echo(f"{name}: {' '.join(server.server.values())}", file=answers)
            for tool in server.tools:
                hints = [word for word, holds in (("reads", tool.read_only), ("idempotent", tool.idempotent)) if holds]
                about = f"  ({', '.join(hints)})" if hints else ""
                said = tool.description.strip().partition("\n")[0]
                echo(f"  {tool.name}{about}{f'  {said}' if said else ''}", file=answers)
    return 0


@command.command()
@spec_argument
@profile_option
@click.option("--check", is_flag=True, help="Write nothing: exit with 1 if the lock is not what the servers say.")
def lock(spec: Path, profile: str | None, check: bool) -> int:
    """Write the tools of the servers of SPEC into its lock, NAME.lock.json beside it, and say what changed."""
    path = lock_path(spec)
    with answer_stream():
        loaded = _load(spec, profile)
        found = LockFile(mcp=_offered(loaded, _ask(loaded)))
    with file_errors(f"{path} cannot be read"):
        before = path.read_text(encoding="utf-8") if path.exists() else None
    try:
        after = encode_lock(found, before)
    except ValueError as exc:
        raise UsageError(f"{path} cannot be read: {exc}: delete it, or mend it") from exc
    for line in _changes(before, found):
        echo(line, err=True)
    if after == before:
        echo(f"{path}: nothing changed", err=True)
        return 0
    if check:
        echo(f"{path} is not what the servers say: flowrun mcp lock {spec}", err=True)
        return 1
    with file_errors(f"{path} cannot be written"):
        path.write_text(after, encoding="utf-8")
    echo(f"{path}: {sum(len(server.tools) for server in found.mcp.values())} tools", err=True)
    return 0


def _load(spec: Path, profile: str | None) -> Loaded:
    loaded = load_spec(real_path(spec), profile=profile, environ=os.environ, locked=False)
    hide(loaded.document.variables.masked())
    if not any(True for _ in _servers(loaded.spec, ())):
        raise UsageError(f"{spec} has no mcp_servers")
    return loaded


def _servers(spec: Spec, at: tuple[str, ...]) -> Iterator[tuple[str, BoundServer]]:
    """Yield the servers of a spec and its local flows by their keys in the lock; the folder is not known yet."""
    for name, server in spec.mcp_servers.items():
        yield key_of(at, name), BoundServer(server, Path())
    for name, flow in spec.flows.items():
        yield from _servers(flow, (*at, "flows", name))


def _ask(loaded: Loaded) -> dict[str, LockedServer]:
    """Return what each server says of itself and its tools."""
    folder = Path(loaded.document.file).resolve().parent
    masked = partial(mask, secrets=loaded.document.variables.masked())

    async def ask() -> dict[str, LockedServer]:
        return {
            name: await list_tools(name, BoundServer(bound.server, folder), masked)
            for name, bound in _servers(loaded.spec, ())
        }

    return run_in_loop(ask())


def _offered(loaded: Loaded, found: dict[str, LockedServer]) -> dict[str, LockedServer]:
    """Return what servers say of the tools that are offered; those that a spec names and a server lacks are missing."""
    chosen = {name: bound.server.tools for name, bound in _servers(loaded.spec, ())}
    return {
        name: LockedServer(server=said.server, tools=tuple(tool for tool in said.tools if _is_in(tool, chosen[name])))
        for name, said in found.items()
    }


def _is_in(tool: LockedTool, chosen: Mapping[str, McpTool] | None) -> bool:
    return chosen is None or tool.name in chosen


def _changes(before: str | None, found: LockFile) -> Iterator[str]:
    import msgspec

    from flowrun.spec.strict_json import parse_json

    try:
        old = LockFile() if before is None else msgspec.convert(parse_json(before), LockFile)
    except ValueError:
        return  # it is written anew
    for name, server in found.mcp.items():
        known = old.mcp.get(name)
        if known is None:
            continue
        yield from (f"{name}: {change}" for change in differences(known.tools, server.tools))
        names = {tool.name for tool in known.tools}
        yield from (f"{name}: {tool.name} is new" for tool in server.tools if tool.name not in names)
