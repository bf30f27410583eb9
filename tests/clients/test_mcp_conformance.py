"""The scenarios for servers of MCP's own conformance package, from npm, with served flows as the tools.

Each flow is what a scenario asks for. The others are not here, for a server of flows does not do what they want:

- prompts, resources and completions,
- ``tools-call-sampling``: a flow asks its own models, and not those of its client,
- ``json-schema-2020-12``: ``$defs`` beside the arguments of a tool; here each input has its own,
- ``elicitation-sep1330-enums``: forms in which several choices are made,
- ``server-sse-polling``: streams are not replayed.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

pytest.importorskip("mcp", reason="the MCP SDK is not installed")

from tests.npm import ROOT, install_packages
from tests.serving import Server, serving, write_files

pytestmark = pytest.mark.slow

CONFORMANCE: Final = ROOT / "tests" / "mcp" / "conformance"

IMAGE: Final = {
    "type": "image",
    "mimeType": "image/png",
    "data": "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==",
}
AUDIO: Final = {
    "type": "audio",
    "mimeType": "audio/wav",
    "data": "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA=",
}


def resource(uri: str, kind: str, text: str) -> dict[str, Any]:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": kind, "text": text}}


def outputs(output: Any) -> dict[str, Any]:
    """Return a flow that ends at once."""
    return {"states": {"done": {"type": "end", "output": output}}}


def rests(*states: str) -> dict[str, Any]:
    """Return a flow that takes a moment in each of some states."""
    following = [*states[1:], "done"]
    pauses = {name: {"type": "pause", "for": "50ms", "next": to} for name, to in zip(states, following, strict=True)}
    return {"states": {**pauses, "done": {"type": "end", "output": "All is done."}}}


def asks(prompt: str, properties: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return a flow that asks the client's user for an object."""
    schema = {"type": "object", "properties": dict(properties), "required": list(properties)}
    wait = {"type": "wait", "prompt": prompt, "schema": schema, "next": "done"}
    return {**more, "states": {"ask": wait, "done": {"type": "end", "output": "{{ outputs.ask }}"}}}


FLOWS: Final[Mapping[str, Mapping[str, Any]]] = {
    "test_simple_text": outputs("This is a simple text response for testing."),
    "test_image_content": outputs([IMAGE]),
    "test_audio_content": outputs([AUDIO]),
    "test_embedded_resource": outputs(
        [resource("test://embedded-resource", "text/plain", "This is an embedded resource content.")]
    ),
    "test_multiple_content_types": outputs(
        [
            {"type": "text", "text": "Multiple content types test:"},
            IMAGE,
            resource("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
        ]
    ),
    "test_tool_with_logging": rests("started", "at_work", "completed"),
    "test_tool_with_progress": rests("begun", "half", "all"),
    "test_error_handling": {"states": {"done": {"type": "end", "status": "failed", "output": "It fails."}}},
    "test_elicitation": asks(
        "{{ inputs.message }}",
        {"username": {"type": "string"}, "email": {"type": "string"}},
        inputs={"message": {"type": "string"}},
    ),
    "test_elicitation_sep1034_defaults": asks(
        "Who are you?",
        {
            "name": {"type": "string", "default": "John Doe"},
            "age": {"type": "integer", "default": 30},
            "score": {"type": "number", "default": 95.5},
            "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
            "verified": {"type": "boolean", "default": True},
        },
    ),
}

SCENARIOS: Final = (
    "server-initialize",
    "ping",
    "logging-set-level",
    "tools-list",
    "tools-call-simple-text",
    "tools-call-image",
    "tools-call-audio",
    "tools-call-embedded-resource",
    "tools-call-mixed-content",
    "tools-call-with-logging",
    "tools-call-with-progress",
    "tools-call-error",
    "tools-call-elicitation",
    "elicitation-sep1034-defaults",
    "server-sse-multiple-streams",
    "dns-rebinding-protection",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve the flows of the scenarios."""
    head = {"flowrun": "v1", "version": "1.0.0"}
    files = {f"{name}.yaml": json.dumps({**head, "name": name, **flow}) for name, flow in FLOWS.items()}
    folder = write_files(tmp_path_factory.mktemp("served"), files)
    with serving(folder, *files) as server:
        yield server


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_scenario(server: Server, tmp_path: Path, scenario: str) -> None:
    packages = install_packages(CONFORMANCE)
    node = next(packages.glob("node_modules/node-linux-*/bin/node"), None)
    if node is None:
        pytest.skip("npm has no node 22 for this system")
    program = packages / "node_modules/@modelcontextprotocol/conformance/dist/index.js"
    options = ["--url", f"{server.url}/mcp", "--scenario", scenario, "--output-dir", str(tmp_path)]
    done = subprocess.run([node, program, "server", *options], capture_output=True, text=True, timeout=120, check=False)
    checks: list[dict[str, Any]] = json.loads(next(tmp_path.glob("*/checks.json")).read_text())
    judged = [check for check in checks if check["status"] != "INFO"]
    assert judged, done.stdout
    assert [check for check in judged if check["status"] != "SUCCESS"] == []
    assert done.returncode == 0, done.stdout
