"""Comparisons of what was said with what is expected."""

import pytest

from flowrun.evaluation.comparisons import COMPARISONS, Comparison
from flowrun.spec.model import JSON


@pytest.mark.parametrize(
    ("comparison", "said", "expected", "score"),
    [
        ("exact", " Rome\n", "Rome", 1),
        ("exact", "rome", "Rome", 0),
        ("exact", 1, True, 0),
        ("exact", {"a": 1}, {"a": 1}, 1),
        ("contains", "It is ROME.", "rome", 1),
        ("contains", "Rome and Paris", ["Paris", "Oslo"], 0),
        ("contains", "Rome and Paris", ["Paris", "Rome"], 1),
        ("contains", None, "x", 0),
        ("contains", 1995, "99", 1),
        ("numeric", "first 7, then 1,234.50.", 1234.5, 1),
        ("numeric", "about -3e2", "-300", 1),
        ("numeric", "It costs 5.", 6, 0),
        ("numeric", "nothing", 0, 0),
        ("numeric", True, 1, 0),
        ("numeric", 0.1 + 0.2, 0.3, 1),
        ("numeric", "between 10-12", 12, 1),
        ("numeric", "by GPT-4", 4, 1),
        ("numeric", "on 2024-12-05", 5, 1),
        ("numeric", "it is \u22125 degrees", -5, 1),
        ("numeric", "(-5)", -5, 1),
        ("numeric", "9" * 400, 1, 0),
        ("exact", {"a": [True]}, {"a": [1]}, 0),
        ("f1", "The cat sat.", "a cat", 2 / 3),
        ("f1", "", "", 1),
        ("f1", "dog", "cat", 0),
        ("f1", "cat cat", "cat", 2 / 3),
        ("f1", "A red cat", ["dog", "red cat!"], 1),
        ("json", '{"a": [1, 2.0]}', {"a": [1.0, 2]}, 1),
        ("json", {"a": 1, "b": 2}, {"b": 2, "a": 1}, 1),
        ("json", [1, 2], [2, 1], 0),
        ("json", {"a": True}, {"a": 1}, 0),
        ("json", "no json", "no json", 1),
        ("json", {"a": 1}, {"a": 1, "b": 2}, 0),
    ],
)
def test_a_comparison(comparison: Comparison, said: JSON, expected: JSON, score: float) -> None:
    assert COMPARISONS[comparison](said, expected) == pytest.approx(score)


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        ("contains", ""),
        ("contains", None),
        ("contains", []),
        ("contains", ["Rome", ""]),
        ("numeric", "n/a"),
        ("numeric", None),
    ],
)
def test_a_label_that_nothing_can_be_compared_with(comparison: Comparison, expected: JSON) -> None:
    with pytest.raises(ValueError, match=r"no text to look for|no number"):
        COMPARISONS[comparison]("Rome 1", expected)
