"""Records of runs, as programs read them by HTTP."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")

from starlette.requests import Request
from starlette.routing import Route

from flowrun.runtime.project import Project
from flowrun.runtime.session import Session
from flowrun.runtime.stored_flow import load_stored_flow
from flowrun.serving import shown_flows
from flowrun.serving.run_records import run_routes
from flowrun.serving.served_runs import ServedRuns
from flowrun.serving.shown_flows import ShownFlows

SPEC = """\
flowrun: v1
name: desk
version: 1.0.0
states: {done: {type: end, output: done}}
"""


def test_the_flow_of_a_record_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "spec.yaml").write_text(SPEC)
    flow = Project(environ={}).compile(tmp_path / "spec.yaml")
    loaded: list[str] = []

    def load_noted(history: Any, row: Any) -> Any:
        loaded.append(row.id)
        return load_stored_flow(history, row)

    monkeypatch.setattr(shown_flows, "load_stored_flow", load_noted)

    async def records() -> list[Any]:
        async with Session(journal=tmp_path / "journal.sqlite", environ={}) as session:
            runs = ServedRuns(session, ShownFlows({}), max_live=1, outlives_requests=True)
            await runs.run(flow, {}, run_id="one")
            show, *_ = run_routes(runs)
            assert isinstance(show, Route)
            scope = {"type": "http", "method": "GET", "path": "/v1/runs/one", "headers": []}
            found = [await show.endpoint(Request({**scope, "path_params": {"run": "one"}})) for _ in range(2)]
            return [json.loads(response.body) for response in found]

    first, second = asyncio.run(records())
    assert first == second
    assert (first["status"], first["output"], loaded) == ("succeeded", "done", ["one"])
