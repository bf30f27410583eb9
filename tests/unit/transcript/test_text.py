"""``expected/<run>.txt`` is the rendered transcript; FLOWRUN_WRITE_EXPECTED=1 writes it again."""

import os
from collections.abc import Callable
from datetime import timedelta, timezone
from pathlib import Path

import pytest

from flowrun.transcript import build_transcript, render_text
from tests.flows import graph_of
from tests.unit.transcript.recording import Recording, World, said
from tests.unit.transcript.runs import RUNS, agent

EXPECTED = Path(__file__).parent / "expected"
HELLO = "messages: [{role: user, content: Hello.}]\nstates:\n  ask: {type: chat, next: done}\n  done: {type: end}\n"


@pytest.mark.parametrize("run", [pytest.param(run, id=name) for name, run in RUNS.items()])
def test_a_transcript_as_text(run: Callable[[], Recording]) -> None:
    recording = run()
    text = render_text(build_transcript(recording.graph, recording.recorded, recording.events))
    expected = EXPECTED / f"{run.__name__}.txt"
    if os.environ.get("FLOWRUN_WRITE_EXPECTED"):
        expected.write_text(text, encoding="utf-8")
    assert text == expected.read_text(encoding="utf-8")


def test_a_terminal_gets_nothing_to_obey() -> None:
    recording = Recording(graph_of(HELLO), World(replies=[said("red \x1b[31m\x07 and\r\u202e back")]))
    text = render_text(build_transcript(recording.graph, recording.recorded))
    mark = "\N{REPLACEMENT CHARACTER}"
    assert f"red {mark}[31m{mark} and" in text
    assert [character for character in text if not character.isprintable() and character != "\n"] == []


def test_colours_are_asked_for() -> None:
    recording = agent()
    transcript = build_transcript(recording.graph, recording.recorded)
    plain, coloured = render_text(transcript), render_text(transcript, coloured=True)
    assert "\x1b[" not in plain
    assert "run r1  \x1b[32;1msucceeded\x1b[0m" in coloured


def test_long_texts_are_cut_unless_all_is_wanted() -> None:
    said_at_length = "\n".join(f"line {number} " + "x" * 200 for number in range(20))
    recording = Recording(graph_of(HELLO), World(replies=[said(said_at_length)]))
    transcript = build_transcript(recording.graph, recording.recorded)
    lines = render_text(transcript, width=60).splitlines()
    assert max(map(len, lines)) <= 80
    assert "       ... 12 lines more" in lines
    assert all(line in render_text(transcript, full=True) for line in said_at_length.splitlines())


def test_times_are_shown_in_the_readers_zone() -> None:
    recording = agent()
    transcript = build_transcript(recording.graph, recording.recorded)
    zone = timezone(timedelta(hours=5, minutes=30), "IST")
    assert "2026-11-23 17:30:00 IST" in render_text(transcript, zone=zone)
