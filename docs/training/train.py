"""Trains a LoRA adapter on the rows of ``flowrun export --to trl``, by TRL's SFTTrainer and peft.

Nothing is tokenized here: the ids of a row are those that the model read and wrote, and its mask says which it wrote.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
from datasets import Dataset, load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
from trl import SFTConfig, SFTTrainer

COLUMNS: Final = ("input_ids", "assistant_masks")
PROJECTIONS: Final = ("q_proj", "k_proj", "v_proj", "o_proj")
"""The layers that get an adapter: those of attention. On CPUs, vLLM 0.32 takes long for each, and for each rank."""


def main() -> None:
    """Train an adapter as the command line says."""
    args = parse_arguments()
    rows = load_rows(args.rows)
    model, tokenizer = load_model(args.model)
    lora = LoraConfig(r=args.rank, lora_alpha=2 * args.rank, target_modules=list(PROJECTIONS), task_type="CAUSAL_LM")
    trainer = SFTTrainer(model, args=settings(args), train_dataset=rows, processing_class=tokenizer, peft_config=lora)
    check_masks(rows, trainer)
    trainer.train()
    trainer.model.save_pretrained(args.output, save_embedding_layers=False)  # vLLM wants none, and they are as before


def parse_arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path, help="what flowrun export --to trl wrote: .jsonl or .parquet")
    parser.add_argument("--model", required=True, help="the name of the model in the spec, of weights that can be read")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the folder of the adapter")
    parser.add_argument("--epochs", type=float, default=2, help="how often each row is read")
    parser.add_argument("--steps", type=int, default=-1, help="stop after so many steps")
    parser.add_argument("--rank", type=int, default=8, help="of the adapter's matrices")
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    return parser.parse_args()


def load_rows(file: Path) -> Dataset:
    """Return the tokens and masks of the rows, without the columns that say where they come from."""
    form = "parquet" if file.suffix.lower() == ".parquet" else "json"
    rows = load_dataset(form, data_files=str(file), split="train")
    if missing := set(COLUMNS).difference(rows.column_names):
        sys.exit(f"{file} has no {', '.join(sorted(missing))}: export results that were made with --tokens")
    return rows.select_columns(list(COLUMNS))


def load_model(name: str) -> tuple[Any, Any]:
    """Return a model and its tokenizer by a name as in specs: a hub id, a folder, a GGUF file, a package's file.

    A GGUF file is dequantized to float32, as flowrun does for vLLM: both have the same weights.
    """
    file = file_of(name)
    if not file.lower().endswith(".gguf"):
        return AutoModelForCausalLM.from_pretrained(file, dtype="auto"), AutoTokenizer.from_pretrained(file)
    place = {"pretrained_model_name_or_path": str(Path(file).parent), "gguf_file": Path(file).name}
    weights = AutoModelForCausalLM.from_pretrained(
        **place, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
    )
    weights.name_or_path = name  # the adapter says what it belongs to
    return weights, AutoTokenizer.from_pretrained(**place)


def file_of(name: str) -> str:
    """Return the path of a package's file; any other name as it is."""
    if not name.startswith("package:"):
        return name
    package, _, file = name.removeprefix("package:").partition("/")
    found = find_spec(package)
    if found is None or found.origin is None:
        sys.exit(f"{name}: there is no package {package} here")
    return str(Path(found.origin).with_name(file))


def settings(args: argparse.Namespace) -> SFTConfig:
    """Return how to train: on whole rows, in bfloat16 on a GPU only, with a line of figures each step."""
    gpu = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(args.output),
        num_train_epochs=args.epochs,
        max_steps=args.steps,
        learning_rate=args.learning_rate,
        per_device_train_batch_size=4,
        max_length=None,  # by default TRL cuts rows at 1024 tokens: first what the model wrote last
        use_cpu=not gpu,
        bf16=gpu,
        gradient_checkpointing=gpu,  # saves memory for time, of which a CPU has less
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        seed=0,
    )


def check_masks(rows: Dataset, trainer: SFTTrainer) -> None:
    """Raise if the trainer learns from other tokens than the model wrote."""
    batch = trainer.data_collator([trainer.train_dataset[0]])
    learned = (batch["labels"][0] != -100).int().tolist()
    if learned != rows[0]["assistant_masks"]:
        raise ValueError("this version of TRL does not train on assistant_masks: install the pinned one")


if __name__ == "__main__":
    main()
