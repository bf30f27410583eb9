"""The rates and the estimate of a batch, with a clock of numbers: at a steady rate, an estimate does not jump."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from flowrun.cli.rates import Estimate, Rates, Totals

Done = Callable[[float], int]
"""The rows that are done after so many seconds."""


def estimates(done: Done, *, total: int, tick: float, seconds: float, live: int = 64) -> Iterator[tuple[float, float]]:
    """Yield (seconds so far, seconds left) at each tick at which there is an estimate."""
    estimate = Estimate()
    for number in range(int(seconds / tick)):
        now = number * tick
        left = estimate.update(now, done=min(done(now), total), live=live, total=total)
        if left is not None:
            yield now, left


STEADY = [
    pytest.param(lambda t: int(t * 5), 5000, 1000, id="one by one"),
    pytest.param(lambda t: int(t // 8) * 64, 6400, 800, id="64 rows each 8 s"),
    pytest.param(lambda t: int(t // 60) * 64, 6400, 6000, id="64 rows each minute"),
    pytest.param(lambda t: max(0, int((t - 8) // 8) * 64 + min(64, int(t % 8 * 32))), 6400, 808, id="bursts of 2 s"),
    pytest.param(lambda t: int(max(0.0, t - 30) * 5), 5000, 1030, id="the first row after 30 s"),
]


@pytest.mark.parametrize("tick", [0.2, 10.0], ids=["a bar", "plain lines"])
@pytest.mark.parametrize(("done", "total", "seconds"), STEADY)
def test_an_estimate_does_not_jump(done: Done, total: int, seconds: float, tick: float) -> None:
    """Besides what the clock takes, it changes by less than 20 % between two plain lines, by less than 1 % of a bar."""
    seen = list(estimates(done, total=total, tick=tick, seconds=seconds))
    factors = [
        max(left / (before - tick), (before - tick) / left)
        for (_, before), (_, left) in pairwise(seen)
        if before > 20 + tick
    ]
    assert len(factors) > 0.8 * (seconds - 80) / tick
    assert max(factors) < (1.2 if tick == 10.0 else 1.01)


@pytest.mark.parametrize("tick", [0.2, 10.0], ids=["a bar", "plain lines"])
@pytest.mark.parametrize(("done", "total", "seconds"), STEADY)
def test_an_estimate_is_right_in_the_second_half(done: Done, total: int, seconds: float, tick: float) -> None:
    seen = estimates(done, total=total, tick=tick, seconds=seconds)
    errors = [abs(left - (seconds - now)) for now, left in seen if now > seconds / 2]
    assert max(errors) < 0.03 * seconds


def test_an_estimate_follows_a_change_of_the_rate() -> None:
    halved = dict(estimates(lambda t: int(min(t, 500) * 8 + max(0, t - 500) * 4), total=8000, tick=1.0, seconds=1500))
    assert halved[499] == pytest.approx(501, abs=5)
    assert halved[1200] == pytest.approx(300, abs=15)


def test_an_estimate_grows_while_nothing_is_done_and_is_never_negative() -> None:
    stalled = dict(estimates(lambda t: min(int(t * 5), 990), total=1000, tick=1.0, seconds=900))
    assert min(stalled.values()) >= 0
    assert stalled[850] >= stalled[400] > 0


@pytest.mark.parametrize(
    ("live", "first"), [pytest.param(4, 10, id="ten rows"), pytest.param(64, 64, id="as many as are live")]
)
def test_an_estimate_is_first_given_after_enough_rows(live: int, first: int) -> None:
    assert next(estimates(int, total=1000, tick=1.0, seconds=100, live=live)) == (first, 1000 - first)


def test_a_long_batch_takes_little_memory_and_is_estimated_as_well() -> None:
    seen = dict(estimates(lambda t: int(t * 3), total=300_000, tick=1.0, seconds=90_000))
    assert seen[89_999] == pytest.approx(10_001, rel=0.01)


def test_rates_are_those_of_the_last_half_minute() -> None:
    rates = Rates()
    assert rates.update(Totals(0, 0, 0, 0, 0)) is None
    assert rates.update(Totals(10, 20, 40, 1000, 100)) == (1, 2, 4, 100, 10)
    for now in range(20, 101, 10):
        last = rates.update(Totals(now, 20 + (now - 10), 40, 1000 + 10 * (now - 10), 100))
    assert last == (1, 1, 0, 10, 0)
