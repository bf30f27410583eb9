"""An MCP server of a flow, as data. What speaks to it is in ``mcp_servers``."""

from pathlib import Path

import msgspec

from flowrun.spec.mcp_lock import LockedTool
from flowrun.spec.model import McpServer


class BoundServer(msgspec.Struct, frozen=True):
    """A server, the folder that its command starts in, and the tools that are called, as the lock has them."""

    server: McpServer
    folder: Path
    locked: tuple[LockedTool, ...] = ()
