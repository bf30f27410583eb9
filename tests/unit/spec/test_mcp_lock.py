"""Tools of MCP servers come from the lock beside the spec, under the names that the spec gives them."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from flowrun.errors import SpecError
from flowrun.spec import load_spec
from flowrun.spec.model import Tool

SPEC = {
    "flowrun": "v1",
    "name": "tools",
    "version": "1.0.0",
    "model": {"backend": "scripted", "name": "replies.yaml"},
}
SCHEMA = {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]}
TOOLS = [
    {"name": "read", "description": "Read a file.", "inputSchema": SCHEMA, "readOnly": True},
    {"name": "write", "inputSchema": SCHEMA},
    {"name": "odd.name", "inputSchema": {}},
]


def load(folder: Path, server: dict[str, Any], *, locked: Any = TOOLS, **more: Any) -> dict[str, Tool]:
    server = {"command": ["server"], **server}
    (folder / "tools.yaml").write_text(yaml.safe_dump({**SPEC, "mcp_servers": {"files": server}, **more}))
    if locked is not None:
        (folder / "tools.lock.json").write_text(json.dumps({"mcp": {"files": {"tools": locked}}}))
    return dict(load_spec(folder / "tools.yaml").spec.tools)


def test_names_and_settings(tmp_path: Path) -> None:
    chosen = {"read": {"max_output": "2KB"}, "write": {"as": "save", "approve": True, "with": {"path": "a"}}}
    tools = load(tmp_path, {"prefix": "fs_", "timeout": "5s", "tools": {**chosen, "odd.name": {"as": "odd"}}})
    assert {name: (tool.entrypoint, tool.idempotent) for name, tool in tools.items()} == {
        "fs_read": ("mcp:files/read", True),
        "save": ("mcp:files/write", False),
        "odd": ("mcp:files/odd.name", False),
    }
    assert (int(tools["fs_read"].max_output), float(tools["fs_read"].timeout)) == (2000, 5.0)
    assert tools["fs_read"].description == "Read a file."
    assert tools["save"].approve is not None
    assert tools["odd"].parameters == {"type": "object"}


@pytest.mark.parametrize(
    ("server", "tools", "more", "code", "message"),
    [
        pytest.param({}, None, {}, "FR716", "there is no lock tools.lock.json", id="no-lock"),
        pytest.param({}, "x", {}, "FR716", "cannot be read", id="broken-lock"),
        pytest.param({}, TOOLS, {}, "FR209", "models cannot call a tool 'odd.name'", id="odd-name"),
        pytest.param({"tools": {"raed": {}}}, TOOLS, {}, "FR702", "did you mean 'read'", id="unknown-tool"),
        pytest.param(
            {"tools": {"read": {"as": "w"}, "write": {"as": "w"}}}, TOOLS, {}, "FR717", "'w' is the name of", id="twice"
        ),
        pytest.param(
            {"tools": {"read": {}}},
            TOOLS,
            {"tools": {"read": {"entrypoint": "a:b"}}},
            "FR717",
            "'read' is the name of a tool of the spec",
            id="taken",
        ),
    ],
)
def test_mistakes(
    tmp_path: Path, server: dict[str, Any], tools: Any, more: dict[str, Any], code: str, message: str
) -> None:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, server, locked=tools, **more)
    (issue,) = caught.value.issues
    assert issue.code == code
    assert message in f"{issue.message}; {issue.remedy}"


def test_a_command_and_an_address_replace_each_other_in_profiles(tmp_path: Path) -> None:
    profiles = {"remote": {"mcp_servers": {"files": {"url": "http://localhost:1/mcp"}}}}
    load(tmp_path, {"env": {"A": "1"}, "tools": {"read": {}}}, profiles=profiles)
    server = load_spec(tmp_path / "tools.yaml", profile="remote").spec.mcp_servers["files"]
    assert (server.command, server.url, server.env) == ((), "http://localhost:1/mcp", {})


def test_variables_are_secrets(tmp_path: Path) -> None:
    (tmp_path / "tools.lock.json").write_text(json.dumps({"mcp": {"files": {"tools": []}}}))
    server = {"command": ["x", "${PLACE}"], "env": {"TOKEN": "${TOKEN}"}}
    (tmp_path / "tools.yaml").write_text(yaml.safe_dump({**SPEC, "mcp_servers": {"files": server}}))
    loaded = load_spec(tmp_path / "tools.yaml", environ={"TOKEN": "secret-1", "PLACE": "here"})
    assert loaded.spec.mcp_servers["files"].command == ("x", "here")
    assert loaded.document.variables.secrets == {"TOKEN": "secret-1"}
    assert loaded.document.variables.values == {"PLACE": "here"}
    assert "secret-1" not in repr(loaded.spec)
