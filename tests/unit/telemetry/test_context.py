"""The W3C trace context that leaves: to servers, and to tools in worker processes."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")

from opentelemetry.sdk.trace import ReadableSpan

import flowrun
from flowrun.core.trace_context import INJECT, trace_headers
from tests.unit.api.api_flows import write
from tests.unit.telemetry.traces import Traces, own

ASKS = """\
name: asks
model: {backend: openai, name: default, base_url: "%s"}
messages: [{role: user, content: hi}]
states:
  ask: {type: chat, next: done}
  done: {type: end, output: "{{ reply.content }}"}
"""


class _Handler(BaseHTTPRequestHandler):
    seen: list[tuple[str, str | None]]

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        self._answer({"object": "list", "data": [{"id": "small"}]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        message = {"role": "assistant", "content": "hello"}
        usage = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 8}}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self._answer({"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage})

    def _answer(self, answer: dict[str, Any]) -> None:
        self.seen.append((self.path, self.headers.get("traceparent")))
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[tuple[int, list[tuple[str, str | None]]]]:
    seen: list[tuple[str, str | None]] = []
    handler = type("Handler", (_Handler,), {"seen": seen})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        thread = threading.Thread(target=served.serve_forever)
        thread.start()
        yield served.server_port, seen
        served.shutdown()
        thread.join()


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Traces:
    return Traces(monkeypatch)


def parent_of(span: ReadableSpan) -> str:
    """Return the header that makes a span the parent of a request."""
    assert span.context is not None
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-0{int(span.context.trace_flags)}"


def test_a_request_to_a_server_has_the_span_of_the_chat(
    tmp_path: Path, traces: Traces, server: tuple[int, list[tuple[str, str | None]]]
) -> None:
    port, seen = server
    flow = flowrun.load(write(tmp_path, ASKS % f"http://127.0.0.1:{port}/v1"))
    assert traces.run(lambda session: session.run(flow)).output == "hello"
    chat = traces.span("chat default")
    assert seen == [("/v1/models", None), ("/v1/chat/completions", parent_of(chat))]
    assert own(chat) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "default",
        "server.address": "127.0.0.1",
        "server.port": port,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 1,
        "gen_ai.usage.cache_read.input_tokens": 8,
    }


def test_a_request_that_nobody_traces_has_no_header(
    tmp_path: Path, server: tuple[int, list[tuple[str, str | None]]]
) -> None:
    port, seen = server
    flow = flowrun.load(write(tmp_path, ASKS % f"http://127.0.0.1:{port}/v1"))

    async def go() -> None:
        async with flowrun.Session() as session:
            await session.run(flow)

    asyncio.run(go())
    assert [header for _, header in seen] == [None, None]


WORKER = """\
name: works
states:
  work: {type: call, entrypoint: "%s:work", isolation: process, next: done}
  done: {type: end, output: "{{ outputs.work }}"}
"""


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (
            "reads_headers",
            "from flowrun.calling import trace_headers\n\n\n"
            "def work() -> str:\n    return trace_headers()['traceparent']\n",
        ),
        (
            "reads_span",
            "from opentelemetry import propagate\n\n\n"
            "def work() -> str:\n    headers = {}\n    propagate.inject(headers)\n    return headers['traceparent']\n",
        ),
    ],
    ids=["headers", "current span"],
)
def test_a_tool_in_a_worker_process_has_the_span_of_its_call(
    tmp_path: Path, traces: Traces, monkeypatch: pytest.MonkeyPatch, module: str, text: str
) -> None:
    (tmp_path / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    flow = flowrun.load(write(tmp_path, WORKER % module))
    result = traces.run(lambda session: session.run(flow))
    assert result.output == parent_of(traces.span(f"execute_tool {module}:work"))


def test_where_nobody_traces_there_are_no_headers() -> None:
    assert INJECT.get(None) is None
    assert trace_headers() == {}
