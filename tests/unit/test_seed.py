"""The weather flow on the real model is, token for token, the loop that one would write by hand with ``LLM.chat``."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flowrun.backends.vllm.backend import VllmBackend
from flowrun.backends.vllm.model_files import find_model
from flowrun.core.machine import Run
from flowrun.core.messages import as_openai
from flowrun.functions.python import PythonFunctions
from flowrun.runtime.project import CompiledFlow, Project
from flowrun.runtime.runner import Runner
from tests.conftest import SMALL_MODEL, SPECS
from tests.unit.backends.contract import Live

ROOT = SPECS.parent
INPUTS = {"question": "Can you tell me what the temperature will be in Dallas, in Fahrenheit?"}


def weather() -> CompiledFlow:
    return Project().compile(SPECS / "weather.yaml")


@pytest.mark.vllm
def test_the_weather_flow_is_the_loop_by_hand(
    small_model: Live, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flow = weather()
    assert flow.spec.models["default"] == SMALL_MODEL
    run, rounds = _flow(flow, small_model, monkeypatch)
    by_hand = _by_hand(flow, run, tmp_path)
    assert [as_openai(message) for message in run.threads["main"]] == by_hand["messages"]
    assert rounds == by_hand["rounds"]
    assert run.outcome is not None
    assert "85 degrees" in run.outcome.output["answer"]
    assert list(run.path) == ["ask", "look_up", "ask", "answered"]


def _flow(flow: CompiledFlow, live: Live, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, list[dict[str, list[int]]]]:
    """Run the flow on the shared engine, noting the tokens that it reads and writes."""
    rounds: list[dict[str, list[int]]] = []
    backend = live.backend
    assert isinstance(backend, VllmBackend)
    generate = backend._generate

    async def noting(*arguments: Any, **options: Any) -> Any:
        output = await generate(*arguments, **options)
        rounds.append({"prompt": list(output.prompt_token_ids), "reply": list(output.outputs[0].token_ids)})
        return output

    monkeypatch.setattr(backend, "_generate", noting)
    runner = Runner(backends={"default": backend}, functions=PythonFunctions(flow.functions))
    return live.run(runner.run(flow.graph, INPUTS, run_id="seed")).run, rounds


def _by_hand(flow: CompiledFlow, run: Run, folder: Path) -> Any:
    """Hold the same conversation in a process of its own."""
    model = flow.spec.models["default"]
    assert model.chat_template is not None
    declaration = next(iter(flow.graph.tools.values())).declaration
    function = {"name": declaration.name, "description": declaration.description, "parameters": declaration.parameters}
    opening = list(run.threads["main"])[: len(flow.spec.threads["main"])]
    given = {
        "model": str(asyncio.run(find_model(model.name, base_dir=SPECS))),
        "engine": dict(model.engine),
        "template": (SPECS / model.chat_template).read_text(),
        "messages": [as_openai(message) for message in opening],
        "tools": [{"type": "function", "function": function}],
        "sampling": dict(flow.spec.sampling),
    }
    out = folder / "by_hand.json"
    subprocess.run(
        [sys.executable, "-m", "tests.seed_loop", str(out)],
        cwd=ROOT,
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(out.read_text())
