"""The MCP servers of a session: one connection a server, or one a run, opened at the first need and made anew.

A server is a process of ours or an address. It may end, restart, hang or change its tools: its calls then fail by name,
and nothing else does. The official SDK speaks the protocol; each of its clients lives in a task of its own.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from flowrun.core.tool_context import CURRENT_CALL
from flowrun.core.trace_context import trace_headers
from flowrun.errors import BackendError, UsageError
from flowrun.excerpts import cut
from flowrun.functions.bound_server import BoundServer
from flowrun.functions.keeper import Keeper, new_mark
from flowrun.functions.mcp_results import value_of
from flowrun.functions.outcomes import NamedFailure
from flowrun.spec.mcp_lock import LockedServer, LockedTool
from flowrun.spec.model import JSON, MCP
from flowrun.version import __version__

if TYPE_CHECKING:
    from mcp import Client
    from mcp.types import CallToolResult, Tool

START_SECONDS: Final = 60.0
"""Seconds that a server may take to start and to answer first."""

_END_SECONDS: Final = 10.0
_REPEATS: Final = 3
_SAID: Final = 600
"""The last characters of what a server wrote to stderr that an error shows."""

CallMcpTool = Callable[..., Awaitable[JSON]]


class McpServers:
    """The connections to the servers of flows."""

    def __init__(self) -> None:
        self._shared: dict[tuple[str, Path], _Reconnecting] = {}
        self._of_runs: dict[str, dict[str, _Reconnecting]] = {}
        self._keeper = Keeper()

    async def start_for(self, servers: Mapping[str, BoundServer], mask: Callable[[str], str]) -> None:
        """Connect to the servers that all runs share, and compare all servers with their locks.

        Raises:
            BackendError: one cannot be started or reached, or has other tools than the lock.
        """
        require_sdk(servers)
        for name, bound in servers.items():
            if bound.server.per_run:
                tools = list((await list_tools(name, bound, mask)).tools)
            else:
                tools = await self._connection(name, bound, mask).tools()
            if changed := differences(bound.locked, tools):
                raise BackendError(
                    f"the MCP server {name!r} does not have the tools of the lock: {'; '.join(changed)}; "
                    "look at the change, then write the lock anew: flowrun mcp lock SPEC"
                )

    def functions_of(self, servers: Mapping[str, BoundServer], mask: Callable[[str], str]) -> dict[str, CallMcpTool]:
        """Return the functions that call the tools of servers, by their entrypoints."""
        return {
            f"{MCP}{name}/{tool.name}": self._function(name, bound, tool, mask)
            for name, bound in servers.items()
            for tool in bound.locked
        }

    async def end_run(self, run: str) -> None:
        """Close the connections that a run had for itself."""
        for connection in self._of_runs.pop(run, {}).values():
            await connection.close()

    async def close(self) -> None:
        """Close all connections, and end the servers that were started."""
        runs = [connection for of_run in self._of_runs.values() for connection in of_run.values()]
        connections = [*self._shared.values(), *runs]
        self._shared.clear()
        self._of_runs.clear()
        await asyncio.gather(*(connection.close() for connection in connections))
        self._keeper.close()

    def _function(self, name: str, bound: BoundServer, tool: LockedTool, mask: Callable[[str], str]) -> CallMcpTool:
        again = tool.read_only or tool.idempotent

        async def call(**arguments: JSON) -> JSON:
            connection = self._connection(name, bound, mask)
            return value_of(await connection.call(tool.name, arguments, again=again))

        return call

    def _connection(self, name: str, bound: BoundServer, mask: Callable[[str], str]) -> "_Reconnecting":
        effect = CURRENT_CALL.get(None)
        if bound.server.per_run and effect is not None:
            of_run = self._of_runs.setdefault(effect.run.partition(".")[0], {})
            if name not in of_run:
                of_run[name] = _Reconnecting(name, bound, self._keeper, mask)
            return of_run[name]
        key = (repr(msgspec.structs.astuple(bound.server)), bound.folder)
        if key not in self._shared:
            self._shared[key] = _Reconnecting(name, bound, self._keeper, mask)
        return self._shared[key]


async def list_tools(name: str, bound: BoundServer, mask: Callable[[str], str] = str) -> LockedServer:
    """Start a server, or connect to it, and return its name, version and tools.

    Raises:
        BackendError: it cannot be started or reached.
        UsageError: the SDK is not installed.
    """
    require_sdk([name])
    keeper = Keeper()
    connection = _Reconnecting(name, bound, keeper, mask)
    try:
        tools = await connection.tools()
        return LockedServer(server=connection.identity, tools=tuple(tools))
    finally:
        await connection.close()
        keeper.close()


def require_sdk(servers: Iterable[str]) -> None:
    """Check that the SDK is installed if there are servers.

    Raises:
        UsageError: it is not.
    """
    if not any(True for _ in servers):
        return
    try:
        import mcp  # noqa: F401
    except ImportError as exc:
        raise UsageError("MCP servers need the official SDK: pip install 'flowrun[mcp]'") from exc


def differences(locked: Iterable[LockedTool], actual: Iterable[LockedTool]) -> list[str]:
    """Return how the tools of a server differ from those that are locked; tools that are not locked do not count."""
    known = {tool.name: tool for tool in actual}
    found = []
    for tool in locked:
        now = known.get(tool.name)
        if now is None:
            found.append(f"there is no {tool.name} any more")
        elif now != tool:
            parts = [part for part in tool.__struct_fields__ if getattr(tool, part) != getattr(now, part)]
            found.append(f"{tool.name} has another {' and '.join(parts).replace('_', ' ')}")
    return found


class _Lost(Exception):
    """The connection to a server has ended."""


class _Reconnecting:
    """A connection to a server, which is made anew if it has ended. One at a time is opened."""

    def __init__(self, name: str, bound: BoundServer, keeper: Keeper, mask: Callable[[str], str]) -> None:
        self.identity: dict[str, str] = {}
        self._name = name
        self._bound = bound
        self._keeper = keeper
        self._mask = mask
        self._connection: _Connection | None = None
        self._lock = asyncio.Lock()
        self._closed = False

    async def call(self, tool: str, arguments: Mapping[str, JSON], *, again: bool) -> "CallToolResult":
        """Call a tool.

        Args:
            again: call it again if the connection ends before there is an answer, ``_REPEATS`` times at most.

        Raises:
            NamedFailure: ``tool.unavailable``: the server is not there, or has ended; ``tool.failed``: it refuses.
        """
        for last in (*(False,) * _REPEATS, True) if again else (True,):
            try:
                connection = await self._open()
            except BackendError as exc:
                raise NamedFailure("tool.unavailable", str(exc)) from exc
            try:
                return await connection.call(tool, arguments)
            except _Lost as exc:
                if last:
                    what = (
                        f"the MCP server {self._name!r} ended before it answered{self._mask(connection.last_words())}"
                    )
                    raise NamedFailure("tool.unavailable", what) from exc
        raise AssertionError("the last try returns or raises")

    async def tools(self) -> list[LockedTool]:
        """Return the tools of the server.

        Raises:
            BackendError: it cannot be started or reached, or does not answer.
        """
        connection = await self._open()
        try:
            return await connection.tools()
        except _Lost as exc:
            words = self._mask(connection.last_words())
            raise BackendError(f"the MCP server {self._name!r} does not list its tools: {exc}{words}") from exc

    async def close(self) -> None:
        """Close the connection."""
        self._closed = True
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _open(self) -> "_Connection":
        async with self._lock:
            if self._connection is not None and self._connection.lives:
                return self._connection
            if self._closed:
                raise BackendError(f"the MCP server {self._name!r} is closed")
            if self._connection is not None:
                await self._connection.close()
            self._connection = connection = _Connection(self._bound, self._keeper)
            try:
                self.identity = await connection.open()
            except Exception as exc:
                words = connection.last_words()
                await connection.close()
                what = f"the MCP server {self._name!r} cannot be {'reached' if self._bound.server.url else 'started'}"
                raise BackendError(self._mask(f"{what}: {_reason(exc)}{words}")) from exc
            return connection


class _Connection:
    """A client of the SDK in a task of its own, which the SDK needs: it is entered and left in one task."""

    def __init__(self, bound: BoundServer, keeper: Keeper) -> None:
        self._bound = bound
        self._keeper = keeper
        self._client: Client | None = None
        self._end = asyncio.Event()
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._task: asyncio.Task[None] | None = None
        self.lives = True

    async def open(self) -> dict[str, str]:
        """Connect, and return the server's name and version. Raises what the SDK raises, and ``TimeoutError``."""
        ready: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._live(ready))
        try:
            async with asyncio.timeout(START_SECONDS):
                return await asyncio.shield(ready)
        except BaseException:
            self._task.cancel()
            raise

    async def call(self, tool: str, arguments: Mapping[str, JSON]) -> "CallToolResult":
        """Call a tool. Raises ``_Lost`` if the connection has ended, ``NamedFailure`` if the server refuses."""
        meta: Any = dict(trace_headers()) or None  # W3C trace context goes with the request (MCP, ``_meta``)
        result: CallToolResult = await self._ask(lambda client: client.call_tool(tool, dict(arguments), meta=meta))
        return result

    async def tools(self) -> list[LockedTool]:
        """Return the tools of the server. Raises ``_Lost``."""
        found: list[LockedTool] = []
        cursor: str | None = None
        while True:
            page = await self._ask(partial(_list_page, cursor=cursor))
            found += map(_locked, page.tools)
            cursor = page.next_cursor
            if not cursor:
                return found

    async def _ask(self, work: "Callable[[Client], Awaitable[Any]]") -> Any:
        from mcp.shared.exceptions import MCPError
        from mcp.types import CONNECTION_CLOSED

        client = self._client
        if client is None or not self.lives:
            raise _Lost("it has ended")
        try:
            return await work(client)
        except MCPError as exc:
            if exc.error.code != CONNECTION_CLOSED:
                raise NamedFailure("tool.failed", exc.error.message) from exc
            self.lives = False
            raise _Lost(exc.error.message) from exc
        except (OSError, RuntimeError, EOFError) as exc:
            self.lives = False
            raise _Lost(_reason(exc)) from exc
        except Exception as exc:
            if type(exc).__module__.partition(".")[0] not in ("anyio", "httpx2", "httpcore2", "httpx"):
                raise
            self.lives = False
            raise _Lost(_reason(exc)) from exc

    def last_words(self) -> str:
        """Return the end of what the server wrote to stderr, for a message; empty if it wrote nothing."""
        with suppress(OSError, ValueError):
            self._log.flush()
            self._log.seek(max(0, os.fstat(self._log.fileno()).st_size - _SAID))
            if said := self._log.read().strip():
                return f"; its last words: {cut(said[-_SAID:], _SAID)}"
        return ""

    async def close(self) -> None:
        """Leave the client, which ends a server that was started."""
        self.lives = False
        self._end.set()
        if self._task is not None:
            _, late = await asyncio.wait((self._task,), timeout=_END_SECONDS)
            if late:
                self._task.cancel()
                await asyncio.wait((self._task,), timeout=_END_SECONDS)
        self._log.close()

    async def _live(self, ready: "asyncio.Future[dict[str, str]]") -> None:
        from mcp import Client
        from mcp.types import Implementation

        try:
            info = Implementation(name="flowrun", version=__version__)
            async with Client(self._transport(), client_info=info) as client:
                self._client = client
                said = client.server_info
                if not ready.done():
                    ready.set_result({} if said is None else {"name": said.name, "version": said.version})
                await self._end.wait()
        except BaseException as exc:
            if not ready.done():
                ready.set_exception(exc if isinstance(exc, Exception) else ConnectionError(_reason(exc)))
            elif isinstance(exc, asyncio.CancelledError):
                raise
        finally:
            self.lives = False
            self._client = None

    def _transport(self) -> Any:
        server = self._bound.server
        if server.url is not None:
            return _http_transport(server.url, server.headers)
        from mcp import StdioServerParameters
        from mcp.client.stdio import stdio_client

        program, *arguments = server.command
        found = shutil.which(program)
        if found is None:
            raise FileNotFoundError(f"there is no program {program!r} on the PATH")
        self._keeper.start()
        mark, _, value = new_mark().partition("=")
        parameters = StdioServerParameters(
            command=found, args=arguments, env={**server.env, mark: value}, cwd=self._bound.folder
        )
        return stdio_client(parameters, errlog=self._log)


@asynccontextmanager
async def _http_transport(url: str, headers: Mapping[str, str]) -> AsyncIterator[Any]:
    """Connect to an address, and close the HTTP client too, which the SDK leaves to those who made it."""
    import httpx2
    from mcp.client.streamable_http import streamable_http_client

    timeout = httpx2.Timeout(START_SECONDS, read=None)  # a call has a time limit of its own
    async with (
        httpx2.AsyncClient(headers=dict(headers), timeout=timeout) as client,
        streamable_http_client(url, http_client=client) as streams,
    ):
        yield streams


async def _list_page(client: "Client", *, cursor: str | None) -> Any:
    return await client.list_tools(cursor=cursor, cache_mode="bypass")


def _locked(tool: "Tool") -> LockedTool:
    hints = tool.annotations
    read_only = bool(hints is not None and hints.read_only_hint)
    return LockedTool(
        name=tool.name,
        description=tool.description or "",
        input_schema=dict(tool.input_schema),
        read_only=read_only,
        idempotent=bool(hints is not None and hints.idempotent_hint),
    )


def _reason(exc: BaseException) -> str:
    """Return why something failed: of a group of exceptions, the first one in it."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    if isinstance(exc, TimeoutError):
        return f"it did not answer in {START_SECONDS:g} s"
    return str(exc) or type(exc).__name__
