"""``flowrun batch --ray``: killed replicas, a killed batch, and the results after that.

Ray runs in processes of its own; each test starts one with ``--ray local``.
"""

import os
import re
import signal
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.batches import SPEC, batch, command, environment, results, write_rows
from tests.processes import wait_for_end

SMALL = SPEC.with_name("small.yaml")

pytestmark = pytest.mark.slow
needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed")


class Running:
    """A running batch; ``replicas`` are the process ids of its replicas by number."""

    def __init__(self, *words: str | Path, cwd: Path, **environ: str) -> None:
        self.lines: list[str] = []
        self.replicas: dict[int, int] = {}
        self._out = cwd / "out"
        self.process = subprocess.Popen(
            command(*words),
            cwd=cwd,
            env=environment(**environ),
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_for_replicas(self, count: int) -> None:
        assert self.process.stderr is not None
        while len(self.replicas) < count:
            line = self.process.stderr.readline()
            assert line, "".join(self.lines)
            self.lines.append(line)
            if ready := re.match(r"replica (\d) of \d is ready: process (\d+)", line):
                self.replicas[int(ready[1])] = int(ready[2])

    def wait_for_results(self, count: int) -> None:
        while self.process.poll() is None and self.written() < count:
            time.sleep(0.01)

    def written(self) -> int:
        return sum(part.read_bytes().count(b"\n") for part in self._out.glob("part-*.jsonl"))

    def end(self) -> tuple[str, list[str]]:
        """Wait for the end; return its stdout and the lines of its stderr, without process ids."""
        out, rest = self.process.communicate(timeout=180)
        text = "".join(self.lines) + rest
        return out, [re.sub(r"process \d+ on .*", "process N", line) for line in text.splitlines()]


@needs_ray
def test_a_replica_is_killed(tmp_path: Path) -> None:
    numbers = [*range(1, 21), *([1200] * 180)]
    write_rows(tmp_path / "in.jsonl", numbers)
    words = (SPEC, "in.jsonl", "--max-live", "8")
    running = Running(
        *words, "-o", "out", "--ray", "local", "--replicas", "2", cwd=tmp_path, FLOWRUN_TEST_LEDGER="ledger"
    )
    running.wait_for_replicas(2)
    running.wait_for_results(60)
    os.kill(running.replicas[1], signal.SIGKILL)
    out, lines = running.end()
    assert out == ""
    assert lines[:2] == ["starting Ray here", "asking Ray for 2 replicas of 1 CPU each; hosts there: 1"]
    assert sorted(lines[2:4]) == ["replica 1 of 2 is ready: process N", "replica 2 of 2 is ready: process N"]
    assert re.fullmatch(r"replica 1 is lost: its process died, or cannot be reached; \d rows are run again", lines[4])
    assert lines[-1] == "all results, in the rows' order: out/results.jsonl"

    found = results(tmp_path / "out" / "results.jsonl")
    assert [result["row"] for result in found] == list(range(1, 201))
    started = (tmp_path / "ledger").read_text().split()
    assert len(started) <= 200 + 8  # only the live rows of the killed replica started again

    assert batch(*words, "-o", "plain.jsonl", cwd=tmp_path).returncode == 1
    assert found == sorted(results(tmp_path / "plain.jsonl"), key=lambda result: int(result["row"]))


@needs_ray
def test_the_batch_is_killed_and_started_again(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", [*range(1, 11), *([1200] * 90)])
    words = (
        SPEC,
        "in.jsonl",
        "-o",
        "out",
        "--ray",
        "local",
        "--replicas",
        "1",
        "--max-live",
        "8",
        "--shard-rows",
        "15",
    )
    first = Running(*words, cwd=tmp_path, FLOWRUN_TEST_LEDGER="ledger")
    first.wait_for_replicas(1)
    first.wait_for_results(30)
    first.process.kill()
    first.end()
    assert wait_for_end(first.replicas[1], seconds=30)
    written = first.written()
    assert not (tmp_path / "out" / "results.jsonl").exists()

    again = batch(*words, "-q", cwd=tmp_path, FLOWRUN_TEST_LEDGER="ledger")
    assert (again.returncode, again.stdout) == (0, "")
    assert [line.strip().split("  ") for line in again.stderr.splitlines()] == [
        ["100", "succeeded"],
        [str(written), "of them finished before, and skipped"],
    ]
    assert [result["row"] for result in results(tmp_path / "out" / "results.jsonl")] == list(range(1, 101))
    assert len(list((tmp_path / "out").glob("part-*.jsonl"))) == 7
    assert len((tmp_path / "ledger").read_text().split()) <= 100 + 8


@needs_ray
def test_no_cluster_there(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", [1])
    done = batch(SPEC, "in.jsonl", "-o", "out", "--ray", "127.0.0.1:1", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "connecting to Ray at 127.0.0.1:1",
        "flowrun: --ray 127.0.0.1:1: nothing answers there: Connection refused",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["-o", "o.jsonl", "--replicas", "2"], "--replicas: only with --ray", id="replicas"),
        pytest.param(
            ["-o", "o", "--format", "parquet", "--shard-rows", "9"], "--shard-rows, --format: only", id="both"
        ),
        pytest.param(["-o", "."], "-o .: is a folder; only a batch with --ray", id="a folder without Ray"),
        pytest.param(["-o", "in.jsonl", "--ray", "local"], "-o in.jsonl: is a file; a batch with --ray", id="a file"),
    ],
)
def test_wrong_usage(tmp_path: Path, words: list[str], message: str) -> None:
    write_rows(tmp_path / "in.jsonl", [1])
    done = batch(SPEC, "in.jsonl", *words, cwd=tmp_path)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


@needs_ray
@pytest.mark.vllm
@pytest.mark.usefixtures("needs_vllm")
def test_a_replica_of_the_small_model_is_killed(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", range(1, 17))
    running = Running(
        SMALL, "in.jsonl", "-o", "out", "--ray", "local", "--replicas", "2", "--max-live", "2", cwd=tmp_path
    )
    running.wait_for_replicas(2)
    running.wait_for_results(4)
    os.kill(running.replicas[1], signal.SIGKILL)
    _, lines = running.end()
    assert "replica 1 is lost: its process died, or cannot be reached; 2 rows are run again" in lines
    found = [(result["row"], result["output"]) for result in results(tmp_path / "out" / "results.jsonl")]
    assert found == [(number, {"said": number}) for number in range(1, 17)]
