"""How fast a batch goes, and how long it still takes. No clock: the time is given."""

import itertools
import math
from collections import deque
from typing import Final, NamedTuple

_WINDOW_SECONDS: Final = 30.0
"""The time over which rates are taken."""

_MIN_ROWS: Final = 10
"""The rows that must be done, besides as many as are live, before an estimate is given."""

_MEMORY_SECONDS: Final = 60.0
_MEMORY_SHARE: Final = 1 / 2
"""The estimate remembers at least so many seconds, and this share of the time so far."""

_MOST_SAMPLES: Final = 256

_CALM_SHARE: Final = 1 / 4
_CALM_SECONDS: Final = (2.0, 30.0)
"""The time that the shown end takes to follow a changed one: this share of the time left, within these bounds."""


class Totals(NamedTuple):
    """The totals of a batch at a moment; as rates, the same a second."""

    at: float
    rows: float
    rounds: float
    read: float
    written: float


class Rates:
    """The rates of a batch over a sliding window."""

    def __init__(self) -> None:
        self._samples: deque[Totals] = deque()

    def update(self, now: Totals) -> Totals | None:
        """Add the totals of now, and return the rates; None if no time has passed."""
        samples = self._samples
        samples.append(now)
        while len(samples) > 2 and samples[1].at <= now.at - _WINDOW_SECONDS:
            samples.popleft()
        seconds = now.at - samples[0].at
        if seconds <= 0:
            return None
        return Totals(*((new - old) / seconds for new, old in zip(now, samples[0], strict=True)))


class Estimate:
    """The time that a batch still takes.

    What is smoothed is the moment of the end: at a steady rate it stays, and the time left counts down with the clock.
    Rows end in bursts, when conversations that began together call the same tools. So the rate is taken from one
    moment at which rows ended to another, and time after the last one counts only once it is longer than such gaps are.
    """

    def __init__(self) -> None:
        self._ends: list[tuple[float, int]] = []  # the times at which rows ended, each with the rows done by then
        self._began = self._at = 0.0
        self._shown: float | None = None

    def update(self, now: float, *, done: int, live: int, total: int) -> float | None:
        """Return the seconds left, never negative; None before enough rows are done.

        Args:
            done: the number of rows that are done, of ``total``.
            live: the number of rows that are being run.
        """
        if not self._ends:
            self._ends, self._began, self._at = [(now, done)], now, now
        seconds, self._at = now - self._at, now
        if done > self._ends[-1][1]:
            self._remember(now, done)
        if self._shown is None and (done < max(_MIN_ROWS, live) or len(self._ends) < 2):
            return None
        end = self._end(now, total - done)
        if self._shown is None:
            self._shown = end
        least, most = _CALM_SECONDS
        calm = min(max((self._shown - now) * _CALM_SHARE, least), most)
        self._shown += (end - self._shown) * (1 - math.exp(-seconds / calm))
        return max(0.0, self._shown - now)

    def _remember(self, now: float, done: int) -> None:
        """Add a moment at which rows ended, and forget those that are too old, but never the last two."""
        self._ends.append((now, done))
        oldest = now - max(_MEMORY_SECONDS, (now - self._began) * _MEMORY_SHARE)
        while len(self._ends) > 2 and self._ends[1][0] <= oldest:
            del self._ends[0]
        if len(self._ends) > _MOST_SAMPLES:
            del self._ends[1:-1:2]

    def _end(self, now: float, left: int) -> float:
        (first_at, first), (last_at, last) = self._ends[0], self._ends[-1]
        gap = max(later[0] - sooner[0] for sooner, later in itertools.pairwise(self._ends))
        until = max(last_at, now - gap)
        return until + left * (until - first_at) / (last - first)
