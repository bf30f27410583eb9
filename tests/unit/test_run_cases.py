"""``tests/cases/runs/``: a folder with ``spec.yaml``, its scripted ``replies.yaml`` and ``expected.json`` is a test.

``answers.json`` are the answers to each of its wait states, in their order.
"""

import asyncio
import json
from functools import cache
from pathlib import Path

import pytest

from flowrun.core.events import Move, Notice
from flowrun.errors import NoResponderError
from flowrun.runtime.project import Project
from flowrun.runtime.run_result import InputRequest, RunResult
from flowrun.runtime.session import Session
from flowrun.spec import load_spec
from flowrun.spec.model import JSON, STATES, EndState
from tests.records import outcome_of

ROOT = Path(__file__).parents[2]
CASES = sorted((ROOT / "tests" / "cases" / "runs").iterdir())


class CaseAnswers:
    """Answers wait states from a case's file."""

    def __init__(self, case: Path) -> None:
        file = case / "answers.json"
        self.left: dict[str, list[JSON]] = json.loads(file.read_text()) if file.exists() else {}

    async def answer(self, request: InputRequest, /) -> JSON:
        if not self.left.get(request.state):
            raise NoResponderError
        return self.left[request.state].pop(0)


class Moves:
    """An observer that keeps the moves of a run and its sub-flows."""

    def __init__(self) -> None:
        self.moves: list[tuple[str, Move]] = []

    def notify(self, notice: Notice) -> None:
        self.moves += ((notice.run, move) for move in notice.moves)


@cache  # some functions of the cases count how often they were called
def run_case(case: Path) -> tuple[RunResult, list[tuple[str, Move]]]:
    """Return a case's result, and the moves of its run and sub-flows, each with the id of the run."""
    flow = Project().compile(case / "spec.yaml")
    inputs = case / "inputs.json"
    given = json.loads(inputs.read_text()) if inputs.exists() else {}
    moves = Moves()

    async def go() -> RunResult:
        async with Session(human_input=CaseAnswers(case), observers=[moves]) as session:
            return await session.run(flow, given, run_id="case")

    return asyncio.run(go()), moves.moves


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_run(case: Path) -> None:
    result = json.loads(json.dumps(run_case(case)[0].to_dict()))
    assert outcome_of(result) == json.loads((case / "expected.json").read_text())


def test_the_cases_leave_every_kind_of_state_in_every_way() -> None:
    left: set[tuple[type, str]] = set()
    for case in CASES:
        states = load_spec(case / "spec.yaml").spec.states
        left |= {(type(states[move.state]), move.how) for run, move in run_case(case)[1] if run == "case"}
    kinds = set(STATES.values())
    assert {kind for kind, _ in left} == kinds
    assert left >= {(kind, how) for kind in kinds - {EndState} for how in ("route", "catch", "retry")}
