"""What the parsers of five families read of the texts in ``data/families.yaml``, by the vLLM that is imported here.

``python -m tests.vllm_families FOLDER`` prints it as JSON; models without weights are written into the folder. Another
vLLM is read by a process whose path begins with its source. See ``tests/readers/test_vllm_versions.py``.
"""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import msgspec
import yaml

from flowrun.backends.text_pieces import TextPieces
from flowrun.backends.vllm.chat import VllmChat
from flowrun.backends.vllm.contract import InstalledVllm, faults_of_vllm
from flowrun.backends.vllm.names import reasoning_parsers, tool_call_parsers
from flowrun.backends.vllm.reader import VllmReader
from flowrun.backends.vllm.written_text import WrittenText
from flowrun.core.events import AskModel, ToolDeclaration
from flowrun.core.messages import Log, Message, Reply
from flowrun.spec.model import Model
from tests.tiny_mistral import write_tiny_mistral
from tests.unit.checks.write_vllm_names import engine_types, sampling_types

FAMILIES: Final = Path(__file__).parent / "data" / "families.yaml"
EXPECTED: Final = FAMILIES.with_name("families.expected.json")

_SPECIAL: Final = ("<|im_start|>", "<|im_end|>")
_MARKS: Final = (
    *("<tool_call>", "</tool_call>", "<|python_tag|>", "<think>", "</think>"),
    *("<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "<|user|>", "<|assistant|>", "<|observation|>"),
)
_TEMPLATE: Final = """\
{%- for m in messages -%}
{{ '<|im_start|>' + m.role + '\\n' + (m.content or '') + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if tools -%}{{ tools | tojson }}{%- endif -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"""
_LOOK: Final = ToolDeclaration(
    name="look",
    description="Look at the weather.",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
)


def write_tiny_llama(folder: Path) -> Path:
    """Write the configuration of a llama, and a tokenizer of bytes with the marks of all families; no weights."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in _SPECIAL])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in _MARKS])
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    ends = {"eos_token": _SPECIAL[1], "pad_token": _SPECIAL[1]}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": _TEMPLATE, **ends}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "num_key_value_heads": 2,
        "vocab_size": 512,
        "max_position_embeddings": 4096,
        "eos_token_id": len(alphabet) + 1,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def read_apart(folder: Path, source: Path | None = None) -> dict[str, Any]:
    """Return what ``read_families`` returns in a process of its own, with the version of vLLM.

    Args:
        source: the folder of another vLLM than the installed one, which needs no more than its Python files here.
    """
    path = [*([] if source is None else [str(source)]), *sys.path]
    environ = {"PYTHONPATH": os.pathsep.join(filter(None, path)), "VLLM_TARGET_DEVICE": "cpu", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.vllm_families", str(folder)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, **environ},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def read_families(folder: Path) -> dict[str, Any]:
    """Return what is read of each text, by family; what the table of internals lacks; the names of settings."""
    llama, mistral = write_tiny_llama(folder / "llama"), write_tiny_mistral(folder / "mistral")
    formats = {"tokenizer_mode": "mistral", "config_format": "mistral", "load_format": "mistral"}
    found: dict[str, Any] = {}
    for family, cases in yaml.safe_load(FAMILIES.read_text(encoding="utf-8")).items():
        model = Model(
            name=str(mistral if family == "mistral" else llama),
            engine={"dtype": "float32", "max_model_len": 1024, **(formats if family == "mistral" else {})},
            tool_call_parser=family,
            reasoning_parser="glm45" if family == "glm47" else None,
        )
        found[family] = asyncio.run(_read(model, folder, cases))
    names = {
        "sampling": sorted(sampling_types()),
        "engine": engine_types(),
        "tool_call_parsers": sorted(tool_call_parsers()),
        "reasoning_parsers": sorted(reasoning_parsers()),
    }
    return {"faults": faults_of_vllm(InstalledVllm(imports=True)), "read": found, "names": names}


async def _read(model: Model, folder: Path, cases: list[dict[str, str]]) -> list[dict[str, Any]]:
    reader = VllmReader(model, base_dir=folder)
    await reader.start()
    try:
        return [await _read_case(reader, case["text"], case.get("choice", "auto")) for case in cases]
    finally:
        await reader.stop()


async def _read_case(reader: VllmReader, text: str, choice: str) -> dict[str, Any]:
    ask = AskModel(
        step=1,
        state="ask",
        run="r",
        thread="main",
        model="default",
        messages=Log([Message(role="user", content="Is it warm?")]),
        tools=(_LOOK,),
        tool_choice=choice,
    )
    reply = await reader.read_text(ask, Reply(text=text))
    chat = reader._started()
    rendered = await chat.render(ask)
    outputs = rendered.sampling.structured_outputs
    kinds = ("json", "structural_tag", "regex", "choice", "grammar", "json_object")
    return {
        "text": text,
        "choice": choice,
        "content": reply.content,
        "reasoning": reply.reasoning,
        "calls": [[call.name, call.arguments] for call in reply.tool_calls],
        "finish_reason": reply.finish_reason,
        "invalid_call": reply.invalid_call,
        "pieces": _pieces(chat, rendered, text),
        "grammar": next((kind for kind in kinds if getattr(outputs, kind, None)), None),
        "skip_special_tokens": rendered.sampling.skip_special_tokens,
    }


def _pieces(chat: VllmChat, rendered: Any, text: str) -> str:
    """Return the content that is read while the text is written, seven characters at once."""
    written: list[str] = []
    pieces = TextPieces(lambda piece: written.append(piece) if piece is not None else written.clear())
    reading = WrittenText(pieces, parser=chat.parser_of(rendered), request=rendered.request, prompt=rendered.token_ids)
    for end in [*range(7, len(text), 7), len(text)]:
        ids = chat._prompt_cache.tokenize(text[:end])
        ended = "stop" if end == len(text) else None
        completion = SimpleNamespace(text=text[:end], token_ids=ids, finish_reason=ended)
        reading.receive(SimpleNamespace(outputs=[completion]))
    return "".join(written)


if __name__ == "__main__":
    import vllm

    result = {"version": vllm.__version__, **read_families(Path(sys.argv[1]))}
    print(json.dumps(msgspec.to_builtins(result), ensure_ascii=False))
