"""Functions that harm more than their own call: what they cannot do to flowrun, in threads and in worker processes."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flowrun.functions.watchdog_process import TICK, TICKS
from tests import harmful
from tests.processes import wait_for_end
from tests.unit.cli.test_cli import flowrun

pytestmark = pytest.mark.slow

SECONDS = TICK * TICKS
"""The time after which the loop stands still."""

HEADER = "flowrun: v1\nname: harm\nversion: 1.0.0\n"


def write_call(folder: Path, function: str, *, more: str = "", top: str = "", arguments: str = "{}") -> None:
    """Write a spec whose only work is a call state."""
    shutil.copy(harmful.__file__, folder / "tl.py")
    (folder / "s.yaml").write_text(
        f"{HEADER}{top}\nstates:\n"
        f"  go: {{type: call, entrypoint: 'tl:{function}', with: {arguments}, {more} next: done}}\n"
        "  done: {type: end, output: {answer: '{{ outputs.go }}', n: 1}}\n"
    )


def write_tool(folder: Path, function: str, *, more: str = "") -> None:
    """Write a spec whose scripted model calls a tool once."""
    shutil.copy(harmful.__file__, folder / "tl.py")
    (folder / "s.yaml").write_text(
        f"{HEADER}model: {{backend: scripted, name: r.yaml}}\nmessages: [{{role: user, content: go}}]\n"
        f"tools: {{act: {{entrypoint: 'tl:{function}', timeout: 1s, {more}}}}}\n"
        "states:\n"
        "  ask: {type: chat, routes: [{when: reply.tool_calls, to: use}, {to: done}]}\n"
        "  use: {type: tools, next: ask}\n"
        "  done: {type: end, output: '{{ (results if results is defined else []) | tojson }}'}\n"
    )
    (folder / "r.yaml").write_text("replies: [{tool_calls: [{name: act, arguments: {}}]}, {content: fine}]\n")


ANSWERS = {
    "close_streams": "closed",
    "wrap_stdout": "wrapped",
    "close_descriptors": "closed",
    "replace_streams": "replaced",
    "forge_json": "forged",
    "lose_json": "lost",
    "read_stdin": "",
    "stay": "left",
    "stay_async": "left",
}


@pytest.mark.parametrize("isolation", ["thread", "process"])
@pytest.mark.parametrize("function", ANSWERS)
def test_the_answer_arrives(tmp_path: Path, function: str, isolation: str) -> None:
    write_call(tmp_path, function, more=f"isolation: {isolation},")
    command = [sys.executable, "-m", "flowrun", "run", "s.yaml"]
    started = time.monotonic()
    done = subprocess.run(command, cwd=tmp_path, input="typed\n", capture_output=True, text=True, timeout=60)
    assert (done.returncode, json.loads(done.stdout)) == (0, {"answer": ANSWERS[function], "n": 1})
    assert "done" in done.stderr
    assert time.monotonic() - started < 45


@pytest.mark.parametrize("function", ["leave", "replace"])
def test_a_thread_cannot_end_flowrun(tmp_path: Path, function: str) -> None:
    write_tool(tmp_path, function)
    done = flowrun("run", "-q", "s.yaml", cwd=tmp_path)
    assert done.returncode == 0
    assert "would end all of flowrun: raise an exception, or set `isolation: process`" in done.stdout


def test_an_import_cannot_end_flowrun(tmp_path: Path) -> None:
    write_call(tmp_path, "add", arguments="{a: 1, b: 2}")
    (tmp_path / "tl.py").write_text("import os\nos._exit(0)\n")
    done = flowrun("run", "-q", "s.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "os._exit would end all of flowrun" in done.stderr


def test_what_a_thread_prints_is_no_part_of_a_test_report(tmp_path: Path) -> None:
    write_call(tmp_path, "say", arguments="{text: 9 passed}")
    (tmp_path / "s.test.yaml").write_text("flow: s.yaml\ntests: [{name: a}]\n")
    done = flowrun("test", ".", cwd=tmp_path)
    assert done.returncode == 0
    assert "9 passed" not in done.stdout
    assert "1 passed" in done.stdout
    assert "9 passed" in done.stderr


def test_children_of_a_thread_end_with_flowrun(tmp_path: Path) -> None:
    write_call(tmp_path, "start_children", more="timeout: 2s,", arguments="{file: pids, then: hang}")
    command = [sys.executable, "-m", "flowrun", "run", "-q", "s.yaml"]
    done = subprocess.run(command, cwd=tmp_path, stderr=subprocess.DEVNULL, timeout=60, check=False)
    assert done.returncode == 1
    direct = [int(line) for line in (tmp_path / "pids").read_text().split()][-1]
    assert wait_for_end(direct, seconds=5)


HELD = {
    "a tool": ("tool", {"function": "hold"}),
    "an async tool": ("tool", {"function": "block"}),
    "a call state": ("call", {"function": "hold", "more": "timeout: 1s,"}),
    "a run": ("call", {"function": "block", "top": "limits: {timeout: 1s}"}),
    "a call that was given up": (
        "call",
        {"function": "late", "more": "timeout: 1s, catch: [{to: go}],", "arguments": "{seconds: 1.5}"},
    ),
}


@pytest.mark.parametrize("held", HELD)
def test_what_holds_python_past_its_time_ends_flowrun(tmp_path: Path, held: str) -> None:
    kind, given = HELD[held]
    arguments: dict[str, Any] = given
    (write_tool if kind == "tool" else write_call)(tmp_path, **arguments)
    done = flowrun("run", "-q", "s.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (-9, "")
    assert f"tl:{arguments['function']}" in done.stderr
    assert "keeps all of flowrun from running" in done.stderr
    assert "Set `isolation: process` there" in done.stderr


def test_a_process_that_was_stopped_is_not_taken_for_one_that_is_held(tmp_path: Path) -> None:
    write_call(tmp_path, "nap", more="timeout: 3s,", arguments="{seconds: 600}")
    command = [sys.executable, "-m", "flowrun", "run", "-q", "s.yaml"]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(2)
        process.send_signal(signal.SIGSTOP)
        time.sleep(SECONDS + 3)
        process.send_signal(signal.SIGCONT)
        _, stderr = process.communicate(timeout=60)
    assert (process.returncode, "keeps all of flowrun" in stderr) == (1, False)


@pytest.mark.parametrize("function", ["hold", "block"])
def test_what_holds_a_worker_process_past_its_time_is_a_timeout(tmp_path: Path, function: str) -> None:
    write_tool(tmp_path, function, more="isolation: process")
    done = flowrun("run", "-q", "s.yaml", cwd=tmp_path)
    assert (done.returncode, "act took longer than 1 s" in done.stdout) == (0, True)


def test_the_state_timeout_ends_a_call_in_a_worker_process(tmp_path: Path) -> None:
    write_call(tmp_path, "hold", more="timeout: 1s,", top="isolation: process")
    done = flowrun("run", "-q", "s.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "state.timeout" in done.stderr or "took longer" in done.stderr


def test_other_rows_of_a_batch_go_on(tmp_path: Path) -> None:
    top = "isolation: process\ninputs: {row: {type: integer}}"
    write_call(tmp_path, "hold_row", top=top, more="timeout: 2s,", arguments="{row: '{{ inputs.row }}'}")
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"row": {row}}}\n' for row in range(1, 5)))
    done = flowrun("batch", "-q", "s.yaml", "rows.jsonl", "-o", "out.jsonl", cwd=tmp_path)
    assert done.returncode == 1
    results = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {one["row"]: one["status"] for one in results} == {
        1: "succeeded",
        2: "failed",
        3: "succeeded",
        4: "succeeded",
    }


def test_a_durable_run_goes_on_after_it_was_ended(tmp_path: Path) -> None:
    write_call(tmp_path, "hold_once", more="timeout: 1s, idempotent: true,", arguments="{file: marker}")
    held = flowrun("run", "-q", "--durable", "s.yaml", cwd=tmp_path)
    assert held.returncode == -9
    time.sleep(0.1)
    resumed = flowrun("resume", "--all", cwd=tmp_path)
    assert (resumed.returncode, "succeeded" in resumed.stderr) == (0, True), resumed.stderr


@pytest.mark.parametrize("isolation", ["thread", "process"])
def test_spec_tests_run_real_functions_where_the_spec_says(tmp_path: Path, isolation: str) -> None:
    write_call(tmp_path, "hold", more=f"isolation: {isolation}, timeout: 1s,")
    (tmp_path / "s.test.yaml").write_text("flow: s.yaml\ntests: [{name: a, expect: {error: state.timeout}}]\n")
    done = flowrun("test", ".", cwd=tmp_path)
    if isolation == "process":
        assert (done.returncode, "1 passed" in done.stdout) == (0, True)
    else:
        assert (done.returncode, "passed" in done.stdout) == (-9, False)
        assert "tl:hold keeps all of flowrun from running" in done.stderr
