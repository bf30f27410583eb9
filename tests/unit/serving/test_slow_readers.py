"""A client of the chat API that does not read its answer."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytest.importorskip("uvicorn", reason="the packages of servers are not installed")

from starlette.types import Message

from flowrun.core.events import Outcome
from flowrun.core.machine import Run
from flowrun.runtime.project import Project
from flowrun.runtime.run_result import RunResult
from flowrun.serving import completions
from flowrun.serving.completions import Completions
from flowrun.serving.served_flow import serve_flow
from flowrun.serving.server import ABORT

SPEC = """\
flowrun: v1
name: desk
version: 1.0.0
inputs: {q: {type: string}}
states: {done: {type: end, output: done}}
"""


class Runs:
    """Runs that succeed at once."""

    async def run(self, flow: Any, inputs: Any, *, run_id: str, listen: Any = None) -> RunResult:
        return RunResult(run=Run(id=run_id, status="succeeded", outcome=Outcome(status="succeeded", output="done")))


@pytest.mark.parametrize("stream", [False, True], ids=["all at once", "as it is written"])
def test_it_loses_its_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    monkeypatch.setattr(completions, "_END_SECONDS", 0.05)
    (tmp_path / "spec.yaml").write_text(SPEC)
    served = serve_flow(Project(environ={}).compile(tmp_path / "spec.yaml"))
    body = {"model": "desk", "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}
    requests = [msgspec.json.encode(body)]
    sent: list[str] = []

    async def ask() -> None:
        gone = asyncio.Event()
        runs: Any = Runs()

        async def receive() -> Message:
            if requests:
                return {"type": "http.request", "body": requests.pop()}
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message["type"])
            if message["type"] == "http.response.body":
                await asyncio.Event().wait()

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/", "headers": headers, "state": {ABORT: gone.set}}
        async with asyncio.timeout(10):
            await Completions({"desk": served}, runs, timeout=0.05)(scope, receive, send)
        assert gone.is_set()

    asyncio.run(ask())
    assert sent == ["http.response.start", "http.response.body"]
