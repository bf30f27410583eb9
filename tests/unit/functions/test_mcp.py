"""Tools of MCP servers, by the official SDK's own server: values, failures, sessions, ends, locks."""

import asyncio
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the MCP SDK is not installed")

from mcp.types import CallToolResult

from flowrun import Session, load
from flowrun.functions.mcp_results import value_of
from flowrun.functions.outcomes import NamedFailure
from tests.mcp.projects import COMMAND, answers, flowrun, lock, write_project
from tests.processes import wait_for_end

PNG = "iVBORw0KGgo="
TEXT = {"type": "text", "text": "85"}


@pytest.mark.parametrize(
    ("result", "value"),
    [
        pytest.param({"content": [TEXT]}, "85", id="text"),
        pytest.param({"content": []}, "", id="nothing"),
        pytest.param({"content": [{"type": "text", "text": t} for t in "ab"]}, "a\nb", id="texts"),
        pytest.param(
            {"content": [{"type": "text", "text": "{}"}], "structuredContent": {"a": 1}}, {"a": 1}, id="structured"
        ),
        pytest.param(
            {"content": [{"type": "text", "text": "3"}], "structuredContent": {"result": "3"}}, "3", id="wrapped"
        ),
        pytest.param(
            {"content": [{"type": "text", "text": "[1]"}], "structuredContent": {"result": [1]}}, [1], id="list"
        ),
        pytest.param(
            {"content": [{"type": "text", "text": "see"}, {"type": "image", "data": PNG, "mimeType": "image/png"}]},
            [
                "see",
                {
                    "type": "image",
                    "mimeType": "image/png",
                    "bytes": 8,
                    "sha256": "4c4b6a3be1314ab86138bef4314dde022e600960d8689a2c8f8631802d20dab6",
                },
            ],
            id="image",
        ),
        pytest.param(
            {"content": [{"type": "resource", "resource": {"uri": "file:///a", "text": "A"}}]},
            [{"type": "resource", "uri": "file:///a", "text": "A"}],
            id="resource",
        ),
        pytest.param(
            {"content": [{"type": "resource_link", "uri": "file:///a", "name": "a"}]},
            [{"type": "resource_link", "uri": "file:///a", "name": "a"}],
            id="link",
        ),
    ],
)
def test_values(result: dict[str, Any], value: Any) -> None:
    assert value_of(CallToolResult.model_validate(result)) == value


def test_an_error_of_the_server() -> None:
    result = {"content": [{"type": "text", "text": "no such file"}], "isError": True}
    with pytest.raises(NamedFailure, match="no such file"):
        value_of(CallToolResult.model_validate(result))


def test_calls_and_their_failures(tmp_path: Path) -> None:
    tools = {"add": {"as": "plus"}, "weather": {}, "fail": {}, "sleep": {"timeout": "200ms"}, "environment": {}}
    server = {"command": COMMAND, "prefix": "t_", "env": {"GIVEN": "${GIVEN:-1}"}, "tools": tools}
    calls: list[tuple[str, dict[str, Any]]] = [
        ("plus", {"a": 1, "b": 2}),
        ("plus", {"a": "x", "b": 2}),
        ("t_weather", {"city": "Rome"}),
        ("t_fail", {"why": "so it is"}),
        ("t_sleep", {"seconds": 30}),
        ("t_environment", {}),
    ]
    write_project(tmp_path, server, calls)
    lock(tmp_path)
    said = answers(tmp_path)
    assert (said[0], said[2]) == ("3", '{"degrees": 4}')
    assert "tool.invalid_arguments" in said[1]
    assert "tool.failed" in said[3]
    assert "Error executing tool fail" in said[3]
    assert "tool.timeout" in said[4]
    variables = set(said[5].split())
    assert "GIVEN" in variables
    assert not variables & {"PYTHONPATH", "COLUMNS", "PYTEST_CURRENT_TEST"}


@pytest.mark.slow
def test_a_server_that_ends(tmp_path: Path) -> None:
    """A tool that reads is called again by a server that is started anew; what another one did is not known."""
    server = {"command": COMMAND, "env": {"SECRET": "${SECRET}"}}
    calls: list[tuple[str, dict[str, Any]]] = [
        ("end_once", {"file": str(tmp_path / "mark")}),
        ("end", {}),
        ("add", {"a": 2, "b": 2}),
    ]
    write_project(tmp_path, server, calls)
    os.environ["SECRET"] = "tell-nobody-1"
    try:
        lock(tmp_path)
        said = answers(tmp_path)
    finally:
        del os.environ["SECRET"]
    assert (said[0], said[2]) == ("here again", "4")
    assert "tool.unavailable" in said[1]
    assert "I end ${SECRET}" in said[1]


@pytest.mark.slow
@pytest.mark.parametrize(("per_run", "expected"), [(False, ["one", "one, two"]), (True, ["one", "two"])])
def test_a_session_for_all_runs_or_for_each(tmp_path: Path, per_run: bool, expected: list[str]) -> None:
    spec = write_project(tmp_path, {"command": COMMAND, "per_run": per_run}, [])
    document = spec.read_text().replace("default: 0", "type: string")
    spec.write_text(document)
    (tmp_path / "replies.yaml").write_text(
        """\
replies:
  - {when: "request.messages[-1].role == 'tool'", content: ok, repeat: true}
  - {tool_calls: [{name: note, arguments: {text: one}}]}
  - {tool_calls: [{name: note, arguments: {text: two}}]}
"""
    )
    lock(tmp_path)
    (tmp_path / "rows.jsonl").write_text('{"row": "a"}\n{"row": "b"}\n')
    done = flowrun(tmp_path, "batch", "tools.yaml", "rows.jsonl", "-o", "out.jsonl", "--max-live", "1")
    assert done.returncode == 0, done.stderr
    outputs = [json.loads(line)["output"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert outputs == [[text] for text in expected]


@pytest.fixture
def address() -> Iterator[str]:
    """Start a server at an address, and end it."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    with subprocess.Popen([*COMMAND, str(port)], stderr=subprocess.DEVNULL) as process:
        for _ in range(600):
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
        process.kill()


def test_a_server_at_an_address(tmp_path: Path, address: str) -> None:
    server = {"url": address, "headers": {"X-Key": "secret-value-1"}, "tools": {"add": {}, "end": {}}}
    write_project(tmp_path, server, [("add", {"a": 1, "b": 1}), ("end", {}), ("add", {"a": 1, "b": 1})])
    lock(tmp_path)
    first, second, third = answers(tmp_path)
    assert first == "2"
    assert "tool.unavailable" in second
    assert "tool.unavailable" in third  # nobody starts it again


def test_a_connection_of_a_run_is_closed_with_it(tmp_path: Path, address: str) -> None:
    """And does not wait for the garbage collector, which says so."""
    spec = write_project(tmp_path, {"url": address, "per_run": True}, [("add", {"a": 1, "b": 1})])
    lock(tmp_path)

    async def runs() -> list[Any]:
        async with Session() as session:
            flow = load(spec)
            return [(await session.run(flow)).output for _ in range(3)]

    gc.collect()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always", ResourceWarning)
        assert asyncio.run(runs()) == [["2"]] * 3
        gc.collect()
    assert [str(warning.message) for warning in found] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("server", "message"),
    [
        ({"command": ["no-such-program-here"]}, "there is no program 'no-such-program-here'"),
        ({"command": [sys.executable, "-c", "import sys; sys.exit('it broke')"]}, "its last words: it broke"),
        ({"url": "http://127.0.0.1:9/mcp"}, "cannot be reached"),
    ],
)
def test_a_server_that_is_not_there(tmp_path: Path, server: dict[str, Any], message: str) -> None:
    write_project(tmp_path, {"command": COMMAND}, [])
    lock(tmp_path)
    write_project(tmp_path, server, [])
    done = flowrun(tmp_path, "tools.yaml", "-q")
    assert (done.returncode, message in done.stderr) == (1, True), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_run_compares_the_lock_and_diff_names_what_changed(tmp_path: Path) -> None:
    write_project(tmp_path, {"command": COMMAND}, [("add", {"a": 1, "b": 1})])
    lock(tmp_path)
    assert flowrun(tmp_path, "mcp", "lock", "tools.yaml", "--check").returncode == 0
    path = tmp_path / "tools.lock.json"
    before = path.read_text()
    data = json.loads(before)
    add = next(tool for tool in data["mcp"]["t"]["tools"] if tool["name"] == "add")
    add["description"] = "Add two numbers, or not."
    path.write_text(json.dumps(data))
    done = flowrun(tmp_path, "tools.yaml", "-q")
    assert (done.returncode, "add has another description" in done.stderr) == (1, True)
    checked = flowrun(tmp_path, "mcp", "lock", "tools.yaml", "--check")
    assert (checked.returncode, "t: add has another description" in checked.stderr) == (1, True)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "tools.yaml").write_text((tmp_path / "tools.yaml").read_text())
    (tmp_path / "old" / "tools.lock.json").write_text(before)
    compared = flowrun(tmp_path, "diff", "old/tools.yaml", "tools.yaml")
    assert (compared.returncode, "tools.add.description" in compared.stdout) == (1, True), compared.stdout


@pytest.mark.slow
def test_validate_and_test_need_no_server(tmp_path: Path) -> None:
    write_project(tmp_path, {"command": COMMAND}, [])
    lock(tmp_path)
    write_project(tmp_path, {"command": ["not-here"]}, [])
    assert flowrun(tmp_path, "validate", "tools.yaml").returncode == 0
    (tmp_path / "tools.test.yaml").write_text(
        """\
flow: tools.yaml
tests:
  - name: stubbed
    replies: [{tool_calls: [{name: add, arguments: {a: 1, b: 2}}]}, {content: ok}]
    tools: {add: {returns: "3"}}
    expect: {output: ["3"], calls: [{name: add, arguments: {a: 1, b: 2}}]}
  - name: not stubbed
    replies: [{tool_calls: [{name: add, arguments: {a: 1, b: 2}}]}, {content: ok}]
"""
    )
    done = flowrun(tmp_path, "test", "tools.test.yaml")
    assert done.returncode == 1
    assert "1 passed, 1 failed" in done.stdout
    assert "give it a stub" in done.stdout


@pytest.mark.slow
def test_a_server_ends_with_us_in_whatever_way(tmp_path: Path) -> None:
    write_project(tmp_path, {"command": COMMAND}, [("sleep", {"seconds": 300})])
    lock(tmp_path)
    process = subprocess.Popen([sys.executable, "-m", "flowrun", "tools.yaml"], cwd=tmp_path, stderr=subprocess.PIPE)
    servers: list[int] = []
    while not servers:
        time.sleep(0.2)
        servers = [int(pid.name) for pid in Path("/proc").glob("[0-9]*") if runs_server(pid, process.pid)]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert all(wait_for_end(pid, seconds=30) for pid in servers)


def runs_server(folder: Path, parent: int) -> bool:
    try:
        words = (folder / "cmdline").read_bytes().split(b"\0")
        found = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return False
    return found == parent and any(word.endswith(b"tests/mcp/server.py") for word in words)
