"""Flows of one flowrun as tools of another: a model here calls a flow there."""

import json
from pathlib import Path

import pytest

pytest.importorskip("mcp", reason="the MCP SDK is not installed")

from tests.mcp.projects import answers, flowrun, lock, write_project
from tests.served_flows import paths, write_flows
from tests.serving import serving

pytestmark = pytest.mark.slow

KEY = "sk-flowrun-of-others"


def test_a_flow_calls_a_flow_of_another_server(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    write_flows(there, "repeats", "fails", "asks")
    with serving(there, *paths("repeats", "fails", "asks"), FLOWRUN_API_KEY=KEY) as server:
        calls = [
            ("repeats", {"text": "hi"}),
            ("fails", {"text": "x"}),
            ("repeats", {"txt": "hi"}),
            ("asks", {"text": "it"}),
        ]
        other = {"url": f"{server.url}/mcp", "headers": {"Authorization": f"Bearer ${{OTHER_KEY:-{KEY}}}"}}
        write_project(here, other, calls)
        lock(here)
        locked = json.loads((here / "tools.lock.json").read_text())
        repeated, failed, refused, waiting = answers(here)
        assert flowrun(here, "mcp", "lock", "tools.yaml", "--check").returncode == 0
    assert [tool["name"] for tool in locked["mcp"]["t"]["tools"]] == ["repeats", "fails", "asks"]
    assert json.loads(repeated) == {"text": "hi", "length": 2}
    assert failed == "error: tool.failed: tool.failed: ValueError: the oven is cold"
    assert refused.startswith("error: tool.invalid_arguments: ")
    assert waiting.startswith("Send it?\n\n(Run ")
    assert (there / "calls.txt").read_text().splitlines() == ["fail bread"]


def test_a_server_of_other_flows_than_the_lock_has(tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    write_flows(there, "repeats", "asks")
    with serving(there, *paths("repeats", "asks")) as server:
        write_project(here, {"url": f"{server.url}/mcp"}, [("repeats", {"text": "hi"})])
        lock(here)
    with serving(there, *paths("asks"), "--port", server.port):
        done = flowrun(here, "tools.yaml", "-q")
    assert done.returncode == 1
    assert "the MCP server 't' does not have the tools of the lock" in done.stderr
