"""Converts a GGUF file, once, into a folder that vLLM can load. A folder under its final name is always complete.

vLLM loads GGUF only with kernels for NVIDIA's GPUs. The folder is named after a digest of the file and the version of
the converter, so a changed file or a new converter creates another one.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from flowrun.backends.vllm.log_scan import error_line
from flowrun.errors import BackendError

CONVERTER = 1
"""The version of ``gguf_convert``'s output; to be raised with each change of it."""
_MAGIC = b"GGUF"
_SCRATCH = ".converting-"
_DAY = 86_400.0


def is_gguf(path: Path) -> bool:
    """Return whether a file is GGUF by its first bytes, whatever its name."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


async def convert_gguf(
    source: Path,
    *,
    cache_dir: Path,
    progress: Callable[[str], None],
    note: Callable[[str], None] = lambda message: None,
) -> Path:
    """Return the Hugging Face folder of a GGUF file, converted now if the cache does not hold it.

    Several processes may convert at once; the first to finish wins. Cancelling ends the conversion.

    Args:
        progress: called when a conversion begins.
        note: called with the notes of the conversion.

    Raises:
        BackendError: the file cannot be converted, or the cache cannot be written.
    """
    target = await asyncio.to_thread(converted_folder, source, cache_dir)
    if target.is_dir():
        return target
    progress(f"converting {source.name}, once")
    try:
        await asyncio.to_thread(prepare, cache_dir, now=time.time())
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=cache_dir, ignore_cleanup_errors=True) as scratch:
            converted = Path(scratch) / "model"
            await _run_converter(source, converted, note)
            await asyncio.to_thread(publish, converted, target)
    except OSError as exc:
        raise BackendError(f"cannot keep the converted model in {cache_dir}: {exc}") from exc
    return target


def converted_folder(source: Path, cache_dir: Path) -> Path:
    """Return the folder that a GGUF file is, or will be, converted into."""
    return cache_dir / f"{digest_of(source)}-{CONVERTER}"


def digest_of(source: Path) -> str:
    """Return the first 32 hexadecimal digits of a file's SHA-256."""
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]


def publish(made: Path, target: Path) -> None:
    """Rename a finished folder to its final name, atomically; a folder of another process stays."""
    for file in made.iterdir():
        with file.open("rb") as written:
            os.fsync(written.fileno())  # otherwise a power cut could leave a folder of empty files
    try:
        made.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def prepare(cache_dir: Path, *, now: float) -> None:
    """Create the cache's folder, and remove the files of conversions that were killed more than a day ago."""
    cache_dir.mkdir(parents=True, exist_ok=True)
    for scratch in cache_dir.glob(f"{_SCRATCH}*"):
        with contextlib.suppress(OSError):
            if now - scratch.stat().st_mtime > _DAY:
                shutil.rmtree(scratch, ignore_errors=True)


async def _run_converter(source: Path, target: Path, note: Callable[[str], None]) -> None:
    # A process of its own: it frees gigabytes of weights when it ends, and this process, which forks the engine later,
    # does not hold its imports. A session of its own, so that Ctrl-C ends it only through this process.
    converter = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "flowrun.backends.vllm.gguf_convert", str(source), str(target)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"},
    )
    try:
        notes, errors = await converter.communicate()
    finally:
        if converter.returncode is None:
            converter.kill()
            await converter.wait()
    for line in notes.decode(errors="replace").splitlines():
        note(line)
    if converter.returncode:
        why = error_line(errors.decode(errors="replace")) or f"exit status {converter.returncode}"
        raise BackendError(f"cannot convert {source} for vLLM: {why}")
