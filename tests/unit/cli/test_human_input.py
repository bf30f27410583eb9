"""A wait state asks the user at the terminal, with the prompt and the form of the answer."""

import asyncio
import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flowrun.cli import human_input
from flowrun.cli.human_input import TerminalInput, read_answer
from flowrun.runtime.run_result import InputRequest

ROOT = Path(__file__).parents[3]
TIMEOUT = 60  # seconds; only a hang takes so long


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        pytest.param("yes", {"type": "boolean"}, True, id="yes"),
        pytest.param("N", {"type": "boolean"}, False, id="no"),
        pytest.param("perhaps", {"type": "boolean"}, "perhaps", id="neither, which the schema will refuse"),
        pytest.param("12", {"type": "string"}, "12", id="text stays text"),
        pytest.param("12", {"type": "integer"}, 12, id="a number"),
        pytest.param('{"ok": true}', {"type": "object"}, {"ok": True}, id="JSON"),
        pytest.param("fine", {}, "fine", id="anything"),
    ],
)
def test_reading_an_answer(text: str, schema: Mapping[str, Any], value: Any) -> None:
    assert read_answer(text, schema) == value


def test_asking_on_a_terminal_until_the_answer_matches() -> None:
    with _terminal() as (ours, process):
        asked = _until(ours, " > ")
        assert "Pay 500 back to customer 3 for order 45?" in asked
        os.write(ours, b'{"ok": "perhaps"}\n')
        assert "that does not match" in _until(ours, " > ")
        os.write(ours, b'{"ok": true}\n')
        _until(ours, "succeeded")
        out, _ = process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0
        assert json.loads(out) == {"paid": 500, "entry": 1}


def test_answering_field_by_field_and_going_back() -> None:
    with _terminal() as (ours, process):
        asked = _until(ours, "ok, yes or no > ")
        assert "2 fields; < goes back to the one before" in asked
        os.write(ours, b"perhaps\n")
        assert "that does not match" in _until(ours, "ok, yes or no > ")
        os.write(ours, b"n\n")
        _until(ours, "note, text (Enter leaves it out) > ")
        os.write(ours, b"<\n")
        _until(ours, "ok, yes or no (Enter keeps no) > ")
        os.write(ours, b"yes\n")
        _until(ours, "note, text (Enter leaves it out) > ")
        os.write(ours, b"\n")
        _until(ours, "succeeded")
        out, _ = process.communicate(timeout=TIMEOUT)
        assert (process.returncode, json.loads(out)) == (0, {"paid": 500, "entry": 1})


def test_the_end_of_the_input_is_no_answer() -> None:
    with _terminal() as (ours, process):
        _until(ours, " > ")
        os.write(ours, b"\x04")
        _until(ours, "nobody was there to answer")
        out, _ = process.communicate(timeout=TIMEOUT)
        assert (process.returncode, out) == (4, "")


def test_what_was_typed_for_a_question_that_is_over_is_no_answer_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pty.openpty()
    question = InputRequest(id="r/1/0", run="r", state="ask", prompt="Pay?", schema={"type": "boolean"})

    async def ask() -> Any:
        terminal = TerminalInput()
        first = asyncio.create_task(terminal.answer(question))
        await asyncio.sleep(0.05)
        os.write(ours, b"yes\n")
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        second = asyncio.create_task(terminal.answer(question))
        await asyncio.sleep(0.05)
        os.write(ours, b"no\n")
        return await second

    with open(theirs, encoding="utf-8") as stdin, monkeypatch.context() as patch:
        patch.setattr(human_input, "input_descriptor", stdin.fileno)
        assert asyncio.run(ask()) is False
    os.close(ours)


@contextmanager
def _terminal() -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Run the refund flow on a new terminal; yield our side of the terminal and the process."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "flowrun", "specs/refund.yaml", "-i", "amount=500"],
        cwd=ROOT,
        stdin=theirs,
        stderr=theirs,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TERM": "dumb"},
    )
    os.close(theirs)
    try:
        yield ours, process
    finally:
        process.kill()
        process.communicate()
        os.close(ours)


def _until(terminal: int, sign: str) -> str:
    """Read the terminal's output until it contains a sign, and return it."""
    shown = ""
    deadline = time.monotonic() + TIMEOUT
    while sign not in shown and time.monotonic() < deadline:
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                shown += os.read(terminal, 4096).decode()
            except OSError:  # the program has ended, which closed its side of the terminal
                break
    assert sign in shown, shown
    return shown
