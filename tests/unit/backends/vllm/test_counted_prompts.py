"""``flowrun validate --tokenizer``, and the same at the start of an engine, by the small model's real tokenizer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowrun.backends.vllm.gguf import converted_folder
from flowrun.backends.vllm.model_files import default_cache_dir, find_package_file
from tests.conftest import SMALL_MODEL, SPECS

pytestmark = [pytest.mark.vllm, pytest.mark.usefixtures("needs_vllm")]

SPEC = """\
flowrun: v1
name: brief
version: 1.0.0
model:
  name: "NAME"
  chat_template: chat.jinja
  engine: {dtype: float32, enforce_eager: true, max_model_len: 64}
sampling: {temperature: 0, max_tokens: 16}
messages: [{role: system, content: "You answer in one short sentence, and never in more than that, whoever asks."}]
states:
  first: {type: chat, messages: [{role: user, content: "Hello, I am {{ run.id }}."}], next: second}
  second:
    type: chat
    sampling: {max_tokens: 30}
    messages: [{role: user, content: "LONG"}]
    next: done
  done: {type: end}
profiles:
  wide: {model: {engine: {max_model_len: 512}}}
  away: {model: {name: some/model-that-is-nowhere}}
  code: {model: {engine: {trust_remote_code: true}}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    name = SMALL_MODEL.name
    if not converted_folder(find_package_file(name.removeprefix("package:")), default_cache_dir()).is_dir():
        pytest.skip("the small model was not converted yet")
    (tmp_path / "chat.jinja").write_text((SPECS / "templates" / "chatml_tools.jinja").read_text())
    (tmp_path / "brief.yaml").write_text(SPEC.replace("NAME", name).replace("LONG", "word " * 40))
    return tmp_path


def flowrun(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flowrun", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "200"},
        timeout=120,
        check=False,
    )


def test_prompts_are_counted_by_the_models_own_tokenizer(folder: Path) -> None:
    checked = flowrun(folder, "validate", "brief.yaml", "--tokenizer", "--format", "json")
    (issue,) = json.loads(checked.stdout)
    assert (checked.returncode, issue["code"], issue["severity"]) == (1, "FR612", "error")
    assert issue["path"] == "states.second"
    begins = "what is the same in each prompt of state 'second', its messages and tools, is "
    length = int(issue["message"].removeprefix(begins).partition(" ")[0])
    assert length > 64
    assert checked.stderr.splitlines() == [
        "flowrun: the prompts of some/model-that-is-nowhere are not counted: it is not in the hub's cache on this "
        "machine, and nothing is fetched",
        f"flowrun: the prompts of {SMALL_MODEL.name} are not counted: with trust_remote_code its tokenizer may be a "
        "program, and a check runs none",
        f"the beginnings of 4 prompts counted; the fullest: state second, {length} of 64 tokens",
        "1 spec checked: 1 error, 0 warnings",
    ]
    begun = flowrun(folder, "brief.yaml", "-q")
    assert begun.returncode == 1
    assert begun.stderr == (
        f"flowrun: flow brief: {begins}{length} tokens long, and the context window of {SMALL_MODEL.name!r} has 64: "
        "shorten the messages, offer fewer tools, or raise engine.max_model_len\n"
    )
    assert flowrun(folder, "validate", "brief.yaml").returncode == 0


def test_tools_that_are_not_read_are_not_counted(folder: Path) -> None:
    refused = flowrun(folder, "validate", "brief.yaml", "--tokenizer", "--no-import")
    assert (refused.returncode, "--tokenizer counts the tools too" in refused.stderr) == (2, True)
