"""What scores say: means and differences with 95 % intervals, tests, pass@k and pass^k. Pure.

Rows are the units that were chosen, so everything is by row: samples of one row are not independent of each other. The
interval of a mean is that of Student's t over the means of the rows (Miller 2024, "Adding Error Bars to Evals",
arXiv:2411.00640). That of a rate is Wilson's, with the number of samples that would have the same variance: the plain
one is too short near 0 and 1 and for few rows (Brown, Cai, DasGupta 2001, "Interval Estimation for a Binomial
Proportion"). That of a difference is Student's t over the differences of the rows. A test simulates how often they
hold the truth.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, NamedTuple

from flowrun.errors import UsageError

LEVEL: Final = 0.95

NOISE: Final = 1e-9
"""Differences of means up to this are those of rounding: they count as none."""

Groups = Sequence[Sequence[float]]
"""The scores of each row's samples; no row without one."""


class Interval(NamedTuple):
    """Where the true value is, at ``LEVEL``."""

    low: float
    high: float


class Estimate(NamedTuple):
    """The mean of the rows' means; ``interval`` is None for fewer than two rows."""

    mean: float
    interval: Interval | None
    rows: int
    samples: int


class Difference(NamedTuple):
    """Our mean minus theirs, over the rows that both have.

    ``p_value`` is how likely so large a difference is if there is none; ``test`` names its test: McNemar's exact one if
    every row has one sample that passes or not, else Student's paired one over the means of the rows, or the sign test
    if all rows differ by the same.
    """

    mean: float
    interval: Interval | None
    p_value: float | None
    test: str
    won: int
    lost: int
    tied: int


def require_scipy() -> None:
    """Check that scipy is installed.

    Raises:
        UsageError: it is not.
    """
    try:
        import scipy.special  # noqa: F401
    except ImportError as exc:
        raise UsageError("evaluations need scipy: pip install 'flowrun[eval]'") from exc


def estimate(groups: Groups) -> Estimate:
    """Return the mean of scores with its interval; that of scores of 0 and 1 stays between these."""
    means = list(map(mean_of, groups))
    mean, samples = mean_of(means), sum(map(len, groups))
    if len(means) < 2:
        return Estimate(mean, None, len(means), samples)
    error = _standard_error(means)
    quantile = _quantile(len(means) - 1)
    if all(score in (0, 1) for group in groups for score in group):
        return Estimate(mean, _wilson(mean, error, len(means), samples, quantile), len(means), samples)
    return Estimate(mean, Interval(mean - quantile * error, mean + quantile * error), len(means), samples)


def difference(ours: Groups, theirs: Groups) -> Difference:
    """Return the difference of two evaluations of the same rows, given in the same order."""
    pairs = [(mean_of(mine), mean_of(other)) for mine, other in zip(ours, theirs, strict=True)]
    changes = [mine - other for mine, other in pairs]
    won, lost = sum(change > NOISE for change in changes), sum(change < -NOISE for change in changes)
    mean, interval = mean_of(changes), None
    if len(changes) > 1:
        half = _quantile(len(changes) - 1) * _standard_error(changes)
        interval = Interval(mean - half, mean + half)
    p_value, test = _test(ours, theirs, changes, won, lost)
    return Difference(mean, interval, p_value, test, won, lost, len(changes) - won - lost)


def pass_at(k: int, groups: Groups) -> float | None:
    """Return the chance that at least one of k samples passes (Chen et al. 2021, arXiv:2107.03374, equation 1).

    None if a row has fewer than k samples. A sample passes if its score is 1 or more.
    """
    return _over_rows(k, groups, lambda count, passed: 1 - math.comb(count - passed, k) / math.comb(count, k))


def pass_all(k: int, groups: Groups) -> float | None:
    """Return the chance that all of k samples pass, pass^k (Yao et al. 2024, arXiv:2406.12045). See ``pass_at``."""
    return _over_rows(k, groups, lambda count, passed: math.comb(passed, k) / math.comb(count, k))


def _over_rows(k: int, groups: Groups, chance: Callable[[int, int], float]) -> float | None:
    if not groups or min(map(len, groups)) < k:
        return None
    return mean_of([chance(len(group), sum(score >= 1 for score in group)) for group in groups])


def mean_of(values: Sequence[float]) -> float:
    """Return the mean of values, of which there is at least one."""
    return math.fsum(values) / len(values)


def _standard_error(values: Sequence[float]) -> float:
    mean, count = mean_of(values), len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1) / count)


@cache
def _quantile(freedom: int) -> float:
    from scipy.special import stdtrit  # scipy.stats has it too, and takes half a second to import

    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def _wilson(rate: float, error: float, rows: int, samples: int, quantile: float) -> Interval:
    """Return Wilson's interval for as many independent samples as would give a rate this standard error.

    There are no more than the samples that were taken; if all rows are alike, the rows are counted.
    """
    count = min(rate * (1 - rate) / error**2, samples) if error > NOISE else rows
    square = quantile * quantile
    middle = (rate + square / (2 * count)) / (1 + square / count)
    half = quantile / (1 + square / count) * math.sqrt(rate * (1 - rate) / count + square / (4 * count * count))
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def _test(ours: Groups, theirs: Groups, changes: Sequence[float], won: int, lost: int) -> tuple[float | None, str]:
    single = all(len(group) == 1 and group[0] in (0, 1) for group in (*ours, *theirs))
    if single:
        return _sign_test(won, lost), "McNemar's exact test"
    if len(changes) < 2:
        return None, "Student's paired t test"
    if max(changes) - min(changes) <= NOISE:  # no spread to measure
        return _sign_test(won, lost), "sign test"
    return _t_test(changes), "Student's paired t test"


def _sign_test(won: int, lost: int) -> float:
    """Return how likely so uneven a split is, or a more uneven one, if both are as likely."""
    from scipy.special import bdtr

    return min(1.0, 2 * float(bdtr(min(won, lost), won + lost, 0.5))) if won + lost else 1.0


def _t_test(changes: Sequence[float]) -> float:
    from scipy.special import stdtr

    return 2 * float(stdtr(len(changes) - 1, -abs(mean_of(changes) / _standard_error(changes))))
