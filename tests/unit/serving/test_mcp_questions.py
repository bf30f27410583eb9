"""A question that the client's user is asked may be answered elsewhere meanwhile: then that answer counts."""

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("mcp", reason="the MCP SDK is not installed")

from mcp import types

from flowrun.runtime.project import Project
from flowrun.runtime.session import Session
from flowrun.serving.mcp_endpoint import _Call
from flowrun.serving.served_flow import serve_flow
from flowrun.serving.served_runs import ServedRuns
from flowrun.serving.shown_flows import ShownFlows

SPEC = """\
flowrun: v1
name: asks
version: 1.0.0
states:
  ask: {type: wait, prompt: Well?, schema: {type: string}, next: done}
  done: {type: end, output: "{{ outputs.ask }}"}
"""


class Client:
    """A client whose user answers each question once somebody else has done so."""

    can_send_request = True
    client_capabilities = types.ClientCapabilities(elicitation=types.ElicitationCapability())

    def __init__(self, runs: ServedRuns, answer: types.ElicitResult) -> None:
        self._runs = runs
        self._answer = answer
        self.asked = 0

    async def report_progress(self, *progress: Any) -> None:
        """Do nothing."""

    async def elicit_form(self, *asked: Any) -> types.ElicitResult:
        """Return the answer of the user."""
        self.asked += 1
        (row,) = self._runs.history.runs()
        await self._runs.session.answer(f"{row.id}/1/0", "by another")
        return self._answer


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(types.ElicitResult(action="accept", content={"answer": "mine"}), id="answered too"),
        pytest.param(types.ElicitResult(action="decline"), id="declined"),
    ],
)
def test_an_answer_of_somebody_else_counts(tmp_path: Path, answer: types.ElicitResult) -> None:
    (tmp_path / "asks.yaml").write_text(SPEC)
    served = serve_flow(Project(environ={}).compile(tmp_path / "asks.yaml"))

    async def work() -> tuple[Any, int]:
        async with asyncio.timeout(20), Session(journal=tmp_path / "j.sqlite") as session:
            runs = ServedRuns(session, ShownFlows(os.environ), max_live=1, outlives_requests=True)
            client = Client(runs, answer)
            ctx = SimpleNamespace(session=client, request_id=1, request=None, meta=None)
            call = _Call(served, runs, ctx, address="http://localhost", says=False)
            return await call.begin(types.CallToolRequestParams(name="asks")), client.asked

    result, asked = asyncio.run(work())
    assert ([part.text for part in result.content], asked) == (["by another"], 1)
