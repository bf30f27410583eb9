"""Flows as models, asked by curl, as a README shows it."""

import json
import shutil
import subprocess
from typing import Any

import pytest

from tests.serving import wait_for
from tests.unit.serving.conftest import KEY, Served

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def curl(served: Served, path: str, *words: str, key: str = KEY) -> str:
    """Ask the server, and return the body of what it answers."""
    command = ["curl", "--silent", "--show-error", *words, "-H", f"Authorization: Bearer {key}"]
    done = subprocess.run([*command, f"{served.server.url}{path}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def body(model: str, text: str, **more: Any) -> str:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": text}], **more})


def test_the_models(served: Served) -> None:
    models = json.loads(curl(served, "/v1/models"))
    assert models["object"] == "list"
    assert [model["id"] for model in models["data"]][:2] == ["parrot", "history"]


def test_a_completion(served: Served) -> None:
    headers = ("-H", "Content-Type: application/json")
    completion = json.loads(curl(served, "/v1/chat/completions", *headers, "-d", body("parrot", "hi")))
    assert completion["choices"][0]["message"]["content"] == "You said hi"


def test_a_stream(served: Served) -> None:
    words = ("--no-buffer", "--include", "--json", body("parrot", "hi", stream=True))
    head, _, events = curl(served, "/v1/chat/completions", *words).replace("\r\n", "\n").partition("\n\n")
    assert head.startswith("HTTP/1.1 200 OK\n")
    assert "content-type: text/event-stream; charset=utf-8\n" in head
    *chunks, done, rest = events.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    deltas = [json.loads(chunk.removeprefix("data: "))["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == "You said hi"


def test_a_run_that_waits(served: Served) -> None:
    about = json.loads(curl(served, "/v1/chat/completions", "--json", body("asks", "it")))["flowrun"]
    run, (question,) = about["run"], about["waiting"]
    answer = json.dumps({"id": question["id"], "value": True})
    answered = json.loads(curl(served, f"/v1/runs/{run}/answers", "--json", answer))
    assert answered["run"] == run
    wait_for(lambda: json.loads(curl(served, f"/v1/runs/{run}"))["status"] == "succeeded")
    assert json.loads(curl(served, f"/v1/runs/{run}"))["output"] == "sent"


def test_a_tool(served: Served) -> None:
    """A client of MCP 2026-07-28 needs no handshake: one request is enough."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "curl", "version": "8"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": "repeats", "arguments": {"text": "hi"}, "_meta": meta}
    request = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    headers = [
        *("-H", "Accept: application/json, text/event-stream"),
        *("-H", "MCP-Protocol-Version: 2026-07-28"),
        *("-H", "Mcp-Method: tools/call", "-H", "Mcp-Name: repeats"),
    ]
    answered = curl(served, "/mcp", "--json", request, *headers)
    data = next((line for line in answered.splitlines() if line.startswith("data: ")), answered)
    result = json.loads(data.removeprefix("data: "))["result"]
    assert result["structuredContent"] == {"text": "hi", "length": 2}


def test_errors(served: Served) -> None:
    refused = json.loads(curl(served, "/v1/chat/completions", "-d", body("parrot", "hi")))
    assert refused["error"]["message"] == (
        "the Content-Type must be application/json, and is application/x-www-form-urlencoded"
    )
    assert json.loads(curl(served, "/v1/models", key="wrong"))["error"]["code"] == "invalid_api_key"
    assert json.loads(curl(served, "/health", key="wrong"))["status"] == "ok"
