"""The time line of a run: working time keeps its proportions, long idle times are shortened."""

import pytest

from flowrun.transcript import build_transcript
from flowrun.transcript.timeline import Scale, bars_of
from tests.unit.transcript.recording import Recording
from tests.unit.transcript.runs import RUNS, agent, answered, family


def test_work_keeps_its_proportions() -> None:
    scale = Scale([(0.0, 2.0), (2.5, 10.0)], 0.0, 10.0)
    assert [scale.at(time) for time in (0.0, 2.5, 5.0, 10.0)] == [0.0, 0.25, 0.5, 1.0]
    assert scale.cuts == []


def test_a_long_rest_is_shortened() -> None:
    scale = Scale([(0.0, 1.0), (1001.0, 1002.0)], 0.0, 1002.0)
    whole = 2 + 0.24
    assert [scale.at(time) for time in (0.5, 1.0, 501.0, 1001.0, 1002.0)] == pytest.approx(
        [0.5 / whole, 1 / whole, 1.12 / whole, 1.24 / whole, 1.0]
    )
    assert scale.cuts == pytest.approx([1.12 / whole])


@pytest.mark.parametrize("busy", [pytest.param([], id="nothing was done"), pytest.param([(5.0, 5.0)], id="at once")])
def test_a_line_without_work_is_still_a_line(busy: list[tuple[float, float]]) -> None:
    scale = Scale(busy, 5.0, 5.0)
    assert 0.0 <= scale.at(5.0) <= 1.0


@pytest.mark.parametrize("name", RUNS)
def test_every_bar_lies_on_the_line(name: str) -> None:
    recording = RUNS[name]()
    bars, _ = bars_of(build_transcript(recording.graph, recording.recorded, recording.events))
    assert [bar for bar in bars if bar.start < 0 or bar.width <= 0 or bar.start + bar.width > 1.000001] == []


def labels(recording: Recording) -> list[tuple[int, str, str]]:
    bars, _ = bars_of(build_transcript(recording.graph, recording.recorded, recording.events))
    return [(bar.depth, bar.kind, bar.label) for bar in bars]


def test_bars_say_what_took_the_time() -> None:
    assert labels(agent()) == [
        (0, "chat", "ask"),
        (0, "tools", "add"),
        (0, "failed", "add"),
        (0, "chat", "ask"),
    ]
    assert labels(answered()) == [(0, "wait", "review"), (0, "call", "tools.payments:pay")]


def test_children_stand_below_what_started_them() -> None:
    assert labels(family())[6:] == [
        (0, "parallel", "#adviser banker"),
        (1, "chat", "ask"),
        (0, "parallel", "#adviser lawyer"),
        (1, "chat", "ask"),
        (0, "flow", "#adviser"),
        (1, "chat", "ask"),
    ]
