"""LoRA adapters: models that differ in their adapter only share one engine, and each replies by its own."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

import flowrun
from flowrun.backends.vllm.adapters import adapter_arguments, find_adapters
from flowrun.backends.vllm.backend import VllmBackend
from flowrun.backends.vllm.model_files import find_model
from flowrun.errors import BackendError
from tests.conftest import SMALL_MODEL, SPECS

NAME = SMALL_MODEL.name
MODEL = f'name: "{NAME}", engine: {{dtype: float32, max_model_len: 512, max_num_seqs: 4}}'
SPEC = f"""\
flowrun: v1
name: adapters
version: 1.0.0
models:
  default: {{{MODEL}}}
  first: {{{MODEL}, adapter: ./first}}
  second: {{{MODEL}, adapter: ./second}}
sampling: {{temperature: 0, max_tokens: 60}}
profiles: {{plain: {{models: {{first: {{adapter: null}}, second: {{adapter: null}}}}}}}}
messages: [{{role: user, content: Who are you?}}]
threads: {{first: [{{role: user, content: Who are you?}}], second: [{{role: user, content: Who are you?}}]}}
states:
  plain: {{type: chat, response_format: &form {{type: regex, pattern: '[a-z ]{{16}}'}}, next: first}}
  first: {{type: chat, model: first, thread: first, response_format: *form, next: second}}
  second: {{type: chat, model: second, thread: second, response_format: *form, next: done}}
  done:
    type: end
    output:
      plain: "{{{{ outputs.plain.content }}}}"
      first: "{{{{ outputs.first.content }}}}"
      second: "{{{{ outputs.second.content }}}}"
"""


def write_adapters(folder: Path, model: str) -> None:
    """Write two LoRA adapters of random weights beside a spec, by the library that trains adapters."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(
        r=4, lora_alpha=32, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False
    )
    for seed, name in enumerate(("first", "second")):
        torch.manual_seed(seed)
        weights: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
        get_peft_model(weights, config).save_pretrained(folder / name)


@pytest.mark.vllm
def test_models_that_differ_in_their_adapter_share_one_engine_and_reply_by_their_own(
    needs_vllm: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    write_adapters(tmp_path, asyncio.run(find_model(SMALL_MODEL.name, base_dir=SPECS)))
    (tmp_path / "spec.yaml").write_text(SPEC)
    started: list[VllmBackend] = []
    start = VllmBackend.start

    async def noted(self: VllmBackend) -> None:
        started.append(self)
        await start(self)

    monkeypatch.setattr(VllmBackend, "start", noted)
    with flowrun.load(tmp_path / "spec.yaml") as flow:
        together = flow.run().raise_for_status().output
    assert len(started) == 1
    assert len({together["plain"], together["first"], together["second"]}) == 3
    with flowrun.load(tmp_path / "spec.yaml", profile="plain") as flow:
        alone = flow.run().raise_for_status().output
    assert alone == dict.fromkeys(("plain", "first", "second"), together["plain"])


def test_the_engine_has_a_slot_more_than_adapters(tmp_path: Path) -> None:
    for name, config in (("a", {"r": 4}), ("b", {"r": 8, "rank_pattern": {"q_proj": 20}})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(config))
    assert adapter_arguments([]) == {}
    assert adapter_arguments([tmp_path / "a"]) == {"enable_lora": True, "max_loras": 2, "max_lora_rank": 8}
    both = [tmp_path / "a", tmp_path / "b"]
    assert adapter_arguments(both) == {"enable_lora": True, "max_loras": 3, "max_lora_rank": 32}


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("./missing", "model.adapter: model not found: there is no "),
        ("./empty", "holds no LoRA adapter, for it has no adapter_config.json"),
    ],
)
def test_a_folder_that_is_no_adapter(tmp_path: Path, name: str, error: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BackendError, match=error):
        asyncio.run(find_adapters([name], base_dir=tmp_path))


def test_an_adapter_without_a_rank(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BackendError, match="is no configuration of a LoRA adapter: 'r'"):
        adapter_arguments([tmp_path])
