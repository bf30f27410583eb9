"""Durable runs that sleep: shown, stopped, listed, and woken by whoever looks after the journal."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
SPEC = """\
flowrun: v1
name: nap
version: 1.0.0
inputs: {seconds: {type: number}, limit: {type: number, default: 1000}}
states:
  nap: {type: pause, for: "{{ inputs.seconds }}", next: ask}
  ask: {type: wait, prompt: Well?, timeout: "{{ inputs.limit }}s", catch: [{to: late}], next: done}
  late: {type: end, output: "{{ error.name }}"}
  done: {type: end, output: "{{ outputs.ask }}"}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "nap.yaml").write_text(SPEC)
    return tmp_path


def start(folder: Path, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "flowrun", *map(str, words)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "COLUMNS": "200", "FLOWRUN_JOURNAL": str(folder / "journal.sqlite")},
    )


def flowrun(folder: Path, *words: object) -> tuple[int, str, str]:
    process = start(folder, *words)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def rows(folder: Path) -> list[tuple[str, str]]:
    listed = [json.loads(line) for line in flowrun(folder, "runs", "--json")[1].splitlines()]
    return [(row["id"], row["status"]) for row in listed]


def wait_for(folder: Path, status: str) -> str:
    for _ in range(200):
        for run, known in rows(folder):
            if known == status:
                return run
        time.sleep(0.1)
    raise AssertionError(f"no run is {status}: {rows(folder)}")


def sleeping_run(folder: Path, seconds: int, *words: str) -> str:
    """Start a run, and stop its process while it sleeps."""
    process = start(folder, "nap.yaml", "--durable", "-i", f"seconds={seconds}", *words)
    run = wait_for(folder, "sleeping")
    process.send_signal(signal.SIGTERM)
    err = process.communicate(timeout=60)[1]
    assert f"sleeping for {seconds}.00 s; safe to stop: `flowrun resume {run}` continues it" in err
    return run


def test_a_run_that_sleeps_is_listed_with_its_time_and_not_taken(folder: Path) -> None:
    run = sleeping_run(folder, 50)
    assert rows(folder) == [(run, "sleeping")]
    assert f"run {run}  sleeping" in flowrun(folder, "show", run)[1]
    code, _, err = flowrun(folder, "resume", "--all")
    assert (code, err.startswith(f"{run}  nap  sleeping until 2")) == (4, True)


def test_one_process_wakes_all_runs_of_a_journal_and_ends_their_waits(folder: Path) -> None:
    run = sleeping_run(folder, 3, "-i", "limit=1")
    watch = start(folder, "resume", "--all", "--watch")
    try:
        wait_for(folder, "succeeded")
    finally:
        watch.send_signal(signal.SIGTERM)
        out, err = watch.communicate(timeout=60)
    assert (watch.returncode, out) == (0, "")
    assert [line for line in err.splitlines() if line.startswith(run)] == [
        f"{run}  nap  waiting",
        f"{run}  nap  succeeded",
    ]
    assert json.loads(flowrun(folder, "show", run, "--json")[1])["outcome"]["output"] == "wait.timeout"


def test_an_answer_that_comes_in_is_used_by_the_one_who_watches(folder: Path) -> None:
    code, _, _ = flowrun(folder, "nap.yaml", "--durable", "-i", "seconds=0.5")
    assert code == 4
    ((run, status),) = rows(folder)
    assert status == "waiting"
    watch = start(folder, "resume", "--all", "--watch")
    try:
        flowrun(folder, "answer", run, "--value", "7", "--later")
        wait_for(folder, "succeeded")
    finally:
        watch.send_signal(signal.SIGINT)
        watch.communicate(timeout=60)
    assert watch.returncode == 0
    assert json.loads(flowrun(folder, "show", run, "--json")[1])["outcome"]["output"] == 7


def test_watching_is_for_all_runs(folder: Path) -> None:
    code, _, err = flowrun(folder, "resume", "x", "--watch")
    assert (code, "--watch goes with --all" in err) == (2, True)
