"""Statistics of scores: known values, and how often the intervals hold the truth."""

import random

import pytest

from flowrun.evaluation.statistics import Estimate, Interval, difference, estimate, pass_all, pass_at

pytest.importorskip("scipy", reason="scipy (the extra eval) is not installed")


def test_a_mean_is_that_of_the_rows_means() -> None:
    found = estimate([[1.5, 2.5], [4.0], [3.0, 3.0]])
    assert (found.mean, found.rows, found.samples) == (3.0, 3, 5)
    assert found.interval is not None
    assert found.interval == pytest.approx((3 - 2.484, 3 + 2.484), abs=1e-3)  # t of 2 degrees: 4.303, error 0.5774


def test_a_rate_stays_between_0_and_1() -> None:
    none = estimate([[0]] * 20)
    assert none.interval is not None
    assert none.interval.low == 0
    assert 0.15 < none.interval.high < 0.2
    assert estimate([[1]]) == Estimate(1.0, None, 1, 1)


def test_samples_of_a_row_that_are_alike_count_as_one() -> None:
    rows = [[1.0]] * 10 + [[0.0]] * 10
    once, often = estimate(rows), estimate([row * 8 for row in rows])
    assert (once.mean, once.interval) == (often.mean, often.interval)


def test_a_difference_is_paired() -> None:
    ours, theirs = [[1.0], [1.0], [1.0], [0.0], [1.0]], [[0.0], [0.0], [1.0], [0.0], [0.0]]
    found = difference(ours, theirs)
    assert (found.mean, found.won, found.lost, found.tied) == (0.6, 3, 0, 2)
    assert found.test == "McNemar's exact test"
    assert found.p_value == pytest.approx(0.25)
    assert found.interval == pytest.approx((-0.0801, 1.2801), abs=1e-3)


def test_the_test_of_other_scores() -> None:
    found = difference([[0.5, 0.7], [0.9], [0.4]], [[0.5, 0.5], [0.6], [0.4]])
    assert found.test == "Student's paired t test"
    assert found.p_value == pytest.approx(0.2697, abs=1e-3)
    assert difference([[0.5]] * 4, [[0.25]] * 4)[2:4] == (0.125, "sign test")
    assert difference([[0.5]] * 4, [[0.5]] * 4)[2:4] == (1.0, "sign test")
    assert difference([[0.5]], [[0.25]])[1:3] == (None, None)


def test_pass_at_k_and_pass_all_k() -> None:
    groups = [[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0]]
    assert pass_at(1, groups) == pytest.approx(7 / 16)
    assert pass_at(2, groups) == pytest.approx((1 / 2 + 1 + 0 + 5 / 6) / 4)
    assert pass_all(2, groups) == pytest.approx((0 + 1 + 0 + 1 / 6) / 4)
    assert pass_at(5, groups) is None
    assert pass_all(1, []) is None


SIMULATED = 2000
RATES = (0.2, 0.5, 0.8)


def sample(chance: random.Random, rate: float, rows: int, samples: int) -> list[list[float]]:
    return [[float(chance.random() < rate) for _ in range(samples)] for _ in range(rows)]


def holds(interval: Interval | None, truth: float) -> bool:
    return interval is not None and interval.low <= truth <= interval.high


@pytest.mark.slow
@pytest.mark.parametrize("samples", [1, 4])
@pytest.mark.parametrize("rows", [50, 200])
@pytest.mark.parametrize("rate", RATES)
def test_intervals_hold_the_truth_as_often_as_they_say(rate: float, rows: int, samples: int) -> None:
    chance = random.Random(f"{rate} {rows} {samples}")
    alone = same = better = 0
    for _ in range(SIMULATED):
        ours, theirs = (sample(chance, rate, rows, samples) for _ in range(2))
        alone += holds(estimate(ours).interval, rate)
        same += holds(difference(ours, theirs).interval, 0.0)
        better += holds(difference(sample(chance, rate + 0.1, rows, samples), theirs).interval, 0.1)
    for held in (alone, same, better):
        assert 0.93 <= held / SIMULATED <= 0.97


def test_rounding_is_no_spread() -> None:
    thirds, two_thirds, all_ = [1, 0, 0], [1, 1, 0], [1, 1, 1]
    found = difference([all_] * 3 + [two_thirds] * 4, [two_thirds] * 3 + [thirds] * 4)
    assert (found.test, found.won) == ("sign test", 7)
    assert found.p_value == pytest.approx(2 / 2**7)
    alike = estimate([thirds] * 25)
    assert alike.interval is not None
    assert alike.interval.high - alike.interval.low > 0.3  # that of 25 rows


def test_there_are_no_more_independent_samples_than_samples() -> None:
    found = estimate([[1, 0]] * 23 + [[1, 1]])
    assert found.interval is not None
    assert found.interval.high - found.interval.low == pytest.approx(0.276, abs=0.02)  # Wilson's of 48, not of 576


def test_tests_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    ours, theirs = [[0.9, 0.1], [0.5], [0.2, 0.4, 0.9], [1.0]], [[0.1], [0.6], [0.2, 0.2, 0.1], [0.3]]
    changes = [sum(mine) / len(mine) - sum(other) / len(other) for mine, other in zip(ours, theirs, strict=True)]
    assert difference(ours, theirs).p_value == pytest.approx(stats.ttest_1samp(changes, 0.0).pvalue)
    for won, lost in ((7, 2), (3, 3), (0, 5), (1, 0)):
        groups = [[1]] * won + [[0]] * lost, [[0]] * won + [[1]] * lost
        assert difference(*groups).p_value == pytest.approx(stats.binomtest(won, won + lost).pvalue)
