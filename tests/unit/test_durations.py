"""Durations as people read them."""

import pytest

from flowrun.durations import spell_duration


@pytest.mark.parametrize(
    ("seconds", "exact", "whole"),
    [
        (-1.0, "0 ms", "0 s"),
        (0.8119, "812 ms", "1 s"),
        (0.9996, "1.00 s", "1 s"),
        (2.414, "2.41 s", "2 s"),
        (59.996, "1 min", "1 min"),
        (192.0, "3 min 12 s", "3 min 12 s"),
        (3605.0, "1 h", "1 h"),
        (7500.0, "2 h 5 min", "2 h 5 min"),
        (90061.0, "1 d 1 h", "1 d 1 h"),
    ],
    ids=str,
)
def test_a_duration_has_its_two_largest_units(seconds: float, exact: str, whole: str) -> None:
    assert (spell_duration(seconds), spell_duration(seconds, whole=True)) == (exact, whole)
