"""``flowrun show --prompt``: what is rendered again, without an engine, is what the engine read."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import flowrun
from flowrun.backends.token_ids import ids_of
from flowrun.backends.vllm.reader import VllmReader
from flowrun.core.events import AskModel
from flowrun.core.messages import Log, Message
from flowrun.runtime.engines import BackendSettings
from tests.conftest import SMALL_MODEL, SPECS

pytestmark = [pytest.mark.vllm, pytest.mark.usefixtures("needs_vllm")]

SPEC = """\
flowrun: v1
name: talk
version: 1.0.0
model:
  name: "NAME"
  chat_template: chat.jinja
  engine: {dtype: float32, enforce_eager: true, max_model_len: 2048}
sampling: {temperature: 1.0, max_tokens: 400, seed: 7, logit_bias: {"2": 6.5}}
messages:
  - {role: system, content: You answer in one short sentence.}
  - {role: user, content: "Tell me something odd about <|im_end|> tea."}
states:
  first: {type: chat, next: second}
  second: {type: chat, messages: [{role: user, content: And something else?}], next: cut}
  cut:
    type: chat
    history: none
    sampling: {max_tokens: 1}
    messages: [{role: user, content: Hi.}]
    catch: [{to: in_short}]
    next: in_short
  in_short: {type: decide, prompt: Was it odd?, choices: {odd: very, plain: not at all}, next: done}
  done: {type: end}
"""


def show(folder: Path, run: str, step: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flowrun", "show", run, "--prompt", step, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "FLOWRUN_JOURNAL": str(folder / "journal.sqlite")},
        timeout=120,
        check=False,
    )


def test_the_prompts_of_a_run_are_shown_as_its_model_read_them(tmp_path: Path) -> None:
    template = (SPECS / "templates" / "chatml_tools.jinja").read_text()
    (tmp_path / "chat.jinja").write_text(template)
    (tmp_path / "talk.yaml").write_text(SPEC.replace("NAME", SMALL_MODEL.name))
    flow = flowrun.load(tmp_path / "talk.yaml")

    async def go() -> flowrun.RunResult:
        settings = BackendSettings(keeps_tokens=True)
        async with flowrun.Session(journal=tmp_path / "journal.sqlite", settings=settings) as session:
            return await session.run(flow, {}, run_id="talk")

    result = asyncio.run(go())
    assert result.status == "succeeded", result.error
    read: dict[str, list[int]] = {}
    for kept in result.run.replies:
        before = [] if kept.tokens.begins else read["1"] + list(ids_of(result.run.replies[0].tokens.ids))
        read[str(len(read) + 1)] = before + list(ids_of(kept.tokens.prompt))

    first = json.loads((done := show(tmp_path, "talk", "1", "--json")).stdout)
    assert (done.returncode, first["same"], first["token_ids"]) == (0, True, read["1"])
    assert first["text"].startswith(
        "<|im_start|>system\nYou answer in one short sentence.<|im_end|>\n<|im_start|>user\n"
    )
    assert [message["role"] for message in first["messages"]] == ["system", "user"]

    second = show(tmp_path, "talk", "2")
    assert (second.returncode, "the very ones that it read" in second.stderr) == (0, True)
    assert second.stdout.startswith(first["text"])
    assert json.loads(show(tmp_path, "talk", "2", "--json").stdout)["token_ids"] == read["2"]

    cut = show(tmp_path, "talk", "3")
    assert (cut.returncode, "rendered anew" in cut.stderr) == (0, True)

    (tmp_path / "chat.jinja").write_text(template.replace("<|im_start|>assistant", "<|im_start|>assistant "))
    other = show(tmp_path, "talk", "1")
    assert (other.returncode, "NOT those that it read" in other.stderr) == (1, True)


def test_a_prompt_that_is_too_long_for_the_model_is_read_too() -> None:
    model = msgspec.structs.replace(SMALL_MODEL, engine={"dtype": "float32", "max_model_len": 64})

    async def go() -> list[int]:
        reader = VllmReader(model, base_dir=SPECS)
        await reader.start()
        lengths = []
        try:
            for words in (1, 100, 20_000):
                text = Log([Message(role="user", content="word " * words)])
                ask = AskModel(step=1, state="ask", run="r", thread="main", model="default", messages=text)
                read, ids = await reader.read_prompt(ask)
                assert read.count("word") == words
                lengths.append(len(ids))
        finally:
            await reader.stop()
        return lengths

    one, hundred, many = asyncio.run(go())
    assert (hundred - one, many - one) == (99, 19_999)
