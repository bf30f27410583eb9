"""Raw text in tests and cassettes is parsed by the real parsers of the model family, without an engine."""

import asyncio
from pathlib import Path

import pytest

from flowrun.backends.scripted import ScriptedBackend
from flowrun.backends.vllm.reader import VllmReader
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply, Usage
from flowrun.core.ports import OnText
from flowrun.functions.python import PythonFunctions
from flowrun.runtime.project import Project
from flowrun.runtime.runner import Runner
from flowrun.testing.cassettes import RecordingBackend, create_cassette
from flowrun.testing.load import load_suite
from flowrun.testing.session import SpecTestSession
from flowrun.testing.verdict import Verdict
from tests.conftest import SMALL_MODEL, SPECS

TESTS = """\
flow: {flow}
tests:
  - name: a call and an answer
    replies:
      - text: |-
          <tool_call>
          {{"name": "get_current_weather", "arguments": {{"city": "Dallas", "state": "TX", "unit": "fahrenheit"}}}}
          </tool_call>
      - text: It is 85 degrees.
    expect:
      path: [ask, look_up, ask, answered]
      calls: [{{name: get_current_weather, arguments: {{city: Dallas, state: TX, unit: fahrenheit}}}}]
      output: {{answer: It is 85 degrees.}}
  - name: an invalid call
    replies: [{{text: '<tool_call>{{"name": get_current_weather}}</tool_call>'}}]
    expect: {{error: model.invalid_call}}
  - name: half a call
    replies: [{{text: '<tool_call>{{"name": "get_current_weather", "argu', finish_reason: length}}]
    expect: {{error: model.truncated}}
"""


CALL = """\
<tool_call>
{"name": "get_current_weather", "arguments": {"city": "Dallas", "state": "TX", "unit": "fahrenheit"}}
</tool_call>"""
CASSETTE = """\
flow: {flow}
tests:
  - name: replays
    cassette: weather.cassette.jsonl
    expect: {{path: [ask, look_up, ask, answered], output: {{answer: It is 85 degrees.}}}}
"""


class ScriptedVllmBackend(ScriptedBackend):
    """The prompts and parsers of the small model, with scripted texts."""

    def __init__(self, *texts: str) -> None:
        super().__init__([Reply(text=text, usage=Usage(completion_tokens=9)) for text in texts])
        self._reader = VllmReader(SMALL_MODEL, base_dir=SPECS)

    async def start(self) -> None:
        await self._reader.start()

    async def stop(self) -> None:
        await self._reader.stop()

    async def reply(self, request: AskModel, *, on_text: OnText | None = None) -> Reply:
        return await self._reader.read_text(request, await super().reply(request))

    async def rendered_prompt(self, request: AskModel) -> str:
        return await self._reader.rendered_prompt(request)


def run_file(file: Path) -> list[Verdict]:
    suite = load_suite(file)
    with SpecTestSession(open_reader=lambda bound: VllmReader(bound.model, base_dir=bound.folder)) as session:
        return [session.run(suite, case) for case in suite.cases]


@pytest.mark.vllm
def test_raw_text_is_parsed_by_the_real_parser(needs_vllm: None, tmp_path: Path) -> None:
    file = tmp_path / "weather.test.yaml"
    file.write_text(TESTS.format(flow=SPECS / "weather.yaml"))
    assert [(verdict.name, verdict.status, verdict.problems) for verdict in run_file(file)] == [
        ("a call and an answer", "passed", ()),
        ("an invalid call", "passed", ()),
        ("half a call", "passed", ()),
    ]


@pytest.mark.vllm
def test_a_recording_is_replayed_by_its_prompts_and_the_real_parser(needs_vllm: None, tmp_path: Path) -> None:
    cassette = tmp_path / "weather.cassette.jsonl"

    async def record() -> None:
        flow = Project().compile(SPECS / "weather.yaml")
        backend = RecordingBackend(ScriptedVllmBackend(CALL, "It is 85 degrees."), cassette)
        await backend.start()
        await Runner(backends={"default": backend}, functions=PythonFunctions(flow.functions)).run(
            flow.graph, {}, run_id="recorded"
        )
        await backend.stop()

    create_cassette(cassette)
    asyncio.run(record())
    # The recorded content is not used: the recorded text is parsed again.
    cassette.write_text(
        cassette.read_text().replace('"content":"It is 85 degrees."', '"content":"It is 58 degrees."', 1)
    )
    file = tmp_path / "weather.test.yaml"
    file.write_text(CASSETTE.format(flow=SPECS / "weather.yaml"))
    assert [(verdict.status, verdict.problems) for verdict in run_file(file)] == [("passed", ())]
