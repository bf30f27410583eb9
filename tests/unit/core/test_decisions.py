"""What a model is asked for a decision, and what the log-probabilities of letters mean."""

import math

import pytest

from flowrun.core.decisions import Weights, weigh, write_question

NEVER = -math.inf


@pytest.mark.parametrize(
    ("choices", "question"),
    [
        pytest.param(
            {"high": "needs an answer today", "low": "can wait"},
            "How urgent?\n\nA. high: needs an answer today\nB. low: can wait\n\nAnswer with one letter only: A or B.",
            id="two with descriptions",
        ),
        pytest.param(
            {"red": "", "not red": "", "blue": "like the sky"},
            "How urgent?\n\nA. red\nB. not red\nC. blue: like the sky\n\nAnswer with one letter only: A, B or C.",
            id="three without",
        ),
    ],
)
def test_a_question_ends_in_the_lettered_choices(choices: dict[str, str], question: str) -> None:
    assert write_question("How urgent?\n", choices) == question


def test_the_twentieth_choice_has_the_twentieth_letter() -> None:
    lines = write_question("?", {f"choice {number}": "" for number in range(20)}).splitlines()
    assert lines[21:] == ["T. choice 19", "", f"Answer with one letter only: {', '.join('ABCDEFGHIJKLMNOPQRS')} or T."]


@pytest.mark.parametrize(
    ("logprobs", "weights"),
    [
        pytest.param([math.log(0.6), math.log(0.2)], ([0.75, 0.25], 0.8), id="the softmax, and the share of all"),
        pytest.param([math.log(0.5), NEVER], ([1.0, 0.0], 0.5), id="a letter that is not possible"),
        pytest.param([-800.0, -800.0], ([0.5, 0.5], 0.0), id="less than a float can hold"),
        pytest.param([0.0, math.log(0.5)], ([2 / 3, 1 / 3], 1.0), id="rounded to more than all"),
        pytest.param([NEVER, NEVER], None, id="no letter is possible"),
        pytest.param([math.nan, -1.0], None, id="a number that is none, first"),
        pytest.param([-1.0, math.nan], None, id="a number that is none, last"),
        pytest.param([math.inf, -1.0], None, id="an infinite number"),
    ],
)
def test_probabilities_are_the_softmax_over_the_letters(
    logprobs: list[float], weights: tuple[list[float], float] | None
) -> None:
    weighed = weigh(dict(zip("ab", logprobs, strict=True)))
    if weights is None:
        assert weighed is None
        return
    assert weighed is not None
    probabilities, mass = weights
    assert weighed == Weights(pytest.approx(dict(zip("ab", probabilities, strict=True))), pytest.approx(mass))  # type: ignore[arg-type]
