"""Durable runs on the command line: stored, listed, answered, resumed after a kill, cancelled, shown."""

import html
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.unit.backends.test_openai import Server, server, with_tokens

__all__ = ["server"]
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
REFUND = ROOT / "specs" / "refund.yaml"
SPEC = ROOT / "tests" / "cases" / "batch" / "spec.yaml"


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Return the path of a journal that does not exist yet."""
    return tmp_path / "state" / "journal.sqlite"


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "flowrun", *map(str, words)]


def flowrun(*words: object, journal: Path, cwd: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words),
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "200", "FLOWRUN_JOURNAL": str(journal), **environ},
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def listed(journal: Path, *words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in flowrun("runs", "--json", *words, journal=journal).stdout.splitlines()]


def waiting_refund(journal: Path) -> str:
    done = flowrun(REFUND, "--durable", "-i", "amount=500", journal=journal)
    assert (done.returncode, done.stdout) == (4, "")
    (row,) = listed(journal)
    assert f"flowrun answer {row['id']} --value '{{\"ok\": true}}'" in done.stderr
    return str(row["id"])


def test_a_run_waits_is_answered_and_shown(journal: Path, tmp_path: Path) -> None:
    run = waiting_refund(journal)
    table = flowrun("runs", journal=journal).stdout.splitlines()
    assert [line.split()[:4] for line in table] == [
        ["run", "flow", "state", "status"],
        [run, "refund", "approve", "waiting"],
    ]
    wrong = flowrun("answer", run, "--value", '{"okay": true}', journal=journal)
    assert (wrong.returncode, "not what state approve asks for" in wrong.stderr) == (2, True)
    unasked = flowrun("answer", run, journal=journal)
    assert (unasked.returncode, "give the answer by --value" in unasked.stderr) == (2, True)

    done = flowrun("answer", run[:8], "--value", '{"ok": true}', "-q", journal=journal)
    assert (done.returncode, json.loads(done.stdout)["paid"], done.stderr) == (0, 500, "")
    assert [row["status"] for row in listed(journal)] == ["succeeded"]
    late = flowrun("answer", run, "--value", '{"ok": true}', journal=journal)
    assert (late.returncode, f"run {run} does not wait for this answer: it is succeeded" in late.stderr) == (2, True)

    page = tmp_path / "run.html"
    shown = flowrun("show", run, "--html", page, journal=journal)
    assert (shown.returncode, page.read_text().lower().startswith("<!doctype html>")) == (0, True)
    text = flowrun("show", run, journal=journal).stdout
    assert [line.split()[1] for line in text.splitlines() if re.match(r" +\d  ", line)] == [
        "look_up",
        "approve",
        "pay",
        "paid",
    ]
    assert json.loads(flowrun("show", run, "--json", journal=journal).stdout)["run"] == run


def test_a_fork_is_a_run_of_its_own(journal: Path) -> None:
    run = waiting_refund(journal)
    flowrun("answer", run, "--value", '{"ok": true}', "-q", journal=journal)
    done = flowrun("fork", run, "--at", "2", "-i", "amount=600", journal=journal)
    assert (done.returncode, "asks: Pay 600 back" in done.stderr) == (4, True)
    (fork,) = [row["id"] for row in listed(journal) if row["id"] != run]
    assert json.loads(flowrun("answer", fork, "--value", '{"ok": true}', "-q", journal=journal).stdout)["paid"] == 600
    shown = flowrun("show", fork, journal=journal).stdout
    assert f"\nforked from run {run}, which did all that stands before step 2\n" in shown
    assert json.loads(flowrun("show", run, "--json", journal=journal).stdout)["inputs"]["amount"] == 500
    refused = flowrun("fork", run, "--at", "3", "-i", "amount=30", journal=journal)
    assert (refused.returncode, "step 2, state 'approve', and the fork does not" in refused.stderr) == (2, True)
    assert len(listed(journal)) == 2


def test_a_fork_goes_on_with_the_spec_of_today(journal: Path, tmp_path: Path) -> None:
    spec = tmp_path / "asks.yaml"
    text = "flowrun: v1\nname: asks\nversion: 1.0.0\nstates:\n  ask: {type: wait, prompt: Old?, next: done}\n"
    spec.write_text(text + "  done: {type: end}\n")
    flowrun(spec, "--durable", journal=journal)
    (run,) = [row["id"] for row in listed(journal)]
    spec.write_text(text.replace("Old?", "New?") + "  done: {type: end}\n")
    assert "asks: Old?" in flowrun("fork", run, "--at", "1", journal=journal).stderr
    assert "asks: New?" in flowrun("fork", run, "--at", "1", "--spec", journal=journal).stderr


TALK = """\
flowrun: v1
name: talk
version: 1.0.0
model: {backend: openai, name: qwen, base_url: "URL"}
messages: [{role: user, content: Say something.}]
states:
  ask: {type: wait, prompt: Now?, schema: {type: boolean}, next: reply}
  reply: {type: chat, next: done}
  done: {type: end, output: "{{ reply.content }}"}
"""


def begun_talk(folder: Path, server: Server, journal: Path, *words: str) -> str:
    """Begin a run that waits before its model is asked, and return its id."""
    server.answer = lambda seen: with_tokens([1, 2], [3, 4], [-0.5, -1.5])
    spec = folder / "talk.yaml"
    spec.write_text(TALK.replace("URL", server.url))
    done = flowrun(spec, "--durable", "--json", "-q", *words, journal=journal)
    assert done.returncode == 4, done.stderr
    return str(json.loads(done.stdout)["run"])


@pytest.mark.parametrize("words", [["answer"], ["resume"], ["resume", "--all"]], ids=" ".join)
@pytest.mark.parametrize("began", [True, False], ids=["with", "without"])
def test_a_resumed_run_keeps_the_tokens_if_it_began_so(
    words: list[str], began: bool, server: Server, journal: Path, tmp_path: Path
) -> None:
    run = begun_talk(tmp_path, server, journal, *["--tokens"] * began)
    if words == ["answer"]:
        done = flowrun("answer", run, "--value", "true", "--json", journal=journal)
        record = json.loads(done.stdout)
        assert [row["ids"] for row in record.get("tokens", ())] == [[1, 2, 3, 4]] * began
    else:
        flowrun("answer", run, "--value", "true", "--later", journal=journal)
        done = flowrun(*words, *[run] * (words == ["resume"]), journal=journal)
    assert done.returncode == 0, done.stderr
    assert server.asked.body.get("return_token_ids", False) == began


@pytest.mark.parametrize("words", [["answer", "--value", "true"], ["resume"]], ids=["answer", "resume"])
def test_tokens_are_kept_from_where_a_run_is_resumed(
    words: list[str], server: Server, journal: Path, tmp_path: Path
) -> None:
    run = begun_talk(tmp_path, server, journal)
    if words == ["resume"]:
        flowrun("answer", run, "--value", "true", "--later", journal=journal)
    done = flowrun(words[0], run, *words[1:], "--json", "--tokens", journal=journal)
    assert done.returncode == 0, done.stderr
    assert [row["logprobs"] for row in json.loads(done.stdout)["tokens"]] == [[None, None, -0.5, -1.5]]


@pytest.mark.parametrize("words", [[], ["--tokens"]], ids=["plain", "tokens"])
def test_the_prompt_of_a_server_is_the_body_that_it_was_sent(
    words: list[str], server: Server, journal: Path, tmp_path: Path
) -> None:
    run = begun_talk(tmp_path, server, journal, *words)
    flowrun("answer", run, "--value", "true", "-q", journal=journal)
    shown = flowrun("show", run, "--prompt", "2", journal=journal)
    assert (shown.returncode, json.loads(shown.stdout)) == (0, server.asked.body)
    assert shown.stderr == f"run {run}, step 2, state reply: what the server of qwen was sent\n"
    data = json.loads(flowrun("show", run, "--prompt", "2", "--json", journal=journal).stdout)
    assert (data["body"], data["messages"]) == (server.asked.body, [{"role": "user", "content": "Say something."}])
    wrong = flowrun("show", run, "--prompt", "1", journal=journal)
    assert (wrong.returncode, wrong.stderr) == (
        2,
        f"flowrun: no model was asked in step '1' of run {run}; one was in: 2 (reply)\n",
    )
    both = flowrun("show", run, "--prompt", "2", "--full", journal=journal)
    assert (both.returncode, "it goes with --json only" in both.stderr) == (2, True)


def test_a_script_reads_no_prompt(journal: Path, tmp_path: Path) -> None:
    (tmp_path / "replies.yaml").write_text("replies: [{content: hello}]\n")
    spec = tmp_path / "hello.yaml"
    spec.write_text(
        "flowrun: v1\nname: hello\nversion: 1.0.0\nmodel: {backend: scripted, name: replies.yaml}\n"
        "messages: [{role: user, content: Hello.}]\n"
    )
    flowrun(spec, "--durable", journal=journal)
    (run,) = [row["id"] for row in listed(journal)]
    shown = flowrun("show", run, "--prompt", "1", journal=journal)
    assert (shown.returncode, "was answered by a script (backend: scripted)" in shown.stderr) == (1, True)


def test_a_scripted_model_gives_no_tokens_where_a_run_is_resumed(journal: Path, tmp_path: Path) -> None:
    (tmp_path / "replies.yaml").write_text("replies: [{content: hello}]\n")
    spec = tmp_path / "talk.yaml"
    spec.write_text(
        TALK.replace('{backend: openai, name: qwen, base_url: "URL"}', "{backend: scripted, name: replies.yaml}")
    )
    flowrun(spec, "--durable", journal=journal)
    (run,) = [row["id"] for row in listed(journal)]
    refused = flowrun("answer", run, "--value", "true", "--json", "--tokens", journal=journal)
    assert (refused.returncode, "gives no tokens: --tokens needs vLLM" in refused.stderr) == (1, True)
    assert [row["status"] for row in listed(journal)] == ["waiting"]


def test_an_answer_for_later(journal: Path) -> None:
    run = waiting_refund(journal)
    posted = flowrun("answer", run, "--value", '{"ok": false, "note": "no"}', "--later", journal=journal)
    assert (posted.returncode, f"the answer is stored for `flowrun resume {run}`" in posted.stderr) == (0, True)
    assert [row["status"] for row in listed(journal)] == ["waiting"]
    done = flowrun("resume", "--all", journal=journal)
    assert (done.returncode, done.stderr) == (0, f"{run}  refund  succeeded\n")


@pytest.mark.parametrize("later", [["--later"], []], ids=["later", "now"])
def test_a_second_answer_is_refused_by_name(journal: Path, later: list[str]) -> None:
    run = waiting_refund(journal)
    assert flowrun("answer", f"{run}/2/0", "--value", '{"ok": false}', "--later", journal=journal).returncode == 0
    second = flowrun("answer", run, "--value", '{"ok": true}', *later, journal=journal)
    assert (second.returncode, second.stderr) == (
        2,
        f'flowrun: the question {run}/2/0 was answered already, with {{"ok": false}}: that answer counts, and this one'
        f" is refused; `flowrun resume {run}` continues with it\n",
    )
    shown = flowrun("show", run, journal=journal).stdout
    assert f"  flowrun resume {run} (an answer was accepted, and is not read yet)\n" in shown
    assert json.loads(flowrun("resume", run, "-q", journal=journal).stdout) == {"paid": 0, "reason": "refused"}


def test_a_waiting_run_shows_how_it_is_answered(journal: Path, tmp_path: Path) -> None:
    run = waiting_refund(journal)
    how = f"flowrun answer {run} (asks for each field), or flowrun answer {run} --value '{{\"ok\": true}}'"
    page = tmp_path / "run.html"
    shown = flowrun("show", run, journal=journal)
    assert shown.stdout.endswith(f"! state approve waits for an answer\n  {how}\n")
    flowrun("show", run, "--html", page, journal=journal)
    assert f'<code class="mono">{html.escape(how).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")}</code>' in (
        page.read_text(encoding="utf-8")
    )


def test_a_cancelled_run_is_over(journal: Path) -> None:
    run = waiting_refund(journal)
    assert flowrun("cancel", run, "--reason", "a mistake", journal=journal).stderr == f"run {run} is cancelled\n"
    assert [row["status"] for row in listed(journal)] == ["cancelled"]
    again = flowrun("cancel", run, journal=journal)
    assert (again.returncode, f"run {run} has ended: cancelled" in again.stderr) == (2, True)
    assert flowrun("runs", "--status", "waiting", journal=journal).stdout.split() == [
        "run",
        "flow",
        "state",
        "status",
        "age",
    ]


def wait_for_calls(running: subprocess.Popen[Any], ledger: Path, count: int = 1) -> None:
    """Wait until a process has begun some calls, which their function writes to a ledger."""
    while running.poll() is None and (not ledger.exists() or len(ledger.read_text().split()) < count):
        time.sleep(0.01)


def start_and_kill(journal: Path, tmp_path: Path, *, idempotent: bool) -> tuple[Path, str]:
    """Start a run with a slow function, and kill its process during the call; return (ledger, run id)."""
    for name in ("spec.yaml", "replies.yaml", "functions.py"):
        text = (SPEC.parent / name).read_text()
        if idempotent:
            text = text.replace("type: call,", "type: call, idempotent: true,")
        (tmp_path / name).write_text(text)
    ledger = tmp_path / "ledger"
    running = subprocess.Popen(
        command("spec.yaml", "--durable", "-i", "number=61000", "--journal", journal),
        cwd=tmp_path,
        env={**os.environ, "FLOWRUN_TEST_LEDGER": str(ledger)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    wait_for_calls(running, ledger)
    running.send_signal(signal.SIGKILL)
    running.wait()
    (row,) = listed(journal)
    assert (row["status"], row["state"], row["holder"]) == ("interrupted", "act", None)
    (tmp_path / "functions.py").write_text((SPEC.parent / "functions.py").read_text().replace("> 1000", "> 100_000"))
    return ledger, row["id"]


def test_a_killed_run_needs_a_resolution_of_its_in_doubt_call(journal: Path, tmp_path: Path) -> None:
    ledger, run = start_and_kill(journal, tmp_path, idempotent=False)
    words = {"journal": journal, "cwd": tmp_path, "FLOWRUN_TEST_LEDGER": str(ledger)}
    stopped = flowrun("resume", run, **words)  # type: ignore[arg-type]
    assert stopped.returncode == 4
    assert "was begun, and nobody knows whether it was done" in stopped.stderr
    assert f"flowrun resume {run} --call {run}/2/0 --run-again" in stopped.stderr
    assert [row["status"] for row in listed(journal)] == ["needs_attention"]
    done = flowrun("resume", run, "--assume-done", "--value", "122000", **words)  # type: ignore[arg-type]
    assert (done.returncode, json.loads(done.stdout)) == (0, {"doubled": 122000, "note": "none"})
    assert ledger.read_text() == "61000\n"


TWO_CALLS = """
flowrun: v1
name: two
version: 1.0.0
model: {backend: scripted, name: replies.yaml}
tools: {go: {entrypoint: "slow:go"}}
states:
  ask: {type: chat, messages: [{role: user, content: Go twice.}], next: act}
  act: {type: tools, next: done}
  done: {type: end, output: "{{ results | map(attribute='value') | list }}"}
"""
TWO_REPLIES = "replies: [{repeat: true, tool_calls: [{name: go, arguments: {}}, {name: go, arguments: {}}]}]"


@pytest.mark.parametrize(
    ("assumed", "calls", "output"),
    [
        pytest.param(0, 4, ["gone", "gone"], id="both_made_again"),
        pytest.param(1, 3, ["was gone", "gone"], id="one_of_them"),
        pytest.param(2, 2, ["was gone", "was gone"], id="none"),
    ],
)
def test_each_printed_command_moves_a_run_with_several_in_doubt_calls_on(
    journal: Path, slow: Path, assumed: int, calls: int, output: list[str]
) -> None:
    (slow / "spec.yaml").write_text(TWO_CALLS)
    (slow / "replies.yaml").write_text(TWO_REPLIES)
    environ = {**os.environ, "FLOWRUN_JOURNAL": str(journal)}
    with subprocess.Popen(command("spec.yaml", "--durable", "-q"), cwd=slow, env=environ) as process:
        while not (slow / "calls").exists() or len((slow / "calls").read_text()) < 10:
            time.sleep(0.02)
        process.kill()
    (slow / "fast").touch()
    run = listed(journal)[0]["id"]
    done = flowrun("resume", run, journal=journal, cwd=slow)
    shown = flowrun("show", run, journal=journal).stdout
    for index in range(2):
        assert f"flowrun resume {run} --call {run}/2/{index} --assume-done, or, once" in " ".join(shown.split())
    for _ in range(assumed):
        assert done.returncode == 4
        words = next(line for line in done.stderr.splitlines() if line.endswith("--assume-done")).split()
        done = flowrun(*words[2:], "--value", '"was gone"', journal=journal, cwd=slow)
    if assumed < 2:
        [words] = [line.split() for line in done.stderr.splitlines() if line.endswith("--run-again")]
        done = flowrun(*words[2:], journal=journal, cwd=slow)
    assert (done.returncode, json.loads(done.stdout)) == (0, output), done.stderr
    assert (slow / "calls").read_text() == "call " * calls


FAMILY = """
flowrun: v1
name: family
version: 1.0.0
flows:
  child:
    states:
      first: FIRST
      second: {type: call, idempotent: true, entrypoint: "slow:go", next: done}
      done: {type: end, output: "{{ outputs.second }}"}
states:
  only: {type: flow, flow: "#child", next: done}
  done: {type: end, output: "{{ outputs.only }}"}
"""


@pytest.mark.parametrize(
    ("first", "words", "calls"),
    [
        pytest.param(
            '{type: call, entrypoint: "slow:go", next: second}', ("resume", "RUN", "--assume-done"), 1, id="in_doubt"
        ),
        pytest.param("{type: wait, prompt: Now?, next: second}", ("answer", "RUN", "--value", "1"), 0, id="waiting"),
    ],
)
def test_a_run_whose_child_went_on_before_a_kill_is_interrupted(
    journal: Path, slow: Path, first: str, words: tuple[str, ...], calls: int
) -> None:
    (slow / "spec.yaml").write_text(FAMILY.replace("FIRST", first))
    environ = {**os.environ, "FLOWRUN_JOURNAL": str(journal)}
    with subprocess.Popen(command("spec.yaml", "--durable", "-q"), cwd=slow, env=environ) as process:
        while process.poll() is None and not (slow / "calls").exists():
            time.sleep(0.02)
        process.kill()
    [row] = listed(journal)
    flowrun("resume", "--all", journal=journal, cwd=slow)
    began = len((slow / "calls").read_text()) if calls else 0
    words = tuple(row["id"] if word == "RUN" else word for word in words)
    with subprocess.Popen(command(*words, "-q"), cwd=slow, env=environ) as process:
        while process.poll() is None and not ((slow / "calls").exists() and len((slow / "calls").read_text()) > began):
            time.sleep(0.02)
        process.kill()
    assert [row["status"] for row in listed(journal)] == ["interrupted"]
    (slow / "fast").touch()
    done = flowrun("resume", "--all", journal=journal, cwd=slow)
    assert (done.returncode, done.stderr) == (0, f"{row['id']}  family  succeeded\n")


def test_a_killed_run_with_an_idempotent_call_is_resumed(journal: Path, tmp_path: Path) -> None:
    ledger, run = start_and_kill(journal, tmp_path, idempotent=True)
    done = flowrun("resume", "--all", journal=journal, cwd=tmp_path, FLOWRUN_TEST_LEDGER=str(ledger))
    assert (done.returncode, done.stderr) == (0, f"{run}  doubler  succeeded\n")
    assert ledger.read_text() == "61000\n61000\n"


def test_a_run_is_resumed_with_the_spec_that_it_began_with(journal: Path, tmp_path: Path) -> None:
    spec = tmp_path / "wait.yaml"
    text = (
        "flowrun: v1\nname: ask\nversion: 1.0.0\nstates:\n"
        "  ask: {type: wait, prompt: Well?, schema: {type: integer}, next: done}\n"
        "  done: {type: end, output: '{{ outputs.ask + 1 }}'}\n"
    )
    spec.write_text(text)
    flowrun(spec, "--durable", journal=journal)
    (row,) = listed(journal)
    same = flowrun("replay", row["id"], journal=journal)
    assert (same.returncode, same.stdout) == (0, "today's spec does the same, to the last recorded event\n")

    spec.write_text(text.replace("+ 1", "+ 2").replace("Well?", "How many?"))
    other = flowrun("replay", row["id"], journal=journal)
    assert (other.returncode, "How many?" in other.stdout) == (1, True)
    done = flowrun("answer", row["id"], "--value", "1", journal=journal)
    assert (done.returncode, done.stdout) == (0, "2\n")
    assert "has changed since; the run resumes with the spec that it began with" in done.stderr


def test_two_processes_do_not_drive_one_run(journal: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    running = subprocess.Popen(
        command(SPEC, "--durable", "-i", "number=61000", "--journal", journal),
        env={**os.environ, "FLOWRUN_TEST_LEDGER": str(ledger)},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for_calls(running, ledger)
    (row,) = listed(journal)
    assert (row["status"], row["holder"]["pid"]) == ("running", running.pid)
    refused = flowrun("resume", row["id"], journal=journal)
    assert (refused.returncode, f"is being driven by process {running.pid}" in refused.stderr) == (2, True)
    cancelled = flowrun("cancel", row["id"], "--reason", "too slow", journal=journal)
    assert (cancelled.returncode, "is asked to end run" in cancelled.stderr) == (0, True)
    _, stderr = running.communicate(timeout=30)
    assert (running.returncode, "run.cancelled in state act: too slow" in stderr) == (1, True)
    assert [row["status"] for row in listed(journal)] == ["cancelled"]


def test_a_run_can_be_shown_without_its_code(journal: Path, tmp_path: Path) -> None:
    _, run = start_and_kill(journal, tmp_path, idempotent=False)
    (tmp_path / "functions.py").unlink()
    assert "act  call" in flowrun("show", run, journal=journal).stdout
    assert flowrun("resume", run, journal=journal).returncode == 1
    assert flowrun("cancel", run, journal=journal).stderr == f"run {run} is cancelled\n"
    nowhere = flowrun("show", run, "--html", "no/such/folder/run.html", journal=journal)
    assert (nowhere.returncode, "No such file or directory" in nowhere.stderr) == (2, True)
    assert flowrun("cancel", "", journal=journal).returncode == 2


def test_no_journal_yet(journal: Path) -> None:
    empty = flowrun("runs", journal=journal)
    assert (empty.returncode, empty.stdout, "no durable run is stored" in empty.stderr) == (0, "", True)
    for words in (["show", "x"], ["resume", "x"], ["answer", "x"], ["journal", "prune", "--older-than", "1d"]):
        done = flowrun(*words, journal=journal)
        assert (done.returncode, "is not there: no run has been stored in it" in done.stderr) == (1, True), words
    assert not journal.exists()


def test_old_runs_are_deleted_from_the_journal(journal: Path) -> None:
    flowrun(REFUND, "--durable", "-i", "amount=60", journal=journal)
    run = waiting_refund_too(journal)
    pruned = flowrun("journal", "prune", "--older-than", "0s", journal=journal)
    assert (pruned.returncode, pruned.stderr.startswith("1 runs deleted")) == (0, True)
    assert [row["id"] for row in listed(journal)] == [run]
    assert "bytes before" in flowrun("journal", "vacuum", journal=journal).stderr
    assert flowrun("journal", "prune", "--older-than", "soon", journal=journal).returncode == 2


def waiting_refund_too(journal: Path) -> str:
    flowrun(REFUND, "--durable", "-i", "amount=500", journal=journal)
    return next(str(row["id"]) for row in listed(journal) if row["status"] == "waiting")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        pytest.param(["resume"], "name a run, or say --all", id="neither"),
        pytest.param(["resume", "x", "--all"], "name a run, or say --all", id="both"),
        pytest.param(["resume", "x", "--assume-done", "--run-again"], "either made", id="made and not made"),
        pytest.param(["resume", "x", "--value", "1"], "go with --assume-done", id="a value of nothing"),
        pytest.param(["resume", "x", "--assume-done", "--value", "{"], "no JSON", id="no JSON"),
    ],
)
def test_wrong_usage(journal: Path, words: list[str], message: str) -> None:
    done = flowrun(*words, journal=journal)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def batch(folder: Path, journal: Path, *words: str, **environ: str) -> subprocess.CompletedProcess[str]:
    arguments = ("batch", "spec.yaml", "in.jsonl", "-o", "out.jsonl", "--durable", *words)
    return flowrun(*arguments, journal=journal, cwd=folder, **environ)


def results(folder: Path) -> dict[int, Any]:
    lines = [json.loads(line) for line in (folder / "out.jsonl").read_text().splitlines()]
    assert len({line["row"] for line in lines}) == len(lines)
    return {line["row"]: line["output"] or line["error"]["name"] for line in lines}


def test_a_killed_batch_resumes_its_runs(journal: Path, tmp_path: Path) -> None:
    for name in ("spec.yaml", "replies.yaml", "functions.py"):
        (tmp_path / name).write_text((SPEC.parent / name).read_text())
    numbers = [*range(1, 6), *([61000] * 5), *range(6, 14)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"number": number}) + "\n" for number in numbers))
    ledger = tmp_path / "ledger"
    running = subprocess.Popen(
        command("batch", "spec.yaml", "in.jsonl", "-o", "out.jsonl", "--durable", "--journal", journal),
        cwd=tmp_path,
        env={**os.environ, "FLOWRUN_TEST_LEDGER": str(ledger)},
        stderr=subprocess.DEVNULL,
    )
    wait_for_calls(running, ledger, len(numbers))
    while len(results(tmp_path)) < 13:
        time.sleep(0.01)
    running.kill()
    running.wait()
    (tmp_path / "functions.py").write_text((SPEC.parent / "functions.py").read_text().replace("> 1000", "> 100_000"))

    again = batch(tmp_path, journal, FLOWRUN_TEST_LEDGER=str(ledger))
    assert (again.returncode, "5 have a call in doubt" in again.stderr) == (1, True)
    assert "--status needs_attention" in again.stderr
    undurable = flowrun("batch", "spec.yaml", "in.jsonl", "-o", "out.jsonl", journal=journal, cwd=tmp_path)
    assert (undurable.returncode, "was begun with --durable --journal" in undurable.stderr) == (2, True)
    assert len(ledger.read_text().split()) == len(numbers)
    rows = listed(journal, "--status", "needs_attention")
    assert len(rows) == 5
    for row in rows[:2]:
        resumed = flowrun("resume", row["id"], "--run-again", "-q", journal=journal, cwd=tmp_path)
        assert (resumed.returncode, json.loads(resumed.stdout)["doubled"]) == (0, 122000)
    all_resumed = flowrun("resume", "--all", "--assume-done", "--value", "7", journal=journal, cwd=tmp_path)
    assert all_resumed.returncode == 0
    last = batch(tmp_path, journal)
    assert "in doubt" not in last.stderr
    outputs = results(tmp_path)
    assert [outputs[row] for row in (1, 18)] == [{"doubled": 2, "note": "none"}, "tool.failed"]
    assert sorted(outputs[row]["doubled"] for row in range(6, 11)) == [7, 7, 7, 122000, 122000]
    assert len(outputs) == len(numbers)

    retried = batch(tmp_path, journal, "--retry-failed", FLOWRUN_TEST_LEDGER=str(ledger))
    assert (retried.returncode, ledger.read_text().split()[-1]) == (1, "13")
    assert len(results(tmp_path)) == len(numbers)
    assert {row["id"].partition("-")[2] for row in listed(journal, "--status", "failed")} == {"18", "18-2"}


def batch_within_row_3(journal: Path, folder: Path) -> "subprocess.Popen[str]":
    """Start a batch of six rows, and return it while the call of row 3 runs, until there is a file ``go``."""
    for name in ("spec.yaml", "replies.yaml"):
        (folder / name).write_text((SPEC.parent / name).read_text())
    (folder / "functions.py").write_text(
        "import asyncio, pathlib\n\n\nasync def double(number: int) -> int:\n"
        "    if number == 3:\n        pathlib.Path('ledger').write_text('3')\n"
        "        while not pathlib.Path('go').exists():\n            await asyncio.sleep(0.01)\n"
        "    return number * 2\n"
    )
    (folder / "in.jsonl").write_text("".join(json.dumps({"number": number}) + "\n" for number in range(1, 7)))
    words = ("batch", "spec.yaml", "in.jsonl", "-o", "out.jsonl", "--durable", "--max-live", "2", "--journal", journal)
    running = subprocess.Popen(command(*words), cwd=folder, stderr=subprocess.PIPE, text=True)
    wait_for_calls(running, folder / "ledger")
    return running


def test_a_row_whose_run_another_process_resumed_ends_alone(journal: Path, tmp_path: Path) -> None:
    running = batch_within_row_3(journal, tmp_path)
    [run] = [row["id"] for row in listed(journal) if row["id"].endswith("-3")]
    with closing(sqlite3.connect(journal, timeout=60)) as file, file:
        file.execute("UPDATE runs SET holder = NULL WHERE id = ?", (run,))
    other = flowrun("resume", run, "--assume-done", "--value", "7", "-q", journal=journal, cwd=tmp_path)
    assert (other.returncode, json.loads(other.stdout)["doubled"]) == (0, 7)
    (tmp_path / "go").touch()
    running.communicate(timeout=60)
    assert running.returncode == 1
    lost = rf"run {run} cannot continue here: its event \d+ is not the next: another process has resumed it"
    assert re.search(lost, (tmp_path / "out.jsonl").read_text())
    doubled = {row: {"doubled": 2 * row, "note": "none"} for row in range(1, 7)}
    assert results(tmp_path) == {**doubled, 3: "journal.lease_lost"}

    retried = batch(tmp_path, journal, "--retry-failed")
    assert retried.returncode == 0
    assert results(tmp_path) == {**doubled, 3: {"doubled": 7, "note": "none"}}


def test_a_batch_that_was_taken_for_dead_ends(journal: Path, tmp_path: Path) -> None:
    running = batch_within_row_3(journal, tmp_path)
    with closing(sqlite3.connect(journal, timeout=60)) as file, file:
        file.execute("DELETE FROM holders")
    (tmp_path / "go").touch()
    _, shown = running.communicate(timeout=60)
    assert (running.returncode, "another process took this one for dead" in shown) == (1, True)
    assert 3 not in results(tmp_path)


def test_the_runs_of_a_batch_that_wait_get_their_results_later(journal: Path, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(
        "flowrun: v1\nname: ask\nversion: 1.0.0\n"
        "model:\n  backend: scripted\n  name: r.yaml\n  sampling:\n    seed: ${SEED:-1}\n"
        "inputs: {n: {type: integer}}\nstates:\n"
        "  ask: {type: wait, prompt: Well?, schema: {type: integer}, next: done}\n"
        "  done: {type: end, output: '{{ inputs.n + outputs.ask }}'}\n"
    )
    (tmp_path / "r.yaml").write_text("replies: []\n")
    (tmp_path / "in.jsonl").write_text('{"n": 1}\n{"n": 2}\n')
    first = batch(tmp_path, journal)
    assert (first.returncode, "2 wait for human input" in first.stderr, results(tmp_path)) == (1, True, {})
    run = next(row["id"] for row in listed(journal) if row["id"].endswith("-2"))
    assert flowrun("answer", run, "--value", "40", journal=journal).stdout == "42\n"
    second = batch(tmp_path, journal)
    assert (second.returncode, "1 wait for human input" in second.stderr, results(tmp_path)) == (1, True, {2: 42})
    run = next(row["id"] for row in listed(journal) if row["id"].endswith("-1"))
    assert flowrun("answer", run, "--value", "40", journal=journal).stdout == "41\n"
    # with another value of a variable: what has ended is shown as it was, by its own flow
    third = batch(tmp_path, journal, SEED="2")
    assert (third.returncode, results(tmp_path)) == (0, {1: 41, 2: 42})


DATA = """\
flowrun: v1
name: order
version: 1.0.0
model:
  backend: scripted
  name: replies.yaml
  sampling:
    max_tokens: ${MAX_TOKENS:-64}
    seed: ${SEED:-7}
models:
  far: {backend: openai, name: m, base_url: "${URL:-http://127.0.0.1:9/v1}", api_key: "${ORDER_KEY}"}
inputs: {text: {type: string, default: pay 100 EUR to account 100-7}, stage: {type: string, default: none}}
profiles: {live: {inputs: {stage: {default: "${STAGE}"}}}}
states:
  ask: {type: wait, prompt: "Do it?", schema: {type: boolean}, next: check, retry: {max_attempts: 5}}
  check: {type: route, routes: [{when: "'100' in inputs.text and inputs.stage == 'STAGE-5'", to: done}, {to: bad}]}
  bad: {type: end, status: failed, output: "{{ inputs }}"}
  done: {type: end, output: "{{ inputs.text }}"}
"""


def test_a_stored_flow_does_not_depend_on_the_environment(journal: Path, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(DATA)
    (tmp_path / "replies.yaml").write_text("replies: []\n")
    environ = {"MAX_TOKENS": "100", "STAGE": "STAGE-5", "SEED": "5", "ORDER_KEY": "sk-order-0123456789"}
    first = flowrun("spec.yaml", "--durable", "--profile", "live", journal=journal, cwd=tmp_path, **environ)
    assert first.returncode == 4
    (row,) = listed(journal)
    stored = b"".join(file.read_bytes() for file in journal.parent.glob("journal.sqlite*"))
    assert b"sk-order" not in stored
    assert b"pay 100 EUR to account 100-7" in stored
    # resumed with other or missing variables: only the secret is read from the current environment
    words = ("answer", row["id"], "--value", "true", "-q")
    done = flowrun(*words, journal=journal, cwd=tmp_path, STAGE="other", ORDER_KEY="sk-other-0123456789")
    assert (done.returncode, done.stdout) == (0, "pay 100 EUR to account 100-7\n")


ECHO = """\
flowrun: v1
name: echo
version: 1.0.0
secrets: [ORDER_KEY]
model: {backend: scripted, name: replies.yaml}
messages: [{role: user, content: Hello.}]
"""


def test_a_secret_that_a_model_says_shows_nowhere(journal: Path, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(ECHO)
    (tmp_path / "replies.yaml").write_text("replies: [{content: the key is sk-order-0123456789}]\n")
    environ = {"ORDER_KEY": "sk-order-0123456789"}
    done = flowrun("spec.yaml", "--durable", journal=journal, cwd=tmp_path, **environ)
    full = flowrun("spec.yaml", "--json", journal=journal, cwd=tmp_path, **environ)
    (row,) = listed(journal)
    page = tmp_path / "run.html"
    shown = [
        flowrun("show", row["id"], *words, journal=journal, cwd=tmp_path, **environ)
        for words in ((), ("--json",), ("--full",), ("--html", page))
    ]
    output = "".join(one.stdout + one.stderr for one in (done, full, *shown)) + page.read_text()
    assert "sk-order" not in output
    assert output.count("the key is ${ORDER_KEY}") >= 6


ASKS = """\
flowrun: v1
name: asks
version: 1.0.0
secrets: [SHOP_TOKEN]
inputs: {tokens: {type: array}}
states:
  both:
    type: map
    for_each: inputs.tokens
    as: token
    flow: "#one"
    with: {token: "{{ token }}"}
    next: done
  done: {type: end}
flows:
  one:
    inputs: {token: {type: string}}
    states:
      ask: {type: wait, prompt: "Use {{ inputs.token }}?", schema: {enum: [shop-0123456789, none]}, next: done}
      done: {type: end}
"""


def test_a_secret_in_a_question_shows_nowhere(journal: Path, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(ASKS)
    environ = {"SHOP_TOKEN": "shop-0123456789"}
    tokens = 'tokens=["shop-0123456789", "b"]'
    started = flowrun("spec.yaml", "--durable", "-i", tokens, journal=journal, cwd=tmp_path, **environ)
    (row,) = listed(journal)
    unclear = flowrun("answer", row["id"], "--value", "x", journal=journal, cwd=tmp_path, **environ)
    refused = flowrun("answer", f"{row['id']}.1.0", "--value", "x", journal=journal, cwd=tmp_path, **environ)
    output = [started.stdout + started.stderr, unclear.stderr, refused.stderr]
    assert [(text.count("shop-0123456789"), "${SHOP_TOKEN}" in text) for text in output] == [(0, True)] * 3


SLOW = """\
flowrun: v1
name: slow
version: 1.0.0
inputs: {n: {type: integer, default: 1}}
states:
  go: {type: call, entrypoint: "slow:go", next: again}
  again: {type: call, entrypoint: "slow:go", next: done}
  done: {type: end, output: "{{ outputs.go }}"}
"""
SLOW_TOOL = """\
import pathlib, time

def go() -> str:
    with open("calls", "a") as file:
        file.write("call ")
    if not pathlib.Path("fast").exists():
        time.sleep(2)
    return "gone"
"""


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    (tmp_path / "spec.yaml").write_text(SLOW)
    (tmp_path / "slow.py").write_text(SLOW_TOOL)
    (tmp_path / "rows.jsonl").write_text('{"n": 1}\n')
    return tmp_path


STARTS = [
    pytest.param(("spec.yaml", "--durable"), id="run"),
    pytest.param(("batch", "spec.yaml", "rows.jsonl", "-o", "out.jsonl", "--durable", "-q"), id="batch"),
]


@pytest.mark.parametrize("words", STARTS)
@pytest.mark.parametrize(("drain", "calls", "code"), [("10s", 2, 0), ("100ms", 1, 4)])
def test_sigterm_lets_calls_return(
    journal: Path, slow: Path, words: tuple[str, ...], drain: str, calls: int, code: int
) -> None:
    environ = {**os.environ, "FLOWRUN_JOURNAL": str(journal)}
    with subprocess.Popen(command(*words, "--drain", drain), cwd=slow, env=environ, stderr=subprocess.PIPE) as process:
        while not (slow / "calls").exists():
            time.sleep(0.05)
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 130
    (slow / "fast").touch()
    assert (slow / "calls").read_text() == "call "
    done = flowrun("resume", "--all", journal=journal, cwd=slow)
    assert (done.returncode, (slow / "calls").read_text()) == (code, "call " * calls), done.stderr


def test_a_project_that_was_moved_resumes_where_it_is_now(journal: Path, tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    (before / "specs").mkdir(parents=True)
    (before / "specs" / "spec.yaml").write_text(
        "flowrun: v1\nname: moved\nversion: 1.0.0\nstates:\n"
        "  ok: {type: wait, prompt: Go?, next: go}\n"
        "  go: {type: call, entrypoint: 'tl:go', next: ok2}\n"
        "  ok2: {type: wait, prompt: Again?, next: done}\n"
        "  done: {type: end, output: '{{ outputs.go }}'}\n"
    )
    (before / "tl.py").write_text("def go() -> str:\n    return 'gone'\n")
    flowrun("specs/spec.yaml", "--durable", "--project-dir", ".", journal=journal, cwd=before)
    before.rename(after)
    (row,) = listed(journal)
    answer = flowrun("answer", row["id"], "--value", "true", "--project-dir", after, journal=journal)
    assert (answer.returncode, f"--project-dir {after}" in answer.stderr) == (4, True), answer.stderr
    flowrun("answer", row["id"], "--value", "true", "--later", journal=journal)
    assert flowrun("resume", row["id"], journal=journal).returncode == 1
    resumed = flowrun("resume", row["id"], "--project-dir", after, journal=journal)
    assert (resumed.returncode, resumed.stdout) == (0, "gone\n"), resumed.stderr
    replayed = flowrun("replay", row["id"], "--project-dir", after, journal=journal)
    assert (replayed.returncode, replayed.stdout) == (0, "today's spec does the same, to the last recorded event\n")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        pytest.param(
            "UPDATE events SET before = 0 WHERE no = (SELECT last FROM heads WHERE run = 1)",
            "event 1 of 2 is not in the journal",
            id="the chain of events",
        ),
        pytest.param(
            "UPDATE inbox SET body = '{' WHERE no = 2", "in its inbox, an event of the journal", id="the inbox"
        ),
    ],
)
def test_a_damaged_run_stops_only_itself(journal: Path, slow: Path, damage: str, reason: str) -> None:
    runs = answered_runs(journal, slow)
    change(journal, damage)
    done = flowrun("resume", "--all", journal=journal, cwd=slow)
    assert (done.returncode, f"{runs[1]}  two  succeeded" in done.stderr) == (1, True), done.stderr
    assert f"{runs[0]}  two  run {runs[0]} is damaged: {reason}" in done.stderr
    assert {row["id"] for row in listed(journal)} == set(runs)
    check = flowrun("journal", "check", journal=journal)
    assert (check.returncode, check.stdout.split()[0], "2 runs checked: 1 damaged" in check.stderr) == (
        1,
        runs[0],
        True,
    )
    assert flowrun("show", runs[0], journal=journal).returncode == 1


@pytest.mark.parametrize(
    "damage", ["UPDATE specs SET body = 'x'", "DELETE FROM specs"], ids=["it cannot be read", "it is gone"]
)
def test_a_damaged_flow_stops_its_runs_by_name(journal: Path, slow: Path, damage: str) -> None:
    runs = answered_runs(journal, slow)
    change(journal, damage)
    done = flowrun("resume", "--all", journal=journal, cwd=slow)
    assert (done.returncode, done.stderr.partition("  ")[0]) == (1, f"{runs[1]}, {runs[0]}")
    assert f"run {runs[1]} is damaged: " in done.stderr
    check = flowrun("journal", "check", journal=journal)
    assert [line.split()[0] for line in check.stdout.splitlines()] == [runs[1], runs[0]]


def test_a_run_of_an_unknown_status_is_listed_as_damaged(journal: Path, slow: Path) -> None:
    runs = answered_runs(journal, slow)
    change(journal, "UPDATE runs SET status = 'lost' WHERE no = 1")
    listed_now = flowrun("runs", journal=journal)
    assert [line.split()[3:4] for line in listed_now.stdout.splitlines()[1:]] == [["waiting"], ["damaged"]]
    assert flowrun("journal", "check", journal=journal).stdout.split()[0] == runs[0]


def answered_runs(journal: Path, folder: Path) -> list[str]:
    """Return two runs, each with an answer that it has read and one that it has not."""
    (folder / "spec.yaml").write_text(
        "flowrun: v1\nname: two\nversion: 1.0.0\nstates:\n  one: {type: wait, prompt: a, next: two}\n"
        "  two: {type: wait, prompt: b, next: done}\n  done: {type: end, output: 1}\n"
    )
    runs = []
    for _ in range(2):
        started = flowrun("spec.yaml", "--durable", "--json", journal=journal, cwd=folder)
        runs.append(json.loads(started.stdout)["run"])
        flowrun("answer", runs[-1], "--value", "1", journal=journal, cwd=folder)
        flowrun("answer", runs[-1], "--value", "1", "--later", journal=journal, cwd=folder)
    return runs


def change(journal: Path, statement: str) -> None:
    with closing(sqlite3.connect(journal)) as connection, connection:
        connection.execute(statement)
    connection.close()


def test_a_journal_that_is_deleted_under_a_run_is_noticed(journal: Path, slow: Path) -> None:
    (slow / "slow.py").write_text(f"import os\n\ndef go() -> str:\n    os.remove({str(journal)!r})\n    return 'x'\n")
    done = flowrun("spec.yaml", "--durable", journal=journal, cwd=slow)
    assert (done.returncode, "was deleted while it was in use" in done.stderr) == (1, True), done.stderr
