"""The lock of MCP servers: what their tools are, in ``NAME.lock.json`` beside ``NAME.yaml``.

``flowrun mcp lock`` writes it, from what the servers say. A spec is loaded with the tools of its lock, so that checks,
tests and comparisons need no server; a run compares the lock with the servers.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Final

import msgspec

from flowrun.errors import Issue, Path, UnreadableFile
from flowrun.spec.document import Document, IncludedText, issue_at
from flowrun.spec.lock_file import encode_member, encode_members, lock_path, parse_lock
from flowrun.spec.model import JSON, MCP
from flowrun.spec.strict_json import parse_json
from flowrun.spec.suggestions import suggest

if TYPE_CHECKING:
    from flowrun.spec.load import Files

LOCK: Final[Path] = ("mcp_servers",)
"""The path in a document under which the text of its lock is kept, as that of an included file."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
"""The names that models may call (OpenAI's chat API, and vLLM's)."""

_SETTINGS: Final = ("with", "approve", "max_output", "max_concurrency")


class LockedTool(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A tool of an MCP server, as the server lists it (MCP 2025-11-25, ``tools/list``)."""

    name: str
    description: str = ""
    input_schema: dict[str, JSON]
    read_only: bool = False
    idempotent: bool = False


class LockedServer(msgspec.Struct, frozen=True, kw_only=True):
    """What is locked of a server: its name and version as it says them, and its tools."""

    server: dict[str, str] = {}
    tools: tuple[LockedTool, ...]


class LockFile(msgspec.Struct, frozen=True, kw_only=True):
    """The file. ``mcp`` has the servers by name; those of a local flow have its name and a slash before theirs."""

    mcp: dict[str, LockedServer] = {}


def include_lock(document: Document, files: "Files") -> tuple[Document, list[Issue]]:
    """Return a document with its lock, if it has MCP servers, and what is wrong with it."""
    servers = list(_servers(document.value, ()))
    if not servers:
        return document, []
    path = lock_path(FilePath(document.file))
    if not files.has(path):
        return document, [_issue(document, at, "FR716", f"there is no lock {path.name}") for at, _ in servers[:1]]
    try:
        text = _alone(files.read(path).decode())
        lock = _parse(text)
    except (UnreadableFile, ValueError) as exc:
        message = f"the lock {path.name} cannot be read: {exc}"
        return document, [_issue(document, at, "FR716", message) for at, _ in servers[:1]]
    included = {**document.included, LOCK: IncludedText(file=str(path), text=text)}
    issues = [issue for at, server in servers for issue in _check(document, at, server, lock)]
    issues += [issue for at in _flows(document.value, ()) for issue in _check_names(document, at, lock)]
    return msgspec.structs.replace(document, included=included), issues


def tools_of(document: Document, at: Path, flow: Mapping[str, Any]) -> dict[str, JSON]:
    """Return the tools of a flow's MCP servers, by their names, in the form of a document's ``tools``.

    There are none if the document has no lock.

    Args:
        at: the path of the flow in the document.
    """
    if "mcp_servers" not in flow or LOCK not in document.included:
        return {}
    lock = _parse(document.included[LOCK].text)
    return {name: tool for _, name, tool in _named_tools(at, flow, lock)}


def locked_tools(document: Document, at: Path, name: str) -> tuple[LockedTool, ...]:
    """Return the tools of a flow's MCP server that are offered, as the lock has them.

    Args:
        at: the path of the flow in the document.
    """
    if LOCK not in document.included:
        return ()
    locked = _parse(document.included[LOCK].text).mcp.get(key_of(at, name))
    chosen = _at(document.value, at)["mcp_servers"][name].get("tools")
    tools = () if locked is None else locked.tools
    return tuple(tool for tool in tools if chosen is None or tool.name in chosen)


def key_of(at: Path, name: str) -> str:
    """Return the key of a server in the lock."""
    return "/".join([*map(str, at[1::2]), name])


def encode_lock(lock: LockFile, text: str | None) -> str:
    """Return the text of a lock file, with the members that another verb has written into the text of now."""
    return encode_member("mcp", msgspec.to_builtins(lock.mcp), text)


def _alone(text: str) -> str:
    """Return the text of a lock with the MCP servers only: other members do not change a flow."""
    members = parse_lock(text)
    return text if members.keys() <= {"mcp"} else encode_members({"mcp": members.get("mcp", {})})


def _parse(text: str) -> LockFile:
    """Parse a lock. Raises ``ValueError``."""
    return msgspec.convert(parse_json(text), LockFile)


def _flows(flow: Mapping[str, Any], at: Path) -> Iterator[Path]:
    yield at
    for name, inner in (flow.get("flows") or {}).items():
        yield from _flows(inner, (*at, "flows", name))


def _at(value: Any, at: Path) -> Any:
    for key in at:
        value = value[key]
    return value


def _servers(flow: Mapping[str, Any], at: Path) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Yield the MCP servers of a flow and its local flows, each with its path."""
    for path in _flows(flow, at):
        for name, server in _at(flow, path).get("mcp_servers", {}).items():
            yield (*path, "mcp_servers", name), server


def _check(document: Document, at: Path, server: Mapping[str, Any], lock: LockFile) -> Iterator[Issue]:
    """Yield what a server lacks in the lock."""
    locked = lock.mcp.get(key_of(at[:-2], str(at[-1])))
    if locked is None:
        yield _issue(document, at, "FR716", f"the lock does not have the server {str(at[-1])!r}")
        return
    known = {tool.name for tool in locked.tools}
    for name in server.get("tools") or ():
        if name not in known:
            remedy = suggest(name, known, f"tools of {at[-1]}")
            message = f"the server {str(at[-1])!r} has no tool {name!r}"
            yield issue_at(document, "FR702", (*at, "tools", name), message, remedy, key=True)


def _check_names(document: Document, at: Path, lock: LockFile) -> Iterator[Issue]:
    """Yield the tools of a flow whose names models cannot call, or that another tool has."""
    flow = _at(document.value, at)
    taken = dict.fromkeys(flow.get("tools") or (), "a tool of the spec")
    for path, name, _ in _named_tools(at, flow, lock):
        if not _NAME.fullmatch(name):
            form = "at most 64 letters, digits, '_' and '-', and no digit at the beginning"
            message = f"models cannot call a tool {name!r}: a name has {form}"
            yield issue_at(document, "FR209", path, message, "name it with 'as' under the server's tools")
        elif name in taken:
            message = f"{name!r} is the name of {taken[name]} too"
            yield issue_at(document, "FR717", path, message, "give the server a prefix, or name the tool with 'as'")
        taken.setdefault(name, f"a tool of the server {path[-1]!r}")


def _named_tools(at: Path, flow: Mapping[str, Any], lock: LockFile) -> Iterator[tuple[Path, str, dict[str, JSON]]]:
    """Yield the tools of a flow's servers: the server's path, the name for models, and the tool as a document's."""
    for server_name, server in flow.get("mcp_servers", {}).items():
        locked = lock.mcp.get(key_of(at, server_name))
        chosen = server.get("tools")
        for tool in () if locked is None else locked.tools:
            if chosen is not None and tool.name not in chosen:
                continue
            given = (chosen or {}).get(tool.name) or {}
            name = given.get("as") or f"{server.get('prefix', '')}{tool.name}"
            yield (*at, "mcp_servers", server_name), name, _as_tool(server_name, server, given, tool)


def _as_tool(
    server_name: str, server: Mapping[str, Any], given: Mapping[str, Any], tool: LockedTool
) -> dict[str, JSON]:
    timeout = given.get("timeout", server.get("timeout"))
    idempotent = given.get("idempotent")
    return {
        "entrypoint": f"{MCP}{server_name}/{tool.name}",
        "description": given.get("description", tool.description),
        "parameters": {"type": "object", **tool.input_schema},
        "idempotent": tool.read_only or tool.idempotent if idempotent is None else idempotent,
        **{key: given[key] for key in _SETTINGS if key in given},
        **({} if timeout is None else {"timeout": timeout}),
    }


def _issue(document: Document, at: Path, code: str, message: str) -> Issue:
    return issue_at(document, code, at, message, f"write it: flowrun mcp lock {document.file}", key=True)
