"""An MCP server for tests, by the official SDK: stdio, or with a port as argument, streamable HTTP."""

import asyncio
import os
import sys
import time

from mcp.server.mcpserver import MCPServer
from mcp.types import ToolAnnotations

READS = ToolAnnotations(read_only_hint=True)
server = MCPServer("tests", version="1.2.3")
notes: list[str] = []
arrived = asyncio.Condition()
inside = most = 0


@server.tool(annotations=READS)
def add(a: int, b: int) -> str:
    """Add two numbers."""
    return str(a + b)


@server.tool(annotations=READS, structured_output=True)
def weather(city: str) -> dict[str, int]:
    """Tell the weather."""
    return {"degrees": len(city)}


@server.tool()
def note(text: str) -> str:
    """Keep a note; the server has a state."""
    notes.append(text)
    return ", ".join(notes)


@server.tool(annotations=READS)
def fail(why: str) -> str:
    """Fail."""
    raise ValueError(why)


@server.tool(annotations=READS)
async def sleep(seconds: float) -> str:
    """Take a while."""
    await asyncio.sleep(seconds)
    return "done"


@server.tool(annotations=READS)
async def meet(calls: int, seconds: float = 0.2) -> str:
    """Wait until so many calls have been here at once, and then a while; give the most that have been."""
    global inside, most
    async with arrived:
        inside += 1
        most = max(most, inside)
        arrived.notify_all()
        await arrived.wait_for(lambda: most >= calls)
    await asyncio.sleep(seconds)
    inside -= 1
    return str(most)


@server.tool()
def end(code: int = 7) -> str:
    """End the server before it answers."""
    print("I end", os.environ.get("SECRET", ""), file=sys.stderr, flush=True)
    os._exit(code)


@server.tool(annotations=READS)
def end_once(file: str) -> str:
    """End the server before it answers, the first time."""
    if not os.path.exists(file):
        with open(file, "w") as mark:
            mark.write(str(time.time()))
        os._exit(1)
    return "here again"


@server.tool(annotations=READS)
def environment() -> str:
    """Give the names of the variables."""
    return " ".join(sorted(os.environ))


if len(sys.argv) > 1:
    server.run("streamable-http", port=int(sys.argv[1]), host="127.0.0.1")
else:
    server.run()
