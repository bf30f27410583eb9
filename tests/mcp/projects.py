"""A project with an MCP server, and a model that is scripted to call its tools."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

SERVER = Path(__file__).parent / "server.py"
COMMAND = [sys.executable, str(SERVER)]

SPEC = """\
flowrun: v1
name: tools
version: 1.0.0
inputs: {row: {default: 0}}
model: {backend: scripted, name: replies.yaml}
messages: [{role: user, content: "Call them."}]
states:
  ask:
    type: chat
    routes: [{when: reply.tool_calls, to: call}, {to: done}]
  call: {type: tools, on_error: return, next: ask}
  done:
    type: end
    output: "{{ threads.main | selectattr('role', 'equalto', 'tool') | map(attribute='content') | list }}"
"""


def write_project(folder: Path, server: Mapping[str, Any], calls: Sequence[tuple[str, Mapping[str, Any]]]) -> Path:
    """Write a spec whose model makes these calls one after the other, and return its path."""
    document = {**yaml.safe_load(SPEC), "mcp_servers": {"t": dict(server)}}
    replies: list[Any] = [
        {
            "when": f"(request.messages | selectattr('role', 'equalto', 'tool') | list | length) == {index}",
            "tool_calls": [{"name": name, "arguments": dict(arguments)}],
            "repeat": True,
        }
        for index, (name, arguments) in enumerate(calls)
    ]
    (folder / "pyproject.toml").touch()
    (folder / "replies.yaml").write_text(yaml.safe_dump({"replies": [*replies, {"content": "ok", "repeat": True}]}))
    spec = folder / "tools.yaml"
    spec.write_text(yaml.safe_dump(document, sort_keys=False))
    return spec


def flowrun(folder: Path, *words: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run flowrun in a folder."""
    return subprocess.run(
        [sys.executable, "-m", "flowrun", *map(str, words)],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", **environ},
        timeout=180,
        check=False,
    )


def lock(folder: Path) -> None:
    """Lock the tools of the project."""
    done = flowrun(folder, "mcp", "lock", "tools.yaml")
    assert done.returncode == 0, done.stderr


def answers(folder: Path) -> Any:
    """Run the flow, and return what the tools gave to the model."""
    done = flowrun(folder, "tools.yaml", "--json", "-q")
    assert done.stdout, done.stderr
    record = json.loads(done.stdout)
    assert record["error"] is None, record["error"]
    return record["output"]
