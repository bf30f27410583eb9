"""A tiny model with random weights in Mistral's own file format, for what only Mistral's tokenizer does."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

DIM, HIDDEN, HEADS, HEAD_DIM, LAYERS, VOCABULARY = 64, 128, 2, 32, 1, 32768


def write_tiny_mistral(folder: Path) -> Path:
    """Write config, weights and mistral_common's own v3 tokenizer into ``folder``, 17 MB; give the folder."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    params = {
        "dim": DIM,
        "n_layers": LAYERS,
        "head_dim": HEAD_DIM,
        "hidden_dim": HIDDEN,
        "n_heads": HEADS,
        "n_kv_heads": HEADS,
        "norm_eps": 1e-5,
        "vocab_size": VOCABULARY,
        "rope_theta": 1000000.0,
        "max_position_embeddings": 1024,
    }
    (folder / "params.json").write_text(json.dumps(params))
    shapes = {
        "tok_embeddings.weight": (VOCABULARY, DIM),
        "output.weight": (VOCABULARY, DIM),
        "norm.weight": (DIM,),
        **{
            f"layers.{layer}.{name}.weight": shape
            for layer in range(LAYERS)
            for name, shape in {
                "attention_norm": (DIM,),
                "ffn_norm": (DIM,),
                "attention.wq": (HEADS * HEAD_DIM, DIM),
                "attention.wk": (HEADS * HEAD_DIM, DIM),
                "attention.wv": (HEADS * HEAD_DIM, DIM),
                "attention.wo": (DIM, HEADS * HEAD_DIM),
                "feed_forward.w1": (HIDDEN, DIM),
                "feed_forward.w2": (DIM, HIDDEN),
                "feed_forward.w3": (HIDDEN, DIM),
            }.items()
        },
    }
    generator = torch.Generator().manual_seed(0)
    weights = {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}
    save_file(weights, folder / "consolidated.safetensors")
    spec = find_spec("mistral_common")
    assert spec is not None
    assert spec.origin is not None
    tokenizers = Path(spec.origin).parent / "data"
    shutil.copy(tokenizers / "mistral_instruct_tokenizer_240323.model.v3", folder / "tokenizer.model.v3")
    return folder
