"""Comparisons of what a run says with what is expected. Pure; each gives a score from 0 to 1."""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, Literal

from flowrun.spec.model import JSON
from flowrun.spec.strict_json import parse_json, same

Comparison = Literal["exact", "contains", "numeric", "f1", "json"]

_NUMBER: Final = re.compile(r"(?:(?<![\w.,)])[-+])?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+)?(?:[eE][-+]?\d+)?")
_ARTICLES: Final = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)

TOLERANCE: Final = 1e-6
"""The relative difference of numbers that count as equal."""


def exact(said: JSON, expected: JSON) -> float:
    """Return 1 if two values are equal; texts without the space around them."""
    return float(same(_stripped(said), _stripped(expected)))


def contains(said: JSON, expected: JSON) -> float:
    """Return 1 if a text has another one in it, in whatever case; of a list of texts, if it has all of them.

    Raises:
        ValueError: nothing is expected, which every text would have.
    """
    wanted = [_text(one).casefold() for one in (expected if isinstance(expected, list) else [expected])]
    if not wanted or not all(wanted):
        raise ValueError(f"{expected!r} is no text to look for")
    text = _text(said).casefold()
    return float(all(one in text for one in wanted))


def numeric(said: JSON, expected: JSON) -> float:
    """Return 1 if the last number of a text, or a number, equals another one up to ``TOLERANCE``.

    Raises:
        ValueError: no number is expected.
    """
    ours, theirs = _last_number(said), _last_number(expected)
    if theirs is None:
        raise ValueError(f"{expected!r} has no number to compare with")
    return float(ours is not None and math.isclose(ours, theirs, rel_tol=TOLERANCE))


def f1(said: JSON, expected: JSON) -> float:
    """Return the F1 score of the words of two texts, without articles and punctuation, in whatever case.

    Of a list of texts, that of the best one. (Rajpurkar et al. 2016, arXiv:1606.05250, section 6.1)
    """
    if isinstance(expected, list):
        return max((f1(said, one) for one in expected), default=0.0)
    ours, theirs = _words(said), _words(expected)
    if not ours or not theirs:
        return float(ours == theirs)
    common = (Counter(ours) & Counter(theirs)).total()
    return 2 * common / (len(ours) + len(theirs))


def as_json(said: JSON, expected: JSON) -> float:
    """Return 1 if two values are equal as JSON; a text is parsed first, if it is JSON. Numbers are equal by value."""
    return float(same(_parsed(said), _parsed(expected)))


COMPARISONS: Final[Mapping[Comparison, Callable[[JSON, JSON], float]]] = {
    "exact": exact,
    "contains": contains,
    "numeric": numeric,
    "f1": f1,
    "json": as_json,
}


def _stripped(value: JSON) -> JSON:
    return value.strip() if isinstance(value, str) else value


def _text(value: JSON) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)


def _last_number(value: JSON) -> float | None:
    """Return a number, or the last one of a text; a sign behind a word or a digit, as in ``10-12``, is a hyphen."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _finite(value)
    text = value.replace("\u2212", "-") if isinstance(value, str) else ""
    found = [one for one in _NUMBER.findall(text) if any(map(str.isdigit, one))]
    return _finite(found[-1].replace(",", "")) if found else None


def _finite(value: str | float) -> float | None:
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _words(value: JSON) -> list[str]:
    text = _text(value).casefold().translate(_PUNCTUATION)
    return _ARTICLES.sub(" ", text).split()


def _parsed(value: JSON) -> JSON:
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except ValueError:
        return value
