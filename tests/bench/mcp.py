"""What a call of a tool of an MCP server costs through flowrun, beside the bare client of the SDK.

Each has a process of the same server, over stdio, and calls the same tool. `the call` is flowrun's client alone: the
connection, the time limit, the value. `in a run` is all of flowrun: a scripted model asks for the calls.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

import flowrun
from flowrun.backends.scripted import ScriptedBackend
from flowrun.collector import calm_collector
from flowrun.core.events import AskModel, CallFunction
from flowrun.core.messages import Reply, ToolCall
from flowrun.functions.mcp_servers import McpServers
from flowrun.functions.python import PythonFunctions
from tests.mcp.projects import COMMAND, lock, write_project

_PASSES: Final = 5
_CASES: Final = {"300 calls, one after another": (300, 1), "1,000 calls at once": (1, 1000)}
_TOOL: Final = "add"
_ARGUMENTS: Final = {"a": 1, "b": 2}
_TEXT: Final = '{"a": 1, "b": 2}'

Caller = Callable[[int, int], Awaitable[None]]
"""Calls the tool: so many times one after another, so many calls at once."""


def main() -> None:
    """Print the table."""
    calm_collector()
    with TemporaryDirectory() as folder:
        spec = write_project(Path(folder), {"command": COMMAND, "tools": {_TOOL: {}}}, [])
        spec.write_text(spec.read_text() + "limits: {max_rounds: 1000}\n")
        lock(Path(folder))
        asyncio.run(_compare(spec))


async def _compare(spec: Path) -> None:
    async with AsyncExitStack() as stack:
        callers = {
            "the SDK": await _sdk(stack),
            "the call": await _call(stack, spec),
            "in a run": await _in_run(stack, spec),
        }
        least = {label: await _least([*callers.values()], *case) for label, case in _CASES.items()}
    print(f"\nA call of a tool of an MCP server over stdio, µs (least of {_PASSES} interleaved passes)\n")
    print(f"{'':44}" + "".join(f"{column:>12}" for column in (*callers, "call/SDK", "run/SDK")))
    for label, measured in least.items():
        for row, figures in zip((label, "  of which CPU of our process"), zip(*measured, strict=True), strict=True):
            cells = [*(f"{figure * 1e6:12.1f}" for figure in figures)]
            cells += [f"{figure / figures[0]:12.2f}" for figure in figures[1:]]
            print(f"{row:44}" + "".join(cells))


async def _least(callers: Sequence[Caller], rounds: int, width: int) -> list[tuple[float, ...]]:
    """Measure all in turns; return the least of what each call takes, and of what it takes in our process."""
    for caller in callers:
        await caller(rounds, width)
    passes = [[await _measure(caller, rounds, width) for caller in callers] for _ in range(_PASSES)]
    return [tuple(map(min, zip(*figures, strict=True))) for figures in zip(*passes, strict=True)]


async def _measure(caller: Caller, rounds: int, width: int) -> tuple[float, float]:
    """Return the seconds that a call takes, and the seconds of CPU of our process."""
    wall, cpu = time.perf_counter(), time.process_time()
    await caller(rounds, width)
    calls = rounds * width
    return (time.perf_counter() - wall) / calls, (time.process_time() - cpu) / calls


async def _sdk(stack: AsyncExitStack) -> Caller:
    """Return what calls by the client of the SDK."""
    program, *arguments = COMMAND
    server = stdio_client(StdioServerParameters(command=program, args=arguments))
    client = await stack.enter_async_context(Client(server))

    async def call(rounds: int, width: int) -> None:
        for _ in range(rounds):
            results = await asyncio.gather(*(client.call_tool(_TOOL, _ARGUMENTS) for _ in range(width)))
            assert not any(result.is_error for result in results)

    return call


async def _call(stack: AsyncExitStack, spec: Path) -> Caller:
    """Return what calls by flowrun's functions, without a machine and a model."""
    servers = McpServers()
    stack.push_async_callback(servers.close)
    bound = flowrun.load(spec).servers
    await servers.start_for(bound, str)
    functions = PythonFunctions(servers.functions_of(bound, str))
    effect = CallFunction(step=1, state="s", run="r", entrypoint=f"mcp:t/{_TOOL}", arguments=_ARGUMENTS, timeout=60.0)

    async def call(rounds: int, width: int) -> None:
        for _ in range(rounds):
            values = await asyncio.gather(*(functions.call(effect) for _ in range(width)))
            assert set(values) == {"3"}

    return call


async def _in_run(stack: AsyncExitStack, spec: Path) -> Caller:
    """Return what calls in a run, whose scripted model asks for it."""
    session = await stack.enter_async_context(flowrun.Session())
    calls: tuple[ToolCall, ...] = ()
    messages = 0

    async def reply(request: AskModel) -> Reply:
        if len(request.messages) > messages:
            return Reply(content="done")
        return Reply(tool_calls=calls, finish_reason="tool_calls")

    flow = flowrun.load(spec).with_model("default", ScriptedBackend.from_function(reply, record=False))

    async def call(rounds: int, width: int) -> None:
        nonlocal calls, messages
        calls = tuple(ToolCall(id=f"c{number}", name=_TOOL, arguments=_TEXT) for number in range(width))
        messages = rounds * (1 + width)
        result = await session.run(flow)
        assert result.output == ["3"] * (rounds * width), result

    return call


if __name__ == "__main__":
    main()
