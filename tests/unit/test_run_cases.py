"""``tests/cases/runs/``: a folder with ``spec.yaml``, its scripted ``replies.yaml`` and ``expected.json`` is a test."""

import asyncio
import json
from pathlib import Path

import pytest

from flowrun.runtime.backends import BackendSettings, make_backends
from flowrun.runtime.prepare import prepare_flow
from flowrun.runtime.result_json import result_of
from flowrun.runtime.runner import Result, Runner

ROOT = Path(__file__).parents[2]
CASES = sorted((ROOT / "tests" / "cases" / "runs").iterdir())


def run_case(case: Path) -> Result:
    flow = prepare_flow(case / "spec.yaml", profile=None, project_dir=None, environ={})
    inputs = case / "inputs.json"
    runner = Runner(backends=make_backends(flow, BackendSettings()), functions=flow.functions)
    given = json.loads(inputs.read_text()) if inputs.exists() else {}
    return asyncio.run(runner.run(flow.graph, given, run_id="case"))


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_run(case: Path) -> None:
    result = json.loads(json.dumps(result_of(run_case(case))))
    assert result == json.loads((case / "expected.json").read_text())
