"""What ``validate`` passes, starts: specs made at random have an error, or their runs end in an outcome by name.

The seed is printed: ``FLOWRUN_TORTURE_SEED`` makes the same specs. ``FLOWRUN_TORTURE_SPECS`` is their number
(``make torture``: 2,000).
"""

import asyncio
import json
import math
import os
import random
from collections import Counter, defaultdict
from pathlib import Path
from typing import Final

import pytest

from flowrun.core.events import AskModel, CallFunction, RequestInput
from flowrun.core.messages import Reply, ToolCall
from flowrun.core.ports import ModelBackend
from flowrun.errors import FAILURES, FlowrunError, NoResponderError, ToolError
from flowrun.runtime.project import CompiledFlow, Project
from flowrun.runtime.run_result import RunResult
from flowrun.runtime.runner import Runner
from flowrun.spec.model import JSON
from flowrun.testing import ScriptedModel
from flowrun.testing.clock import VirtualLoop, virtual_clock
from tests.torture.specs import TOOLS, make_spec

SPECS: Final = int(os.environ.get("FLOWRUN_TORTURE_SPECS", "200"))
SEED: Final = int(os.environ.get("FLOWRUN_TORTURE_SEED", "1"))

_OUTPUTS: Final[tuple[JSON, ...]] = (None, True, 0, 7, "", "x", [], [1, "a"], {}, {"items": [1], "text": "x", "n": 2})

_INPUTS: Final[dict[JSON, tuple[JSON, ...]]] = {
    "string": ("x", "", "3"),
    "integer": (0, 1, 7),
    "number": (0.5, 2),
    "boolean": (True, False),
    "array": ([], ["x"], [1, {"text": "y"}]),
    "object": ({}, {"text": "x", "n": 1}),
}


class RandomWorld:
    """A model, functions and a person that answer anything."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def reply(self, request: AskModel) -> Reply:
        """Return calls of tools that are offered or not, or a text, which may be JSON."""
        chance = self._chance
        if request.tools and chance.random() < 0.5:
            names = [*(tool.name for tool in request.tools), "no_such_tool"]
            calls = tuple(
                ToolCall(id=f"call{chance.randrange(10**5):05}", name=chance.choice(names), arguments=self._arguments())
                for _ in range(chance.choice((1, 1, 2)))
            )
            return Reply(content=None, tool_calls=calls, finish_reason="tool_calls")
        content = chance.choice(("", "Fine.", json.dumps(chance.choice(_OUTPUTS)), "{"))
        return Reply(content=content, finish_reason=chance.choice(("stop", "stop", "stop", "length")))

    def _arguments(self) -> str:
        return self._chance.choice(("{}", '{"a": 1}', '{"a": 1, "b": 2}', '{"city": "Rome"}', "[1]", "{", ""))

    async def call(self, effect: CallFunction) -> JSON:
        """Return any value, or fail."""
        if self._chance.random() < 0.2:
            raise ToolError(self._chance.choice(("tool.failed", "tool.timeout")), "no")
        return self._chance.choice(_OUTPUTS)

    async def answer(self, effect: RequestInput) -> JSON:
        """Answer nothing, so that the run waits."""
        raise NoResponderError


def run_flow(flow: CompiledFlow, chance: random.Random) -> RunResult:
    """Run a flow in virtual time."""
    world = RandomWorld(chance)
    backend: ModelBackend = ScriptedModel.from_function(world.reply, record=False)
    inputs = {
        name: chance.choice(_INPUTS.get(schema.get("type"), _OUTPUTS)) if chance.random() < 0.9 else None
        for name, schema in flow.spec.inputs.items()
        if "default" not in schema or chance.random() < 0.5
    }

    async def go() -> RunResult:
        runner = Runner(
            backends=defaultdict[str, ModelBackend](lambda: backend),
            functions=world,
            human_input=world,
            chance=lambda: 0.0,
            now=virtual_clock(),
            tick=math.inf,
        )
        return await runner.run(flow.graph, inputs, run_id="made")

    with asyncio.Runner(loop_factory=VirtualLoop) as loop:
        return loop.run(go())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write the specs, each into a project of its own."""
    print(f"FLOWRUN_TORTURE_SEED={SEED}")
    root = tmp_path_factory.mktemp("specs")
    (root / "pyproject.toml").touch()
    (root / "tl.py").write_text(TOOLS)
    files = []
    for number in range(SPECS):
        folder = root / f"{number:04}"
        folder.mkdir()
        (folder / "replies.yaml").write_text("replies: []\n")
        files.append(folder / "spec.yaml")
        files[-1].write_text(make_spec(random.Random(f"{SEED} {number}")), encoding="utf-8")
    return files


def test_what_validate_passes_starts(made: list[Path]) -> None:
    project = Project(environ={}, require_environment=False)
    issues = project.check_all(made)
    # FR704 as a warning: the flow has no model, and runs as a sub-flow only.
    faulty = {issue.place.file for issue in issues if issue.severity == "error" or issue.code == "FR704"}
    bugs = [issue for issue in issues if issue.code == "FR901"]
    assert bugs == []
    assert [issue for issue in issues if not issue.message or not issue.remedy] == []
    ends: Counter[str] = Counter()
    for number, file in enumerate(made):
        if str(file) in faulty:
            ends["refused"] += 1
            continue
        try:
            result = run_flow(project.compile(file), random.Random(f"{SEED} {number} run"))
        except FlowrunError as exc:
            pytest.fail(f"{file}: validate passed it, and it does not start: {exc}\n{file.read_text()}")
        except Exception as exc:
            raise AssertionError(f"{file}:\n{file.read_text()}") from exc
        assert result.error is None or result.error.name in FAILURES
        ends[result.status if result.error is None else result.error.name] += 1
    print(dict(ends))
    assert ends["refused"] < len(made)
    assert ends["refused"] > len(made) // 10
