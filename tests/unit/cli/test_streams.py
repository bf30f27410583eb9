"""stdout has only the answer, whatever other code writes to it by any API."""

import io
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from textwrap import dedent, indent

import pytest

from flowrun.cli.streams import answer_stream

PROGRAM = """
import asyncio, ctypes, os, subprocess, sys, threading, multiprocessing
from flowrun.cli.streams import answer_stream, input_descriptor
old = sys.stdout
before()
with answer_stream() as answers:
    answers.write("the ")
    during()
    answers.write("answer\\n")
after()
"""


def program(during: str = "pass", *, before: str = "pass", after: str = "pass") -> list[str]:
    """Return the command of a program that writes an answer and runs code before, during and after it."""
    parts = {"before": before, "during": during, "after": after}
    functions = "".join(f"def {name}():\n{indent(dedent(code), '    ')}\n" for name, code in parts.items())
    return [sys.executable, "-c", functions + PROGRAM]


def run(command: list[str]) -> tuple[int, str, str]:
    """Run a command; return (exit code, stdout, stderr)."""
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        pytest.param("print('noise')", "noise\n", id="print"),
        pytest.param("old.write('noise')", "noise", id="an object kept from before"),
        pytest.param("sys.__stdout__.write('noise')", "noise", id="the original object"),
        pytest.param("sys.stdout.buffer.write(b'noise')", "noise", id="bytes"),
        pytest.param("os.write(1, b'noise')", "noise", id="descriptor"),
        pytest.param("t = threading.Thread(target=print, args=['noise']); t.start(); t.join()", "noise\n", id="thread"),
        pytest.param("asyncio.run(asyncio.to_thread(print, 'noise'))", "noise\n", id="thread of a loop"),
        pytest.param("ctypes.CDLL(None).puts(b'noise')", "noise\n", id="C, which holds it back"),
        pytest.param("ctypes.CDLL(None).system(b'echo noise')", "noise\n", id="C's child"),
        pytest.param("subprocess.run(['echo', 'noise'])", "noise\n", id="child"),
        pytest.param("os.fork() or (print('noise', flush=True), os._exit(0)); os.wait()", "noise\n", id="fork"),
    ],
)
def test_whatever_else_is_written_goes_to_stderr(code: str, shown: str) -> None:
    assert run(program(code)) == (0, "the answer\n", shown)


def test_children_cannot_even_reach_the_real_stdout() -> None:
    count = (
        "subprocess.run(['sh', '-c', 'for fd in 3 4 5 6 7 8 9; do echo noise >&$fd; done'], stderr=subprocess.DEVNULL)"
    )
    assert run(program(count)) == (0, "the answer\n", "")


def test_everything_is_restored_afterwards() -> None:
    before = "print('before'); ctypes.CDLL(None).puts(b'C before')"
    after = """
        assert sys.stdout is old
        print('after')
        sys.stdout.flush()
        subprocess.run(['echo', 'child after'])
    """
    assert run(program("print('noise')", before=before, after=after)) == (
        0,
        "before\nC before\nthe answer\nafter\nchild after\n",
        "noise\n",
    )


def test_an_error_meanwhile_restores_everything() -> None:
    original = sys.stdout
    with pytest.raises(ZeroDivisionError), answer_stream():
        raise ZeroDivisionError
    assert sys.stdout is original


def test_the_answer_may_be_any_text() -> None:
    assert run(program("answers.write('Zoë \\N{snowman} ')")) == (0, "the Zoë \N{SNOWMAN} answer\n", "")


@pytest.mark.parametrize(
    ("redirections", "stdout", "stderr"),
    [
        (">&-", "", "noise\n"),
        ("2>&-", "the answer\n", ""),
        (">&- 2>&-", "", ""),
        ("2>/dev/full", "the answer\n", ""),
    ],
)
def test_closed_streams_are_handled(redirections: str, stdout: str, stderr: str) -> None:
    closing = ["sh", "-c", f'exec "$@" {redirections}', "sh"]
    assert run(closing + program("print('noise')")) == (0, stdout, stderr)


def test_a_reader_that_has_gone_is_reported() -> None:
    pipe = subprocess.PIPE
    with subprocess.Popen(
        program("os.read(input_descriptor(), 1)"), stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, stderr = process.communicate()
    assert process.returncode == 1
    assert stderr.splitlines()[-1] == "BrokenPipeError: [Errno 32] Broken pipe"
    assert "Exception ignored" not in stderr


def test_an_object_that_replaces_stdout_gets_the_answer() -> None:
    with redirect_stdout(io.StringIO()) as shown, redirect_stderr(io.StringIO()) as noise:
        with answer_stream() as answers:
            print("noise")
            answers.write("the answer\n")
        print("after")
    assert (shown.getvalue(), noise.getvalue()) == ("the answer\nafter\n", "noise\n")


VERBS = [
    ("run", "-q"),
    ("run", "-q", "--json"),
    ("run", "-q", "--durable", "--journal", "{tmp}/j.sqlite"),
    ("graph",),
    ("validate", "--format", "json"),
    ("run", "--help"),
    ("--help",),
]


@pytest.mark.parametrize(
    ("redirection", "why"), [("> /dev/full", "No space left on device"), (">&-", "Bad file descr")]
)
@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_a_stdout_that_cannot_be_written_is_an_error_of_one_line(
    tmp_path: Path, verb: tuple[str, ...], redirection: str, why: str
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text("flowrun: v1\nname: s\nversion: 1.0.0\nstates: {done: {type: end, output: 1}}\n")
    words = [word.format(tmp=tmp_path) for word in verb] + ([] if "--help" in verb else [str(spec)])
    code, _, stderr = run(["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "flowrun", *words])
    last = stderr.splitlines()[-1]
    assert (code, last.startswith(f"flowrun: stdout cannot be written: {why}")) == (1, True), stderr
    assert ("is stored: flowrun show" in last) == ("--durable" in verb)
    assert "Traceback" not in stderr
    assert "Exception ignored" not in stderr


@pytest.mark.parametrize(
    ("words", "answer"),
    [("run spec.yaml", "1\n"), ("batch spec.yaml rows.jsonl -o out.jsonl", "")],
    ids=["run", "batch"],
)
def test_a_stderr_that_is_full_costs_no_run(tmp_path: Path, words: str, answer: str) -> None:
    (tmp_path / "spec.yaml").write_text(
        "flowrun: v1\nname: one\nversion: 1.0.0\nstates: {done: {type: end, output: 1}}\n"
    )
    (tmp_path / "rows.jsonl").write_text("{}\n")
    script = f'cd "{tmp_path}" && exec "{sys.executable}" -m flowrun {words} 2> /dev/full'
    assert run(["sh", "-c", script]) == (0, answer, "")
