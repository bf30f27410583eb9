"""``python -m tests.mcp.conformance_client URL``: flowrun as the client that MCP's conformance package runs.

The package names the scenario in the environment. The answers of the tools are printed, as JSON.
"""

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tests.mcp.projects import answers, lock, write_project

CALLS: Final[Mapping[str, list[tuple[str, Mapping[str, Any]]]]] = {
    "initialize": [],
    "tools_call": [("add_numbers", {"a": 5, "b": 3})],
    "sse-retry": [("test_reconnection", {})],
}


def main(url: str, scenario: str) -> None:
    """Lock the tools of the server, and run a flow that calls them."""
    with tempfile.TemporaryDirectory() as folder:
        write_project(Path(folder), {"url": url}, CALLS[scenario])
        lock(Path(folder))
        print(json.dumps(answers(Path(folder))))


if __name__ == "__main__":
    main(sys.argv[1], os.environ["MCP_CONFORMANCE_SCENARIO"])
