"""Converts a GGUF file to a Hugging Face folder: ``python -m flowrun.backends.vllm.gguf_convert FILE FOLDER``.

A program of its own, so that its memory and its imports end with it. Its stdout is shown to the user. transformers does
the conversion: it knows the names and orders of the tensors of dozens of model families.
"""

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

DIGITS_APART: Final = frozenset({"codeshell", "command-r", "exaone", "minerva-7b", "refact", "smollm", "starcoder"})
"""Values of ``tokenizer.ggml.pre`` for GPT-2's rule after each digit is split off, as in llama.cpp."""
GPT2_RULE: Final = frozenset({"", "default", "gpt-2", "gpt2", "granite-docling", "jais", "mpt", "olmo", "trillion"})
"""Values for GPT-2's rule alone, which is the default of transformers."""


def convert(source: Path, target: Path) -> None:
    """Write the model's weights, config and tokenizer into ``target``."""
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    location = {"pretrained_model_name_or_path": str(source.parent), "gguf_file": source.name}
    tokenizer = AutoTokenizer.from_pretrained(**location)
    restore_pre_tokenizer(tokenizer, pre_tokenizer_of(source))
    # A quantized model cannot be saved. float32 holds each quantized weight exactly, so vLLM rounds only once, to the
    # dtype of the spec: "auto" also loads such a checkpoint in half precision.
    model = AutoModelForCausalLM.from_pretrained(
        **location, quantization_config=GgufConfig(dequantize=True), dtype="float32"
    )
    target.mkdir(parents=True)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def pre_tokenizer_of(source: Path) -> str:
    """Return the name of the rule by which the file's tokenizer splits text into words, or an empty text."""
    from gguf import GGUFReader

    fields: Any = GGUFReader(source).fields
    if "tokenizer.ggml.pre" not in fields or fields["tokenizer.ggml.model"].contents() != "gpt2":
        return ""
    return str(fields["tokenizer.ggml.pre"].contents())


def restore_pre_tokenizer(tokenizer: Any, pre: str) -> None:
    """Restore the file's rule for splitting numbers, where transformers has replaced it by its default rule.

    transformers does not know the names in ``DIGITS_APART`` and uses GPT-2's rule for them, under which numbers become
    tokens that did not occur in the model's training.

    Args:
        pre: the name of the file's rule.
    """
    from tokenizers import pre_tokenizers

    if pre in DIGITS_APART:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    elif pre not in GPT2_RULE and pre not in rules_of_transformers():
        print(  # noqa: T201 - the parent process reads it
            f"the file's way of splitting text ({pre!r}) is not known, so the model may read some words wrongly; "
            "its Hugging Face folder would be safer"
        )


def rules_of_transformers() -> Collection[str]:
    """Return the values of ``tokenizer.ggml.pre`` for which transformers has a rule."""
    try:
        from transformers.integrations.gguf import gguf_tokenizer_mapping
    except ImportError:  # a private table of transformers 5, which older versions lack
        return ()
    known: Collection[str] = gguf_tokenizer_mapping.GGUF_PRE_TOKENIZER_SPLITS
    return known


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
