"""LoRA adapters: small weights beside those of a model, of which each request uses one or none.

All adapters of an engine are loaded when it starts, each in a slot of its own, and one slot more stays empty: on CPUs,
vLLM 0.32 computes a request without an adapter with the last slot, whose weights are zero as long as nothing is in it.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from flowrun.backends.vllm.model_files import find_local_model, listing
from flowrun.errors import BackendError

CONFIG: Final = "adapter_config.json"
_RANKS: Final = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values of vLLM's engine argument ``max_lora_rank``."""


async def find_adapters(names: Iterable[str], *, base_dir: Path) -> dict[str, Path]:
    """Return the folder of each adapter; one of the hub is downloaded.

    Args:
        base_dir: the spec's folder; paths are relative to it.

    Raises:
        BackendError: there is no such adapter.
    """
    return {name: await _find(name, base_dir) for name in names}


async def _find(name: str, base_dir: Path) -> Path:
    try:
        folder = find_local_model(name, base_dir)
    except BackendError as exc:
        raise BackendError(f"model.adapter: {exc}") from exc
    if folder is None:
        folder = await asyncio.to_thread(_download, name)
    if not (folder / CONFIG).is_file():
        raise BackendError(f"model.adapter: {folder} holds no LoRA adapter, for it has no {CONFIG}; {listing(folder)}")
    return folder


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name))
    except Exception as exc:  # of the hub, of the network, of the disk
        raise BackendError(f"model.adapter: {name!r} cannot be had from the hub: {exc}") from exc


def adapter_arguments(folders: Sequence[Path]) -> dict[str, Any]:
    """Return the engine arguments for adapters; none without adapters.

    Raises:
        BackendError: the configuration of an adapter cannot be read.
    """
    if not folders:
        return {}
    highest = max(map(_rank_of, folders))
    rank = next((rank for rank in _RANKS if rank >= highest), highest)
    return {"enable_lora": True, "max_loras": len(folders) + 1, "max_lora_rank": rank}


def _rank_of(folder: Path) -> int:
    """Return the highest rank of an adapter's matrices."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        return max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise BackendError(f"model.adapter: {folder / CONFIG} is no configuration of a LoRA adapter: {exc}") from exc


def adapter_requests(folders: Mapping[str, Path]) -> dict[str, Any]:
    """Return adapters in vLLM's form, by their names. Their ids count from 1."""
    from vllm.lora.request import LoRARequest

    return {name: LoRARequest(name, number, str(folder)) for number, (name, folder) in enumerate(folders.items(), 1)}
