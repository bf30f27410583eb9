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
from typing import Any

import pytest

from tests.batches import MESSAGES_ADDED, SPEC, batch, command, environment, results, with_messages, write_rows
from tests.processes import children, parent, wait_for_end
from tests.records import outcome_of

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
    plain = sorted(results(tmp_path / "plain.jsonl"), key=lambda result: int(result["row"]))
    assert list(map(outcome_of, found)) == list(map(outcome_of, plain))
    assert [result["flow"] for result in found] == [result["flow"] for result in plain]


@needs_ray
def test_samples_of_a_row_are_runs_of_their_own(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", [1, 2, 3])
    words = (SPEC, "in.jsonl", "--samples", "2")
    done = batch(*words, "-o", "out", "--ray", "local", "--replicas", "2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert batch(*words, "-o", "plain.jsonl", cwd=tmp_path).returncode == 0
    found = results(tmp_path / "out" / "results.jsonl")
    assert [(one["row"], one["sample"]) for one in found] == [(row, sample) for row in (1, 2, 3) for sample in (1, 2)]
    plain = sorted(results(tmp_path / "plain.jsonl"), key=lambda one: (one["row"], one["sample"]))
    assert [one["seed"] for one in found] == [one["seed"] for one in plain]


@needs_ray
@pytest.mark.parametrize("agent", ["ray::DashboardAgent", "ray::RuntimeEnvAgent"])
def test_an_agent_of_the_local_ray_is_killed(tmp_path: Path, agent: str) -> None:
    write_rows(tmp_path / "in.jsonl", [*range(1, 21), *([1200] * 80)])
    words = (SPEC, "in.jsonl", "-o", "out", "--ray", "local", "--replicas", "2", "--max-live", "8")
    running = Running(*words, cwd=tmp_path, FLOWRUN_TEST_LEDGER="ledger")
    running.wait_for_replicas(2)
    running.wait_for_results(30)
    os.kill(children(parent(running.replicas[1]))[agent], signal.SIGKILL)
    out, lines = running.end()
    assert (out, running.process.returncode) == ("", 1)  # row 13 fails
    lost = (
        r"replica \d is lost: (its process died, or cannot be reached|Ray on the host .* ended); \d rows are run again"
    )
    events = [line for line in lines[4:] if "finishing" not in line]
    assert [bool(re.fullmatch(lost, line)) for line in events[:2]] == [True, True]
    assert "Ray on the host of the batch has ended: connecting again" in events
    assert {f"replica {number} of 2 is ready: process N" for number in (1, 2)} <= set(events)
    assert all(wait_for_end(process, seconds=30) for process in running.replicas.values())
    found = results(tmp_path / "out" / "results.jsonl")
    assert [(result["row"], result["error"] is None) for result in found] == [(n, n != 13) for n in range(1, 101)]
    assert len((tmp_path / "ledger").read_text().split()) <= 100 + 16  # only the live rows were begun again


@needs_ray
@pytest.mark.parametrize(
    ("victim", "connects_again"),
    [pytest.param("the batch's", True, id="of the batch's node"), pytest.param("the other", False, id="of another")],
)
def test_an_agent_of_a_node_is_killed(tmp_path: Path, victim: str, connects_again: bool) -> None:
    from ray.cluster_utils import Cluster

    options: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 << 20}
    nodes = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    try:
        nodes.add_node(**options)
        write_rows(tmp_path / "in.jsonl", [*range(1, 11), *([2000] * 50)])
        words = (SPEC, "in.jsonl", "-o", "out", "--ray", nodes.address, "--replicas", "2", "--max-live", "8")
        running = Running(*words, cwd=tmp_path)
        running.wait_for_replicas(2)
        running.wait_for_results(20)
        [head] = nodes.head_node.all_processes["raylet"]
        others = {parent(process) for process in running.replicas.values()} - {head.process.pid}
        raylet = head.process.pid if victim == "the batch's" else others.pop()
        os.kill(children(raylet)["ray::DashboardAgent"], signal.SIGKILL)
        _, lines = running.end()
    finally:
        nodes.shutdown()
    assert running.process.returncode == 0
    assert ("Ray on the host of the batch has ended: connecting again" in lines) is connects_again
    found = results(tmp_path / "out" / "results.jsonl")
    assert [(result["row"], result["status"]) for result in found] == [(n, "succeeded") for n in range(1, 61)]


@needs_ray
def test_a_cluster_that_ends_stops_the_batch_which_continues_elsewhere(tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 100 << 20})
    address = nodes.address
    try:
        write_rows(tmp_path / "in.jsonl", [*range(1, 6), *([2000] * 15)])
        running = Running(SPEC, "in.jsonl", "-o", "out", "--ray", address, "--max-live", "4", cwd=tmp_path)
        running.wait_for_replicas(1)
        running.wait_for_results(6)
    finally:
        nodes.shutdown()
    _, lines = running.end()
    assert (running.process.returncode, lines[-1]) == (
        1,
        f"flowrun: Ray on the host of the batch has ended: --ray {address}: nothing answers there: Connection refused; "
        "once there is one again, the same command continues the batch",
    )
    kept = running.written()
    again = batch(SPEC, "in.jsonl", "-o", "out", "--ray", "local", "--replicas", "1", "-q", cwd=tmp_path)
    assert again.returncode == 0
    assert f"{kept:2}  of them finished before, and skipped" in again.stderr
    assert [result["row"] for result in results(tmp_path / "out" / "results.jsonl")] == list(range(1, 21))


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
def test_messages_that_are_added_later_are_as_without_ray(tmp_path: Path) -> None:
    words = (SPEC, "in.jsonl", "-q")
    local, ray = ("-o", "out.jsonl"), ("-o", "out", "--ray", "local", "--replicas", "1")
    write_rows(tmp_path / "in.jsonl", [1, 13, 2])
    batch(*words, *local, cwd=tmp_path)
    batch(*words, *ray, cwd=tmp_path)
    write_rows(tmp_path / "in.jsonl", [1, 13, 2, 3])
    plain = batch(*words, *local, "--continue", "--messages", cwd=tmp_path)
    spread = batch(*words, *ray, "--continue", "--messages", cwd=tmp_path)
    assert spread.stderr.splitlines()[0] == MESSAGES_ADDED.replace("out.jsonl", "out")
    assert plain.stderr.splitlines()[1:] == spread.stderr.splitlines()[1:]
    merged = results(tmp_path / "out" / "results.jsonl")
    one_file = sorted(results(tmp_path / "out.jsonl"), key=lambda result: int(result["row"]))
    assert list(map(outcome_of, merged)) == list(map(outcome_of, one_file))
    assert with_messages(tmp_path / "out" / "results.jsonl") == {1: False, 2: False, 3: False, 4: True}


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
