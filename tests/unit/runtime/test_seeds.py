"""The seed of a run gives each of its requests, and those of its sub-flows, a seed of its own."""

import asyncio
from pathlib import Path

import flowrun
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply
from flowrun.functions.python import PythonFunctions
from flowrun.runtime.runner import Runner
from flowrun.testing import ScriptedModel

SPEC = """\
flowrun: v1
name: seeds
version: 1.0.0
model: {backend: scripted, name: replies.yaml}
sampling: {temperature: 0.5, seed: 7}
messages: [{role: user, content: Say it.}]
states:
  first: {type: chat, next: second}
  second: {type: chat, messages: [{role: user, content: Again.}], next: both}
  both: {type: parallel, branches: {one: {flow: "#say"}, two: {flow: "#say"}}, next: done}
  done: {type: end, output: done}
flows:
  say:
    messages: [{role: user, content: Say it.}]
    states:
      ask: {type: chat, next: done}
      done: {type: end, output: "{{ reply.content }}"}
"""


def seeds_of(folder: Path, seed: int | None) -> list[object]:
    (folder / "spec.yaml").write_text(SPEC)
    flow = flowrun.load(folder / "spec.yaml")
    seeds: list[object] = []

    async def reply(request: AskModel) -> Reply:
        assert request.sampling["temperature"] == 0.5
        seeds.append(request.sampling.get("seed"))
        return Reply(content="it")

    model = ScriptedModel.from_function(reply)
    runner = Runner(backends=dict.fromkeys(flow.models, model), functions=PythonFunctions({}))
    result = asyncio.run(runner.run(flow.graph, {}, run_id="r", seed=seed))
    assert result.output == "done"
    return seeds


def test_each_request_of_a_run_with_a_seed_has_its_own(tmp_path: Path) -> None:
    seeds = seeds_of(tmp_path, 1)
    assert len(set(seeds)) == len(seeds) == 4
    assert seeds_of(tmp_path, 1) == seeds
    assert not set(seeds_of(tmp_path, 2)) & set(seeds)


def test_a_run_without_a_seed_has_that_of_the_spec(tmp_path: Path) -> None:
    assert seeds_of(tmp_path, None) == [7, 7, 7, 7]
