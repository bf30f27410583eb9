"""Modes of holding many conversations on vLLM, each in processes of its own that end before the next start.

What is timed is the same in each: from the first request to the last result, so no engine's start is in it. The other
modes hold a conversation before, for what is made at the first request; the command of flowrun is taken as it is.
"""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from tests.bench.engines import conversations as work

ROOT = Path(__file__).parents[2]
ENGINES = Path(__file__).parent / "engines"
TEMPLATE = ROOT / "specs" / "templates" / "chatml_tools.jinja"
PEERS = ROOT / ".venv" / "bench-batch"
PACKAGES = ("langgraph==1.2.22", "openai[aiohttp]==3.54.0")
PATIENCE = 180  # seconds for a server's start
ENVIRON = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # 1 is slower on CPUs, in every mode
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "HF_HUB_OFFLINE": "1",
}


class Timed(msgspec.Struct, frozen=True):
    """The cost of a mode: seconds, and tokens read and written."""

    seconds: float
    read: int
    written: int


def offline(model: Path, modes: Sequence[tuple[str, Sequence[int]]]) -> list[Timed]:
    """Hold conversations on one engine of vLLM's offline class, in one mode after another."""
    given = {"model": str(model), "template": TEMPLATE.read_text(encoding="utf-8"), "modes": modes}
    out = _run([sys.executable, str(ENGINES / "vllm_offline.py")], given)
    return [msgspec.json.decode(line, type=Timed) for line in out.splitlines()]


def flowrun_batch(model: Path, numbers: Sequence[int]) -> Timed:
    """Hold conversations by the command itself."""
    with TemporaryDirectory() as folder:
        rows = Path(folder) / "in.jsonl"
        rows.write_text("".join(f'{{"conversation": {number}}}\n' for number in numbers), encoding="utf-8")
        command = [sys.executable, "-m", "flowrun", "batch", str(ENGINES / "rounds.yaml"), str(rows)]
        command += ["-o", str(Path(folder) / "out.jsonl"), "--json", "--quiet"]
        figures = json.loads(_run(command, {}, FLOWRUN_BENCH_MODEL=str(model)))
    assert figures["outcomes"] == {"succeeded": len(numbers)}, figures
    usage = figures["usage"]
    return Timed(figures["seconds"], usage["prompt_tokens"], usage["completion_tokens"])


def langgraph(model: Path, numbers: Sequence[int]) -> Timed:
    """Hold conversations by LangGraph and the openai client on vLLM's server."""
    python = langgraph_python()
    with _server(model) as base_url:
        given = {"base_url": base_url, "model": "model", "numbers": numbers}
        return msgspec.json.decode(_run([str(python), str(ENGINES / "langgraph_client.py")], given), type=Timed)


def langgraph_python() -> Path:
    """Return the Python executable of LangGraph's virtual environment."""
    python = PEERS / "bin" / "python"
    if not (PEERS / "installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(PEERS)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (PEERS / "installed").touch()
    return python


def _run(command: list[str], given: dict[str, Any], **environ: str) -> str:
    """Run a program and return its stdout; if it fails, show its errors."""
    done = subprocess.run(
        command,
        input=json.dumps(given),
        env={**os.environ, **ENVIRON, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return done.stdout


@contextmanager
def _server(model: Path) -> Iterator[str]:
    """Start vLLM's server, and give its base URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--served-model-name", "model", "--enforce-eager"]
    command += ["--chat-template", str(TEMPLATE), "--uvicorn-log-level", "warning"]
    for name, value in work.ENGINE.items():
        command += [f"--{name.replace('_', '-')}", str(value)]
    with TemporaryDirectory() as folder, (Path(folder) / "server.log").open("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **ENVIRON})
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", process, Path(log.name))
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(timeout=60)


def _wait_for(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    sys.exit(f"vLLM's server did not start:\n{log.read_text()[-3000:]}")
