"""The scenarios for clients of MCP's own conformance package, from npm, with flowrun as the client."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

pytest.importorskip("mcp", reason="the MCP SDK is not installed")

from tests.npm import ROOT, install_packages

pytestmark = pytest.mark.slow

CONFORMANCE: Final = ROOT / "tests" / "mcp" / "conformance"
COMMAND: Final = f"{sys.executable} -m tests.mcp.conformance_client"
VERDICTS: Final = ("SUCCESS", "WARNING", "FAILURE")  # the package also logs, as INFO

ATTEMPTS: Final = 5
"""A client that reconnects later than the server says fails; a busy machine is late now and then, not always."""


@pytest.mark.parametrize(
    ("scenario", "checks", "answers"),
    [
        # The first connection locks the tools, the second one runs the flow.
        pytest.param("initialize", ["mcp-client-initialization"] * 2, [], id="initialize"),
        pytest.param("tools_call", ["tool-add-numbers"], ["The sum of 5 and 3 is 8"], id="tools_call"),
        pytest.param(
            "sse-retry",
            ["client-sse-graceful-reconnect", "client-sse-retry-timing", "client-sse-last-event-id"],
            ["Reconnection test completed successfully"],
            id="sse-retry",
        ),
    ],
)
def test_a_scenario(tmp_path: Path, scenario: str, checks: list[str], answers: list[str]) -> None:
    for attempt in range(ATTEMPTS):
        results = tmp_path / str(attempt)
        done = run_scenario(scenario, results)
        found = verdicts(results)
        if not any(check.get("details", {}).get(late) for check in found for late in ("slightlyLate", "veryLate")):
            break
    assert [(check["id"], check["status"]) for check in found] == [(check, "SUCCESS") for check in checks], found
    assert done.returncode == 0, done.stderr
    assert json.loads(next(results.glob("*/stdout.txt")).read_text()) == answers


def run_scenario(scenario: str, results: Path) -> subprocess.CompletedProcess[str]:
    """Have the package start its server of a scenario, run flowrun as the client, and judge it."""
    packages = install_packages(CONFORMANCE)
    node = next(packages.glob("node_modules/node-linux-*/bin/node"), None)
    if node is None:
        pytest.skip("npm has no node 22 for this system")
    program = packages / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
    options = ["--command", COMMAND, "--scenario", scenario, "--output-dir", str(results), "--timeout", "120000"]
    return subprocess.run(
        [node, program, "client", *options], cwd=ROOT, capture_output=True, text=True, timeout=150, check=False
    )


def verdicts(results: Path) -> list[dict[str, Any]]:
    """Return the checks of a scenario that the package has judged."""
    checks: list[dict[str, Any]] = json.loads(next(results.glob("*/checks.json")).read_text())
    return [check for check in checks if check["status"] in VERDICTS]
