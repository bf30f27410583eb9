"""The reference servers of MCP, from npm: everything, filesystem and memory; a thousand calls, and kills in a batch."""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the MCP SDK is not installed")

from tests.mcp.projects import answers, flowrun, lock, write_project
from tests.npm import install_packages

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("node") is None, reason="there is no node on the PATH"),
]
SERVERS = Path(__file__).parents[2] / "mcp" / "servers"


def command(name: str, *words: str) -> list[str]:
    """Return the command of a server."""
    return [
        "node",
        str(install_packages(SERVERS) / f"node_modules/@modelcontextprotocol/server-{name}/dist/index.js"),
        *words,
    ]


def test_everything(tmp_path: Path) -> None:
    calls: list[tuple[str, dict[str, Any]]] = [
        ("echo", {"message": "hi"}),
        ("get-sum", {"a": 2, "b": 3}),
        ("get-structured-content", {"location": "New York"}),
        ("get-tiny-image", {}),
        ("get-resource-reference", {"resourceType": "Text", "resourceId": 1}),
        ("get-sum", {"a": "x", "b": 3}),
    ]
    write_project(tmp_path, {"command": command("everything", "stdio")}, calls)
    lock(tmp_path)
    said = answers(tmp_path)
    assert said[:3] == [
        "Echo: hi",
        "The sum of 2 and 3 is 5.",
        '{"temperature": 33, "conditions": "Cloudy", "humidity": 82}',
    ]
    assert '"mimeType": "image/png"' in said[3]
    assert "base64" not in said[3]
    assert "demo://resource/dynamic/text/1" in said[4]
    assert "tool.invalid_arguments" in said[5]


def test_files(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.txt").write_text("It is A.")
    calls = [
        ("fs_read_text_file", {"path": str(folder / "a.txt")}),
        ("fs_write_file", {"path": str(folder / "b.txt"), "content": "B"}),
        ("fs_read_text_file", {"path": "/etc/hostname"}),
    ]
    server = {"command": command("filesystem", "data"), "prefix": "fs_"}
    write_project(tmp_path, server, calls)
    lock(tmp_path)
    said = answers(tmp_path)
    assert "It is A." in said[0]
    assert (folder / "b.txt").read_text() == "B"
    assert "tool.failed" in said[2]
    tools = {tool["name"]: tool for tool in json.loads((tmp_path / "tools.lock.json").read_text())["mcp"]["t"]["tools"]}
    assert (tools["read_text_file"]["readOnly"], tools["write_file"].get("readOnly")) == (True, None)


def test_memory(tmp_path: Path) -> None:
    entity = {"name": "Ada", "entityType": "person", "observations": ["counts"]}
    calls = [("create_entities", {"entities": [entity]}), ("read_graph", {})]
    server = {"command": command("memory"), "env": {"MEMORY_FILE_PATH": str(tmp_path / "memory.jsonl")}}
    write_project(tmp_path, server, calls)
    lock(tmp_path)
    assert "Ada" in answers(tmp_path)[1]


def test_a_server_that_is_killed_in_a_batch_loses_no_row(tmp_path: Path) -> None:
    server = {"command": command("everything", "stdio"), "tools": {"echo": {}}}
    write_project(tmp_path, server, [("echo", {"message": "hi"})])
    lock(tmp_path)
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"row": {row}}}\n' for row in range(1000)))
    words = [sys.executable, "-m", "flowrun", "batch", "tools.yaml", "rows.jsonl", "-o", "out.jsonl", "-q"]
    kills = 0
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.DEVNULL) as batch:
        while batch.poll() is None:
            written = (tmp_path / "out.jsonl").read_bytes().count(b"\n") if (tmp_path / "out.jsonl").exists() else 0
            if written > 200 * kills:
                for pid in servers_of(batch.pid):
                    with_kill(pid)
                    kills += 1
            time.sleep(0.01)
    results = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert kills >= 2
    assert len(results) == 1000
    assert {str(result["output"]) for result in results} == {"['Echo: hi']"}


def test_a_thousand_calls_at_once(tmp_path: Path) -> None:
    server = {"command": command("everything", "stdio"), "tools": {"echo": {}}}
    write_project(tmp_path, server, [])
    lock(tmp_path)
    many = [{"name": "echo", "arguments": {"message": str(number)}} for number in range(1000)]
    replies = [{"tool_calls": many}, {"content": "ok"}]
    (tmp_path / "replies.json").write_text(json.dumps({"replies": replies}))
    spec = tmp_path / "tools.yaml"
    spec.write_text(spec.read_text().replace("replies.yaml", "replies.json"))
    assert answers(tmp_path) == [f"Echo: {number}" for number in range(1000)]


def servers_of(parent: int) -> Iterator[int]:
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            stat, words = (folder / "stat").read_text(), (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if int(stat.rpartition(")")[2].split()[1]) == parent and b"server-everything" in words:
            yield int(folder.name)


def with_kill(pid: int) -> None:
    subprocess.run(["kill", f"-{signal.SIGKILL.value}", str(pid)], check=False)


def test_the_example_reads_a_note(tmp_path: Path) -> None:
    """With a scripted model in place of its own; the server is that of npm, by npx."""
    done = flowrun(tmp_path, "init", "--example", "files", "files")
    assert done.returncode == 0, done.stderr
    spec = tmp_path / "files" / "specs" / "files.yaml"
    bin_folder = install_packages(SERVERS) / "node_modules" / ".bin"
    text = spec.read_text().replace('[npx, --yes, "@modelcontextprotocol/server-filesystem@2026.8.31", ', "[")
    text = text.replace("[data/notes]", f"[{bin_folder / 'mcp-server-filesystem'}, data/notes]")
    start, end = text.index("model:\n"), text.index("sampling:")
    spec.write_text(text[:start] + "model: {backend: scripted, name: replies.yaml}\n" + text[end:])
    (spec.parent / "replies.yaml").write_text(
        """\
replies:
  - {when: "request.messages[-1].role == 'tool'", content: "{{ 1 }}", repeat: true}
  - {tool_calls: [{name: read_note, arguments: {path: hours.txt}}], repeat: true}
"""
    )
    done = flowrun(tmp_path / "files", "specs/files.yaml", "--json", "-q")
    messages = json.loads(done.stdout)["messages"]
    assert "open from 9 to 18" in messages[-2]["content"]
