"""Cassettes: a recorded reply is replayed for the same request; for an unrecorded request, the error shows the diff."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from flowrun.backends.scripted import ScriptedBackend, ScriptedReply
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply, Tokens, Usage
from flowrun.errors import BackendError, UsageError
from flowrun.functions.python import PythonFunctions
from flowrun.runtime.project import BoundModel, Project
from flowrun.runtime.runner import Runner
from flowrun.testing.cassettes import RecordingBackend, create_cassette, load_cassette
from flowrun.testing.load import load_suite
from flowrun.testing.readers import Reader
from flowrun.testing.session import SpecTestSession
from flowrun.testing.verdict import Verdict, render_problem
from tests.unit.testing.flows import SPEC, write_tests

ONE_TEST = """\
- name: replays
  cassette: talk.jsonl
  expect: {output: It is warm.}
"""
REPLIES = (
    Reply(content="It is wet.", text="It is wet.</s>", usage=Usage(completion_tokens=3)),
    Reply(content="It is warm.", text="It is warm.</s>", usage=Usage(completion_tokens=3)),
)


class Rendering(ScriptedBackend):
    """A backend that renders prompts itself, like the vLLM backend."""

    async def rendered_prompt(self, request: AskModel) -> str:
        own = sum(message.tokens is not None for message in request.messages)
        return f"{len(request.messages)} messages" + (f", {own} as the model wrote them" if own else "")


class FakeReader:
    """A reader whose content is the text before ``</s>``."""

    template = "{} messages"

    def __init__(self, bound: BoundModel) -> None:
        self.bound = bound

    async def start(self) -> None:
        if self.bound.model.name != "some-model":
            raise BackendError("there is no such model")

    async def rendered_prompt(self, request: AskModel) -> str:
        return self.template.format(len(request.messages))

    async def read_text(self, request: AskModel, written: Reply) -> Reply:
        text = (written.text or "").removesuffix("</s>")
        return Reply(content=text, text=written.text, finish_reason=written.finish_reason, usage=written.usage)

    async def stop(self) -> None:
        pass


def record(folder: Path, backend: ScriptedBackend) -> Path:
    """Record a run of the flow."""
    cassette = folder / "talk.jsonl"
    create_cassette(cassette)
    flow = Project().compile(folder / "talk.yaml")
    runner = Runner(
        backends={"default": RecordingBackend(backend, cassette)}, functions=PythonFunctions(flow.functions)
    )
    asyncio.run(runner.run(flow.graph, {}, run_id="recorded"))
    return cassette


def replay(file: Path, open_reader: Callable[[BoundModel], Reader] | None = None) -> list[Verdict]:
    """Run all tests of a file."""
    suite = load_suite(file)
    with SpecTestSession(open_reader=open_reader) as session:
        return [session.run(suite, case) for case in suite.cases]


def problems(verdict: Verdict) -> list[str]:
    return [line for problem in verdict.problems for line in render_problem(problem)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "talk.jsonl").touch()
    return write_tests(tmp_path, ONE_TEST)


@pytest.mark.parametrize("open_reader", [None, FakeReader], ids=["as-recorded", "parsed-again"])
@pytest.mark.parametrize("backend", [ScriptedBackend, Rendering], ids=["messages", "prompt"])
def test_a_recorded_run_is_replayed(
    file: Path, backend: type[ScriptedBackend], open_reader: Callable[[BoundModel], Reader] | None
) -> None:
    record(file.parent, backend(REPLIES))
    assert [(verdict.status, problems(verdict)) for verdict in replay(file, open_reader)] == [("passed", [])]


def test_a_line_is_a_reply_with_its_request(file: Path) -> None:
    first, second = record(file.parent, Rendering(REPLIES)).read_text().splitlines()
    line = json.loads(first)
    keys = {line.pop("key"), line.pop("prompt_key")}
    assert [len(key) for key in keys] == [64, 64]
    assert line == {
        "request": {
            "state": "ask",
            "messages": [{"role": "user", "content": "Say something about rain."}],
            "tools": [],
            "tool_choice": "auto",
            "sampling": {"temperature": 0.0},
            "response_format": None,
        },
        "reply": {
            "content": "It is wet.",
            "usage": {"prompt_tokens": 0, "completion_tokens": 3, "cached_tokens": 0, "rerendered": 0},
            "text": "It is wet.</s>",
        },
    }
    assert json.loads(second)["request"]["state"] == "ask_again"


DECIDING = """\
flowrun: v1
name: talk
version: 1.0.0
model: {name: some-model, chat_template: "{{ messages }}"}
states:
  pick: {type: decide, prompt: Which one?, choices: [left, right], next: done}
  done: {type: end, output: "{{ outputs.pick }}"}
"""
DECISION = Reply(probabilities={"left": 0.25, "right": 0.75}, mass=0.5)


@pytest.mark.parametrize("open_reader", [None, FakeReader], ids=["as-recorded", "parsed-again"])
def test_a_decision_is_recorded_and_replayed(
    tmp_path: Path, open_reader: Callable[[BoundModel], Reader] | None
) -> None:
    tests = """\
    - name: decides
      cassette: talk.jsonl
      expect: {output: {choice: right, probabilities: {left: 0.25, right: 0.75}, mass: 0.5}}
    """
    file = write_tests(tmp_path, tests, spec=DECIDING)
    (line,) = map(json.loads, record(tmp_path, Rendering([DECISION])).read_text().splitlines())
    assert line["request"]["labels"] == ["left", "right"]
    assert (line["reply"]["probabilities"], line["reply"]["mass"]) == ({"left": 0.25, "right": 0.75}, 0.5)
    assert [(verdict.status, problems(verdict)) for verdict in replay(file, open_reader)] == [("passed", [])]


def test_other_labels_are_another_request(tmp_path: Path) -> None:
    file = write_tests(tmp_path, ONE_TEST, spec=DECIDING)
    cassette = record(tmp_path, ScriptedBackend([DECISION]))
    (tmp_path / "talk.yaml").write_text(DECIDING.replace("right", "straight on"))
    (verdict,) = replay(file)
    assert problems(verdict) == [
        f"the cassette {cassette} holds no reply to what state 'pick' asks",
        "  its line 1 is the nearest; - recorded, + asked now",
        "      A. left",
        "  -   B. right",
        "  +   B. straight on",
        "      ",
        "    ...",
        "    tool_choice: auto",
        "  - labels: left, right",
        "  + labels: left, straight on",
        "  if the flow is right, record it anew with: flowrun SPEC --record FILE",
    ]


def test_a_recording_has_the_concurrency_of_its_backend(tmp_path: Path) -> None:
    class Narrow(ScriptedBackend):
        concurrency = 3

    assert RecordingBackend(Narrow(()), tmp_path / "talk.jsonl").concurrency == 3


def test_tokens_are_not_recorded_and_not_part_of_the_prompt_key(file: Path) -> None:
    tokens = Tokens(vocabulary=1, ids=b"\1\0\0\0", end=9, digest=7)
    replies = [msgspec.structs.replace(reply, tokens=tokens) for reply in REPLIES]
    with_tokens = record(file.parent, Rendering(replies)).read_bytes()
    assert with_tokens == record(file.parent, Rendering(REPLIES)).read_bytes()


def test_a_failure_is_recorded_and_replayed(file: Path) -> None:
    record(file.parent, ScriptedBackend([ScriptedReply(error="backend.unavailable", message="gone")]))
    file.write_text(file.read_text().replace("{output: It is warm.}", "{error: backend.unavailable, path: [ask]}"))
    assert [problems(verdict) for verdict in replay(file)] == [[]]


def test_an_unrecorded_request_is_compared_with_the_nearest(file: Path) -> None:
    cassette = record(file.parent, ScriptedBackend(REPLIES))
    (file.parent / "talk.yaml").write_text(SPEC.replace("More.", "Some more.").replace("0.0", "0.7"))
    (verdict,) = replay(file)
    assert problems(verdict) == [
        f"the cassette {cassette} holds no reply to what state 'ask' asks",
        "  its line 1 is the nearest; - recorded, + asked now",
        "    tool_choice: auto",
        "  - sampling.temperature: 0.0",
        "  + sampling.temperature: 0.7",
        "  if the flow is right, record it anew with: flowrun SPEC --record FILE",
    ]


def test_another_chat_template_is_another_request(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cassette = record(file.parent, Rendering(REPLIES))
    monkeypatch.setattr(FakeReader, "template", "<{} messages>")
    (verdict,) = replay(file, FakeReader)
    assert problems(verdict) == [
        f"the cassette {cassette} holds no reply to what state 'ask' asks",
        "  its line 1 has the same messages; the chat template or the tokenizer has changed",
        "  if the flow is right, record it anew with: flowrun SPEC --record FILE",
    ]


def test_leftover_replies_fail_the_test(file: Path) -> None:
    cassette = record(file.parent, ScriptedBackend(REPLIES))
    (file.parent / "talk.yaml").write_text(SPEC.replace("next: ask_again", "next: done").replace("More.", "x"))
    file.write_text(file.read_text().replace("It is warm.", "It is wet."))
    spec = file.parent / "talk.yaml"
    spec.write_text(
        spec.read_text().replace("  ask_again: {type: chat, messages: [{role: user, content: x}], next: done}\n", "")
    )
    (verdict,) = replay(file)
    assert problems(verdict) == ["1 recorded reply is left over", f"  {cassette}:2"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        pytest.param("{", "not a cassette's line (Input data was truncated): record it anew", id="no-json"),
        pytest.param(
            '{"key": "x"}',
            "not a cassette's line (Object missing required field `request`): record it anew",
            id="other-json",
        ),
    ],
)
def test_a_cassette_that_cannot_be_read_fails_the_test(file: Path, line: str, problem: str) -> None:
    cassette = file.parent / "talk.jsonl"
    cassette.write_text(line)
    (verdict,) = replay(file)
    assert problems(verdict) == [f"{cassette}:1: {problem}"]


def test_a_recording_overwrites_the_cassette(file: Path) -> None:
    record(file.parent, ScriptedBackend(REPLIES))
    cassette = record(file.parent, ScriptedBackend(REPLIES))
    assert [line.reply for line in load_cassette(cassette)] == list(REPLIES)


def test_a_recording_that_cannot_be_written_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the file cannot be written: No such file or directory"):
        create_cassette(tmp_path / "nowhere" / "talk.jsonl")


# --- raw text -----------------------------------------------------------------------------------------------------

RAW = """\
- name: raw
  replies: [{text: "It is wet.</s>"}, {text: "It is warm.</s>"}]
  expect: {output: It is warm.}
"""


def test_raw_text_is_parsed_by_the_reader_of_the_model(tmp_path: Path) -> None:
    (verdict,) = replay(write_tests(tmp_path, RAW), FakeReader)
    assert (verdict.status, problems(verdict)) == ("passed", [])


def test_raw_text_is_skipped_without_a_reader(tmp_path: Path) -> None:
    (verdict,) = replay(write_tests(tmp_path, RAW))
    assert (verdict.status, verdict.reason) == (
        "skipped",
        "its replies hold raw text, which only vLLM's parsers read, and vLLM is not installed",
    )


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        pytest.param(
            "{backend: openai, name: some-model, base_url: http://127.0.0.1:1/v1}",
            "raw text is read by vLLM's parsers, and the model 'some-model' runs by openai: "
            "give content and tool_calls in place of text",
            id="server",
        ),
        pytest.param("{name: another-model}", "there is no such model", id="no-model"),
    ],
)
def test_raw_text_of_a_model_without_a_reader_fails_the_test(tmp_path: Path, model: str, problem: str) -> None:
    lines = [f"model: {model}" if line.startswith("model:") else line for line in SPEC.splitlines()]
    (verdict,) = replay(write_tests(tmp_path, RAW, spec="\n".join(lines)), FakeReader)
    assert (verdict.status, problems(verdict)) == ("failed", [problem])
