"""The worked examples that the small model can do, on the real one: it says what it likes, in the form that it must."""

from typing import Any

import pytest

from flowrun.core.messages import Usage
from flowrun.functions.python import PythonFunctions
from flowrun.runtime.project import Project
from flowrun.runtime.runner import Runner
from tests.conftest import SPECS
from tests.unit.backends.contract import Live

KINDS = {"billing", "technical", "other"}


def run_example(name: str, live: Live) -> tuple[Any, list[str], Usage]:
    """Run an example on the engine that all tests share; every model of its flows is that one."""
    flow = Project().compile(SPECS / f"{name}.yaml")
    runner = Runner(backends=dict.fromkeys(flow.models, live.backend), functions=PythonFunctions(flow.functions))
    run = live.run(runner.run(flow.graph, {}, run_id=name)).run
    assert run.outcome is not None
    assert run.outcome.error is None
    return run.outcome.output, list(run.path), run.usage


@pytest.mark.vllm
def test_extraction_keeps_to_its_form(small_model: Live) -> None:
    output, path, _ = run_example("extraction", small_model)
    assert path == ["extract", "done"]
    assert {name: type(value) for name, value in output.items()} == {"name": str, "year": int, "place": str}
    assert 1000 <= output["year"] <= 2999


@pytest.mark.vllm
def test_router_sorts_and_answers(small_model: Live) -> None:
    output, path, _ = run_example("router", small_model)
    assert output["kind"] in KINDS
    assert path == ["sort", output["kind"], "answered"]
    assert output["answer"]


@pytest.mark.vllm
def test_panel_hears_three_voices(small_model: Live) -> None:
    output, path, usage = run_example("panel", small_model)
    assert path == ["panel", "chair", "done"]
    assert set(output["voices"]) == {"money", "people", "law"}
    assert usage.completion_tokens > 4
