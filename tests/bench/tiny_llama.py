"""A tiny model made on the spot, whose engine step is cheap beside what tools take: the regime of a GPU on any machine.

Its weights are random. Its tokens are the printable characters, so what it says becomes the same tokens when it is read
again, and every mode of holding a conversation reads the same prompts.
"""

import string
from pathlib import Path

SPECIAL = ("<|unknown|>", "<|im_start|>", "<|im_end|>")
CHARACTERS = string.ascii_letters + string.digits + string.punctuation + " \n"
HIDDEN, HEADS, HEAD_DIM, LAYERS, FEED_FORWARD = 64, 2, 32, 1, 128


def write_tiny_llama(folder: Path) -> Path:
    """Write a model in the form of Hugging Face into ``folder``, and return the folder."""
    import torch
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokens = [*SPECIAL, *CHARACTERS]
    tokenizer = Tokenizer(models.WordLevel({token: number for number, token in enumerate(tokens)}, SPECIAL[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=SPECIAL[0], eos_token=SPECIAL[2])
    fast.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=HIDDEN,
        intermediate_size=FEED_FORWARD,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        head_dim=HEAD_DIM,
        max_position_embeddings=2048,
        bos_token_id=None,
        eos_token_id=SPECIAL.index("<|im_end|>"),
        pad_token_id=None,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.5)
        model.lm_head.weight[: len(SPECIAL)] = 0.0  # it says characters only, until its end is forced
    model.save_pretrained(folder)
    return folder
