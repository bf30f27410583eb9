"""``flowrun batch`` as a command: interrupted, killed, started again."""

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.batches import MESSAGES_ADDED, SPEC, batch, command, results, with_messages, write_rows


def outputs(path: Path) -> dict[int, int]:
    found = results(path)
    assert len({result["row"] for result in found}) == len(found)
    return {result["row"]: result["output"]["doubled"] for result in found}


def test_a_batch(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"number": 1, "id": "one"}\n{"number": 13}\nnonsense\n{"number": 4}\n')
    done = batch(SPEC, "in.jsonl", "-o", "out.jsonl", "--messages", "--json", cwd=tmp_path)
    assert done.returncode == 1
    figures = json.loads(done.stdout)
    assert figures.pop("seconds") > 0
    assert figures == {
        "rows": 4,
        "outcomes": {"succeeded": 2, "tool.failed": 1, "input.invalid": 1},
        "skipped": 0,
        "rounds": 5,
        "usage": {"prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0, "rerendered": 0},
    }
    assert [line.split() for line in done.stderr.splitlines()][:3] == [
        ["2", "succeeded"],
        ["1", "input.invalid"],
        ["1", "tool.failed"],
    ]
    first = next(result for result in results(tmp_path / "out.jsonl") if result["row"] == 1)
    assert (first["id"], first["output"]) == ("one", {"doubled": 2, "note": "none"})
    assert [message["content"] for message in first["messages"]] == ["Double 1.", "I will.", "It is 2.", "Well done."]


def test_finished_rows_are_not_run_again(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", range(1, 21))
    ledger = str(tmp_path / "ledger")
    first = batch(SPEC, "in.jsonl", "-o", "out.jsonl", cwd=tmp_path, FLOWRUN_TEST_LEDGER=ledger)
    again = batch(SPEC, "in.jsonl", "-o", "out.jsonl", cwd=tmp_path, FLOWRUN_TEST_LEDGER=ledger)
    assert (first.returncode, again.returncode) == (1, 1)
    assert "20  of them finished before, and skipped" in again.stderr
    assert len((tmp_path / "ledger").read_text().split()) == 20

    retried = batch(SPEC, "in.jsonl", "-o", "out.jsonl", "--retry-failed", cwd=tmp_path, FLOWRUN_TEST_LEDGER=ledger)
    assert "19  of them finished before, and skipped" in retried.stderr
    assert (tmp_path / "ledger").read_text().split()[20:] == ["13"]
    assert len(results(tmp_path / "out.jsonl")) == 20


def test_rows_that_succeeded_before_messages_were_asked_for_are_told(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", [1, 13, 2])
    batch(SPEC, "in.jsonl", "-o", "out.jsonl", "-q", cwd=tmp_path)
    write_rows(tmp_path / "in.jsonl", [1, 13, 2, 3])
    later = batch(SPEC, "in.jsonl", "-o", "out.jsonl", "-q", "--continue", "--messages", cwd=tmp_path)
    assert [line.strip().split("  ")[-1].strip() for line in later.stderr.splitlines()] == [
        MESSAGES_ADDED,
        "succeeded",
        "tool.failed",
        "of them finished before, and skipped",
    ]
    assert with_messages(tmp_path / "out.jsonl") == {1: False, 2: False, 3: False, 4: True}
    batch(SPEC, "in.jsonl", "-o", "out.jsonl", "-q", "--retry-failed", "--messages", cwd=tmp_path)
    assert with_messages(tmp_path / "out.jsonl") == {1: False, 2: True, 3: False, 4: True}
    anew = batch(SPEC, "in.jsonl", "-o", "out.jsonl", "-q", "--restart", "--messages", cwd=tmp_path)
    assert ("--messages" in anew.stderr, with_messages(tmp_path / "out.jsonl")) == (
        False,
        dict.fromkeys(range(1, 5), True),
    )


def test_a_changed_spec_or_input_is_noticed(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", range(1, 5))
    for name in ("spec.yaml", "replies.yaml", "functions.py"):
        (tmp_path / name).write_text((SPEC.parent / name).read_text())
    assert batch("spec.yaml", "in.jsonl", "-o", "out.jsonl", cwd=tmp_path).returncode == 0

    spec = (tmp_path / "spec.yaml").read_text()
    (tmp_path / "spec.yaml").write_text(spec + "# a comment changes nothing\n")
    assert batch("spec.yaml", "in.jsonl", "-o", "out.jsonl", cwd=tmp_path).returncode == 0

    (tmp_path / "spec.yaml").write_text(spec.replace("It is", "That is"))
    write_rows(tmp_path / "in.jsonl", range(1, 7))
    refused = batch("spec.yaml", "in.jsonl", "-o", "out.jsonl", cwd=tmp_path)
    assert refused.returncode == 2
    assert "the spec and the input changed since out.jsonl was begun" in refused.stderr

    continued = batch("spec.yaml", "in.jsonl", "-o", "out.jsonl", "--continue", cwd=tmp_path)
    assert (continued.returncode, len(results(tmp_path / "out.jsonl"))) == (0, 6)
    assert "4  of them finished before, and skipped" in continued.stderr

    restarted = batch("spec.yaml", "in.jsonl", "-o", "out.jsonl", "--restart", cwd=tmp_path)
    assert (restarted.returncode, len(results(tmp_path / "out.jsonl"))) == (0, 6)
    assert "skipped" not in restarted.stderr


def test_rows_that_did_not_begin_for_max_tokens_are_left_for_the_same_command(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(
        "flowrun: v1\nname: spell\nversion: 1.0.0\nmodel: {backend: scripted, name: replies.yaml}\n"
        "inputs: {number: {type: integer}}\nmessages: [{role: user, content: '{{ inputs.number }}'}]\n"
    )
    used = "usage: {prompt_tokens: 900, completion_tokens: 100}"
    (tmp_path / "replies.yaml").write_text(f"replies: [{{content: A number., repeat: true, {used}}}]\n")
    write_rows(tmp_path / "in.jsonl", range(1, 10))
    words = ("spec.yaml", "in.jsonl", "-o", "out.jsonl", "--max-tokens", "3500", "--max-live", "1")
    first = batch(*words, cwd=tmp_path)
    assert first.returncode == 1
    assert "5  not finished: run the same command again" in first.stderr
    assert first.stderr.splitlines()[-1] == (
        "flowrun: 4,000 tokens are used, and --max-tokens gives 3,500: no further row began; run the same command "
        "again to continue with as many more"
    )
    assert [one["row"] for one in results(tmp_path / "out.jsonl")] == [1, 2, 3, 4]
    assert batch(*words, cwd=tmp_path).returncode == 1
    assert batch(*words, cwd=tmp_path).returncode == 0
    assert [one["status"] for one in results(tmp_path / "out.jsonl")] == ["succeeded"] * 9


@pytest.mark.slow
@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["Ctrl-C", "kill", "kill -9"])
def test_interrupted_and_started_again(tmp_path: Path, signal_: signal.Signals) -> None:
    numbers = [*range(1, 11), *([1300] * 40)]
    write_rows(tmp_path / "in.jsonl", numbers)
    words = (SPEC, "in.jsonl", "-o", "out.jsonl", "--max-live", "5")
    out = tmp_path / "out.jsonl"
    kills = 0
    while True:
        before = out.read_bytes().count(b"\n") if out.exists() else 0
        running = subprocess.Popen(command(*words), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        while running.poll() is None and (not out.exists() or out.read_bytes().count(b"\n") < before + 12):
            time.sleep(0.01)
        running.send_signal(signal_)
        _, stderr = running.communicate(timeout=60)
        if running.returncode == 0:
            break
        kills += 1
        assert running.returncode == (-9 if signal_ is signal.SIGKILL else 130)
        assert ("not finished: run the same command again" in stderr) is (signal_ is not signal.SIGKILL)
        with out.open("ab") as file:
            file.write(b'{"id": 1, "row": 1, "sta')  # a broken line, as a power cut may leave it
    assert kills >= 2
    assert outputs(out) == {row: number * 2 for row, number in enumerate(numbers, 1)}


def test_a_job_in_the_background_is_ended_by_sigterm(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", [1, *[59_000] * 5])
    out = tmp_path / "out.jsonl"
    words = command(SPEC, "in.jsonl", "-o", "out.jsonl")
    shell = ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *words]  # as shells start what has & behind it
    running = subprocess.Popen(shell, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while running.poll() is None and not (out.exists() and out.read_bytes()):
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    time.sleep(0.1)
    assert running.poll() is None
    running.send_signal(signal.SIGTERM)
    _, said = running.communicate(timeout=60)
    assert (running.returncode, "not finished: run the same command again" in said) == (130, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["no.jsonl", "-o", "o.jsonl"], "there is no file no.jsonl", id="no input"),
        pytest.param(["in.jsonl", "-o", "o.jsonl", "--restart", "--continue"], "--restart runs every row", id="both"),
        pytest.param(
            ["in.jsonl", "-o", "o", "--ray", "local", "--max-tokens", "9"],
            "--max-tokens and --ray do not go together",
            id="a budget on Ray",
        ),
        pytest.param(["in.jsonl"], "Missing option '-o'", id="no output"),
    ],
)
def test_wrong_usage(tmp_path: Path, words: list[str], message: str) -> None:
    write_rows(tmp_path / "in.jsonl", [1])
    done = batch(SPEC, *words, cwd=tmp_path)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("option", ["--continue", "--restart"])
def test_a_file_without_results_is_not_changed(tmp_path: Path, option: str) -> None:
    write_rows(tmp_path / "in.jsonl", [1])
    (tmp_path / "notes.txt").write_text("a\nb\n")
    itself = batch(SPEC, "in.jsonl", "-o", "in.jsonl", option, cwd=tmp_path)
    assert (itself.returncode, "is the spec or the rows themselves" in itself.stderr) == (2, True)
    notes = batch(SPEC, "in.jsonl", "-o", "notes.txt", "--continue", cwd=tmp_path)
    assert (notes.returncode, "holds no results of a batch" in notes.stderr) == (2, True)
    assert (tmp_path / "notes.txt").read_text() == "a\nb\n"


def test_two_batches_do_not_share_an_output(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", [30_000])
    words = (SPEC, "in.jsonl", "-o", "out.jsonl")
    running = subprocess.Popen(command(*words), cwd=tmp_path, stderr=subprocess.DEVNULL)
    while running.poll() is None and not (tmp_path / "out.jsonl").exists():
        time.sleep(0.01)
    second = batch(*words, cwd=tmp_path)
    running.kill()
    running.wait()
    assert (second.returncode, second.stderr) == (2, "flowrun: another process is writing to out.jsonl\n")


def test_plain_lines_without_a_terminal(tmp_path: Path) -> None:
    write_rows(tmp_path / "in.jsonl", range(14, 40))
    done = batch(SPEC, "in.jsonl", "-o", "out.jsonl", cwd=tmp_path)
    assert Counter(done.stderr)["\x1b"] == 0
    assert done.stderr.splitlines()[0].split() == ["26", "succeeded"]


@pytest.mark.slow
def test_a_long_batch_needs_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(
        "flowrun: v1\nname: long\nversion: 1.0.0\ninputs: {n: {type: integer}}\n"
        "model: {backend: scripted, name: r.yaml}\nmessages: [{role: user, content: '{{ inputs.n }}'}]\n"
    )
    (tmp_path / "r.yaml").write_text("replies: [{content: ok, repeat: true}]\n")
    program = "import resource, subprocess, sys; code = subprocess.run(sys.argv[1:]).returncode;"
    program += "print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"

    def peak(count: int) -> int:
        rows = "".join(json.dumps({"n": n, "id": f"row {n}"}) + "\n" for n in range(count))
        (tmp_path / f"{count}.jsonl").write_text(rows)
        words = command("-q", "spec.yaml", f"{count}.jsonl", "-o", f"{count}.out")
        done = subprocess.run([sys.executable, "-c", program, *words], cwd=tmp_path, capture_output=True, text=True)
        code, kilobytes = map(int, done.stdout.split())
        assert code == 0, done.stderr
        return kilobytes

    assert peak(40_000) < peak(4_000) + 2_000  # 20 MB for 900,000 rows would be 800 kB
