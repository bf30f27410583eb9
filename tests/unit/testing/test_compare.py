"""Which values are equal, and how a difference is shown."""

import pytest

from flowrun.spec.model import JSON
from flowrun.spec.strict_json import same
from flowrun.testing.compare import diff


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        pytest.param({"a": [1, {"b": None}]}, {"a": [1, {"b": None}]}, True, id="equal"),
        pytest.param(1, 1.0, True, id="integer-and-float"),
        pytest.param(1, True, False, id="one-is-not-true"),
        pytest.param([0], [False], False, id="zero-is-not-false-in-a-list"),
        pytest.param({"a": 1}, {"a": 1, "b": 2}, False, id="more-keys"),
        pytest.param([1], [1, 1], False, id="more-items"),
        pytest.param([1], (1,), True, id="list-and-tuple"),
        pytest.param(None, "", False, id="nothing-is-not-an-empty-text"),
        pytest.param({}, [], False, id="mapping-and-list"),
    ],
)
def test_same(one: JSON, other: JSON, expected: bool) -> None:
    assert same(one, other) is expected
    assert same(other, one) is expected


def test_short_values_are_shown_one_below_the_other() -> None:
    assert list(diff({"a": 1}, None)) == ['expected  {"a": 1}', "actual    null"]


def test_long_values_are_shown_line_by_line_with_context() -> None:
    expected = [f"line {number}" for number in range(20)]
    actual = [*expected[:2], "another", *expected[3:18], "last"]
    assert list(diff(expected, actual)) == [
        "- expected, + actual",
        "  [",
        '    "line 0",',
        '    "line 1",',
        '-   "line 2",',
        '+   "another",',
        '    "line 3",',
        '    "line 4",',
        '    "line 5",',
        "  ...",
        '    "line 15",',
        '    "line 16",',
        '    "line 17",',
        '-   "line 18",',
        '-   "line 19"',
        '+   "last"',
        "  ]",
    ]
