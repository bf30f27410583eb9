"""Writes a GGUF file as a Hugging Face folder: ``python -m flowrun.backends.vllm.gguf_convert FILE FOLDER``.

A program, so that its memory and its imports end with it. What it prints on stdout is for the user. transformers does
the work: it knows dozens of model families, and their tensors' names and orders.
"""

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

DIGITS_APART: Final = frozenset({"codeshell", "command-r", "exaone", "minerva-7b", "refact", "smollm", "starcoder"})
"""Values of ``tokenizer.ggml.pre`` that stand for GPT-2's rule after splitting every digit off, as in llama.cpp."""
GPT2_RULE: Final = frozenset({"", "default", "gpt-2", "gpt2", "granite-docling", "jais", "mpt", "olmo", "trillion"})
"""Values that stand for GPT-2's rule alone, which transformers falls back to."""


def convert(source: Path, target: Path) -> None:
    """Write the model's weights, config and tokenizer into ``target``."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    place = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    tokenizer = AutoTokenizer.from_pretrained(**place)
    mend_digits(tokenizer, pre_tokenizer_of(source))
    # Left quantized, the model could not be saved. float32 holds each quantized weight exactly, so vLLM rounds once, to
    # the dtype that the spec asks for: "auto" too reads such a checkpoint as half precision.
    model = AutoModelForCausalLM.from_pretrained(
        **place, quantization_config=GgufConfig(dequantize=True), dtype="float32"
    )
    target.mkdir(parents=True)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def pre_tokenizer_of(source: Path) -> str:
    """Give the name of the rule by which the file's tokenizer splits text into words, or an empty text."""
    from gguf import GGUFReader

    fields: Any = GGUFReader(source).fields
    if "tokenizer.ggml.pre" not in fields or fields["tokenizer.ggml.model"].contents() != "gpt2":
        return ""
    return str(fields["tokenizer.ggml.pre"].contents())


def mend_digits(tokenizer: Any, pre: str) -> None:
    """Give a tokenizer back the rule that transformers loses.

    It does not know the names in ``DIGITS_APART`` and takes GPT-2's rule for them, under which numbers become tokens
    that the model never saw in its training.
    """
    from tokenizers import pre_tokenizers

    if pre in DIGITS_APART:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    elif pre not in GPT2_RULE and pre not in rules_of_transformers():
        print(  # noqa: T201 - whoever started this process reads it
            f"the file's way of splitting text ({pre!r}) is not known, so the model may read some words wrongly; "
            "its Hugging Face folder would be safer"
        )


def rules_of_transformers() -> Collection[str]:
    """Give the values of ``tokenizer.ggml.pre`` that transformers itself has a rule for."""
    try:
        from transformers.integrations.gguf import gguf_tokenizer_mapping
    except ImportError:  # an inner table of transformers 5, which older ones lack
        return ()
    known: Collection[str] = gguf_tokenizer_mapping.GGUF_PRE_TOKENIZER_SPLITS
    return known


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
