"""FR612, with figures in place of a tokenizer; and the same at the start of an engine."""

import asyncio
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

import pytest

import flowrun
from flowrun.backends.scripted import ScriptedBackend
from flowrun.backends.wrapper import PromptSize
from flowrun.core.events import AskModel
from flowrun.core.fixed_prompts import MeasuredPrompt, longest_reply
from flowrun.core.messages import Reply
from flowrun.errors import BackendError
from flowrun.runtime.project import BoundModel, Project
from flowrun.runtime.prompt_counter import PromptCounter

SPEC = """\
flowrun: v1
name: long
version: 1.0.0
model: {name: some/model}
messages: [{role: user, content: Hello.}]
states:
  one: {type: chat, sampling: {max_tokens: 100}, next: two}
  two: {type: flow, flow: "#part", next: done}
  done: {type: end}
flows:
  part:
    messages: [{role: user, content: "A long part."}]
    states: {three: {type: chat, next: end}, end: {type: end}}
profiles:
  other: {model: {name: some/other}}
"""
LEAD = "what is the same in each prompt of state"
REMEDY = "shorten the messages, offer fewer tools, or raise engine.max_model_len"


class Lengths:
    """Gives lengths by the name of the state, in place of a ``PromptCounter``."""

    def __init__(self, window: Mapping[str, int], **lengths: int) -> None:
        self.window = window
        self.lengths = lengths

    def measure(self, models: Mapping[str, BoundModel], requests: Iterable[AskModel]) -> list[MeasuredPrompt]:
        return [
            MeasuredPrompt(one.state, name, self.lengths[one.state], self.window[name], longest_reply(one))
            for one in requests
            for name in [models[one.model].model.name]
        ]


def issues(path: Path, counter: Lengths) -> list[tuple[str, str, str, str]]:
    (path / "long.yaml").write_text(SPEC)
    found = Project().check_all([path / "long.yaml"], counter=cast("PromptCounter", counter))
    return [(one.severity, ".".join(map(str, one.path)), one.message, one.remedy) for one in found]


def test_a_prompt_that_fills_the_window_is_an_error_and_one_that_nearly_does_a_warning(tmp_path: Path) -> None:
    window = {"some/model": 1000, "some/other": 1000}
    assert issues(tmp_path, Lengths(window, one=901, three=1000)) == [
        (
            "warning",
            "states.one",
            f"{LEAD} 'one', its messages and tools, is 901 tokens long, and the context window of 'some/model' has "
            "1,000, which leaves 99 for all else and the reply, for which max_tokens is 100",
            REMEDY,
        ),
        (
            "error",
            "flows.part.states.three",
            f"{LEAD} 'three', its messages and tools, is 1,000 tokens long, and the context window of 'some/model' "
            "has 1,000",
            REMEDY,
        ),
    ]


@pytest.mark.parametrize(
    ("three", "severities"), [(936, []), (937, ["warning"]), (999, ["warning"]), (1000, ["error"])]
)
def test_a_reply_without_max_tokens_needs_some_room_too(tmp_path: Path, three: int, severities: list[str]) -> None:
    window = {"some/model": 1000, "some/other": 1000}
    assert [one[0] for one in issues(tmp_path, Lengths(window, one=1, three=three))] == severities


def test_the_window_of_each_profile_counts(tmp_path: Path) -> None:
    found = issues(tmp_path, Lengths({"some/model": 1000, "some/other": 500}, one=500, three=1))
    assert [(severity, message.partition(":")[0]) for severity, _, message, _ in found] == [
        ("error", "with the profile 'other'")
    ]


class Measuring(ScriptedBackend):
    """A backend that knows its context window."""

    def __init__(self, window: int) -> None:
        super().__init__([Reply(content="Yes.")] * 2)
        self.window = window

    async def measure_prompt(self, request: AskModel) -> PromptSize:
        return PromptSize(100 if request.flow == "part" else 50, self.window)


def test_an_engine_whose_window_is_too_small_is_told_before_the_first_run(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text(SPEC)
    flow = flowrun.load(tmp_path / "long.yaml")

    async def go(window: int) -> str:
        async with flowrun.Session() as session:
            return (await session.run(flow.with_model("default", Measuring(window)), {})).status

    assert asyncio.run(go(101)) == "succeeded"
    with pytest.raises(BackendError) as raised:
        asyncio.run(go(100))
    assert str(raised.value) == (
        f"flow part: {LEAD} 'three', its messages and tools, is 100 tokens long, and the context window of "
        f"'some/model' has 100: {REMEDY}"
    )
