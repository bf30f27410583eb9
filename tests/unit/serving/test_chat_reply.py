"""The text of an answer as it is written: what is sent is the answer, or the answer behind a blank line."""

import pytest

from flowrun.runtime.run_events import RunEvent, StateEntered, TextDelta, TextDiscarded
from flowrun.serving.chat_reply import AnswerText


def delta(text: str, *, step: int = 1, state: str = "ask", run: str = "r") -> RunEvent:
    return TextDelta(run=run, state=state, step=step, text=text)


def void(*, step: int = 1, run: str = "r") -> RunEvent:
    return TextDiscarded(run=run, state="ask", step=step)


@pytest.mark.parametrize(
    ("events", "text", "sent"),
    [
        pytest.param([], "All.", ["All."], id="nothing was written"),
        pytest.param([delta("A"), delta("B")], "AB", ["A", "B", ""], id="written"),
        pytest.param([delta("A")], "A\n", ["A", "\n"], id="the end is missing"),
        pytest.param([delta("A"), void(), delta("B")], "B", ["A", "", "\n\nB", ""], id="void"),
        pytest.param([delta("A"), void()], "B", ["A", "", "\n\nB"], id="void, and not written again"),
        pytest.param([delta("A"), delta("B", step=3)], "B", ["A", "\n\nB", ""], id="before a tool call"),
        pytest.param([delta("A")], "B", ["A", "\n\nB"], id="another answer"),
        pytest.param([delta("A")], "", ["A", ""], id="no answer"),
        pytest.param([delta("A", state="plan"), delta("B")], "B", ["", "B", ""], id="another state"),
        pytest.param([delta("A", run="r.1.0"), delta("B")], "B", ["", "B", ""], id="a sub-flow"),
        pytest.param([delta("A"), void(run="r.1.0"), delta("B")], "AB", ["A", "", "B", ""], id="void in a sub-flow"),
        pytest.param([StateEntered(run="r", state="ask", step=1)], "A", ["", "A"], id="other events"),
    ],
)
def test_what_is_sent_of_an_answer(events: list[RunEvent], text: str, sent: list[str]) -> None:
    answer = AnswerText("r", frozenset({"ask"}))
    assert [*map(answer.of, events), answer.rest(text)] == sent
