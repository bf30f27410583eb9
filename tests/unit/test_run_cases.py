"""``tests/cases/runs/``: a folder with ``spec.yaml``, its scripted ``replies.yaml`` and ``expected.json`` is a test.

``answers.json`` are the answers to each of its wait states, in their order.
"""

import asyncio
import json
from pathlib import Path

import pytest

from flowrun.core.events import RequestInput
from flowrun.errors import NoResponderError
from flowrun.runtime.project import Project
from flowrun.runtime.run_result import RunResult
from flowrun.runtime.session import Session
from flowrun.spec import load_spec
from flowrun.spec.model import JSON, STATES

ROOT = Path(__file__).parents[2]
CASES = sorted((ROOT / "tests" / "cases" / "runs").iterdir())


class CaseAnswers:
    """Answers wait states from a case's file."""

    def __init__(self, case: Path) -> None:
        file = case / "answers.json"
        self.left: dict[str, list[JSON]] = json.loads(file.read_text()) if file.exists() else {}

    async def answer(self, effect: RequestInput) -> JSON:
        if not self.left.get(effect.state):
            raise NoResponderError
        return self.left[effect.state].pop(0)


def run_case(case: Path) -> RunResult:
    flow = Project().compile(case / "spec.yaml")
    inputs = case / "inputs.json"
    given = json.loads(inputs.read_text()) if inputs.exists() else {}

    async def go() -> RunResult:
        async with Session(human_input=CaseAnswers(case)) as session:
            return await session.run(flow, given, run_id="case")

    return asyncio.run(go())


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_run(case: Path) -> None:
    result = json.loads(json.dumps(run_case(case).to_dict()))
    assert result == json.loads((case / "expected.json").read_text())


def test_the_cases_visit_every_kind_of_state() -> None:
    visited: set[type] = set()
    for case in CASES:
        states = load_spec(case / "spec.yaml").spec.states
        visited |= {type(states[name]) for name in json.loads((case / "expected.json").read_text())["path"]}
    assert visited == set(STATES.values())
