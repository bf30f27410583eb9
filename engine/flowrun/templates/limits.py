"""What one evaluation of a template may cost. Counted, never timed, so it ends at the same point on every machine.

A unit is about a microsecond: a node of the template evaluated, a member of a value looked at, a hundred characters
written. No value that a template makes weighs more than ``MAX_WEIGHT``, its shared parts counted each time, so nothing
that walks a value (comparing it, hashing it, writing it as JSON) can take long either.
"""

import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final

from flowrun.errors import FlowrunError

BUDGET: Final = 1_000_000
"""The units of one evaluation."""

MAX_WEIGHT: Final = 1_000_000
"""Members of a value, and as many sixteens of characters."""

MAX_LENGTH: Final = 1_000_000
"""Characters of a text, or items of a list, that one operation makes."""

MAX_EXPONENT: Final = 1_000
MAX_DIGITS: Final = 4_300  # Python's own limit for an integer that becomes text

_LIGHT: Final = 16  # what weighs no more is as well weighed again
_SCALARS: Final = frozenset({int, float, bool, type(None)})


class TemplateError(FlowrunError):
    """A template cannot be compiled or evaluated; the message says why and shows the template."""


class _Meter(threading.local):
    """The evaluation that this thread is in: what is left of its budget, and what is known to weigh how much.

    A value cannot change while a template sees it, so it is weighed once; ``known`` keeps it, or another could get its
    ``id``.
    """

    def __init__(self) -> None:
        self.left = BUDGET
        self.known: dict[int, tuple[Any, int]] = {}


_meter: Final = _Meter()


def begin() -> None:
    """Start a new evaluation, and forget the one before."""
    _meter.left = BUDGET
    if _meter.known:
        _meter.known = {}


def spend(units: int) -> None:
    """Take units from the budget.

    Raises:
        TemplateError: none are left.
    """
    _meter.left -= units
    if _meter.left < 0:
        raise TemplateError(f"it takes more than {BUDGET:,} steps: loop over less, or do it in a Python function")


def check_length(length: int, what: str) -> None:
    """Refuse to make a text or list of more than ``MAX_LENGTH``, and pay for one of less."""
    if length > MAX_LENGTH:
        raise TemplateError(f"{what} is too large: {MAX_LENGTH:,} characters or items are the most")
    spend(length // 100)


def check_operands(operator: str, left: Any, right: Any) -> None:
    """Refuse the operators that make much out of little: powers, products, repetition, sums of texts and lists."""
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        if operator == "**" and (abs(right) > MAX_EXPONENT or abs(left) > 10**MAX_EXPONENT):
            raise TemplateError(f"the power {excerpt(left)} ** {excerpt(right)} is too large")
        both_whole = isinstance(left, int) and isinstance(right, int)
        if operator == "*" and both_whole and int(left).bit_length() + int(right).bit_length() > 3 * MAX_DIGITS:
            raise TemplateError("the product is too large a number")
    elif operator == "%" and isinstance(left, (str, bytes)):
        raise TemplateError("'%' does not format text here: use '~' to join, or the filters format and round")
    elif operator == "*":
        for many, times in ((left, right), (right, left)):
            if isinstance(many, (str, list, tuple)) and isinstance(times, int):
                if max(len(many), weight(many)) * times > MAX_LENGTH:
                    raise TemplateError(f"repeating {excerpt(many)} {times} times is too large")
                spend(len(many) * max(times, 0) // 100)
    elif operator == "+" and isinstance(left, (str, list, tuple)) and isinstance(right, type(left)):
        check_length(len(left) + len(right), "the sum")
        if not isinstance(left, str):
            spend((len(left) + len(right)) // 10)


def add(left: Any, right: Any) -> Any:
    """Do what ``+`` does; a list that grows in a loop is not weighed as a whole each time."""
    check_operands("+", left, right)
    total = left + right
    if isinstance(total, (list, tuple)):
        together = weight(left) + weight(right)
        if together > MAX_WEIGHT:
            raise TemplateError(f"the sum has more than {MAX_WEIGHT:,} members, shared ones counted each time")
        _meter.known[id(total)] = (total, together)
    return total


def excerpt(value: Any) -> str:
    """Show a value in an error, shortened."""
    if isinstance(value, int) and value.bit_length() > 300:
        return "(a number of hundreds of digits)"
    text = repr(value if not isinstance(value, (str, list, tuple)) else value[:80])
    return text if len(text) <= 82 else text[:77] + "..." + text[0]


def weight(value: Any) -> int:
    """Count a value's members, those of shared parts each time, and sixteens of characters; pay for the counting.

    Raises:
        TemplateError: they are more than ``MAX_WEIGHT``.
    """
    if type(value) in _SCALARS:
        return 1
    if isinstance(value, str):
        spend(len(value) // 100)
        return 1 + len(value) // 16
    known = _meter.known
    total, seen, waiting = 0, 0, [value]
    while waiting:
        one = waiting.pop()
        kind = type(one)
        seen += 1
        total += 1
        if kind in _SCALARS:
            continue
        if kind is str:
            total += len(one) >> 4
        elif id(one) in known:
            total += known[id(one)][1]
        elif isinstance(one, Mapping):
            total += len(one)
            waiting.extend(one.values())
        elif isinstance(one, (list, tuple)):
            waiting.extend(one)
        if total + len(waiting) > MAX_WEIGHT:
            spend(seen)
            raise TemplateError(
                f"a value has more than {MAX_WEIGHT:,} members, those of shared parts counted each time"
            )
    spend(seen)
    if total > _LIGHT:
        known[id(value)] = (value, total)
    return total


def check_weight(value: Any) -> Any:
    """Give a value back, if it is not too heavy."""
    weight(value)
    return value


def compared(value: Any) -> Any:
    """Give a value back, having paid for comparing it with another one."""
    spend(weight(value) // 10)
    return value


def counted(iterable: Any, cost: int) -> Iterator[Any]:
    """Give the items of what a loop goes over, and pay ``cost`` for each."""
    for item in iterable:
        spend(cost)
        yield item
