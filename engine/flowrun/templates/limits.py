"""Bounds the cost of one evaluation of a template. Cost is counted, not timed, so it is the same on every machine.

A unit is about a microsecond: one evaluated node of the template, one visited member of a value, or a hundred written
characters. No value of a template has a weight of more than ``MAX_WEIGHT``, where a shared part counts each time, so
no traversal of a value (to compare, hash or encode it) takes long either.
"""

import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final

from flowrun.errors import FlowrunError
from flowrun.excerpts import cut

BUDGET: Final = 1_000_000
"""The maximum units of one evaluation."""

MAX_WEIGHT: Final = 1_000_000
"""The maximum weight of a value: its members, and one more for each 16 characters of text."""

MAX_LENGTH: Final = 1_000_000
"""The maximum size of the result of one operation: characters of a text, or items of a list."""

MAX_EXPONENT: Final = 1_000
MAX_DIGITS: Final = 4_300  # CPython's default limit for converting an integer to text

_MAX_UNCACHED_WEIGHT: Final = 16  # a smaller weight is computed again rather than cached
_SCALARS: Final = frozenset({int, float, bool, type(None)})


class TemplateError(FlowrunError):
    """A template cannot be compiled or evaluated; the message says why and shows the template."""


class _Meter(threading.local):
    """The current evaluation of a thread: the units left, and the known weights of values by their ``id``.

    A value cannot change during an evaluation, so it is weighed once. ``weights`` also holds the value itself, because
    the ``id`` of a deleted object can be reused.
    """

    def __init__(self) -> None:
        self.left = BUDGET
        self.weights: dict[int, tuple[Any, int]] = {}


_meter: Final = _Meter()


def start_evaluation() -> None:
    """Reset the budget and the known weights for a new evaluation in this thread."""
    _meter.left = BUDGET
    if _meter.weights:
        _meter.weights = {}


def spend(units: int) -> None:
    """Subtract units from the budget.

    Raises:
        TemplateError: the budget is exceeded.
    """
    _meter.left -= units
    if _meter.left < 0:
        raise TemplateError(f"it takes more than {BUDGET:,} steps: loop over less, or do it in a Python function")


def check_length(length: int, what: str) -> None:
    """Check the length of a text or list before it is built, and spend the units for building it.

    Args:
        what: the name of the result in the error message.

    Raises:
        TemplateError: it is more than ``MAX_LENGTH``, or the budget is exceeded.
    """
    if length > MAX_LENGTH:
        raise TemplateError(f"{what} is too large: {MAX_LENGTH:,} characters or items are the most")
    spend(length // 100)


def check_operands(operator: str, left: Any, right: Any) -> None:
    """Check the operands whose result can be much larger: powers, products, repetition, sums of texts and lists.

    Raises:
        TemplateError: the result would be too large, or the budget is exceeded.
    """
    if isinstance(left, (int, float)) and isinstance(right, (int, float)):
        if operator == "**" and (abs(right) > MAX_EXPONENT or abs(left) > 10**MAX_EXPONENT):
            raise TemplateError(f"the power {excerpt(left)} ** {excerpt(right)} is too large")
        both_integers = isinstance(left, int) and isinstance(right, int)
        if operator == "*" and both_integers and int(left).bit_length() + int(right).bit_length() > 3 * MAX_DIGITS:
            raise TemplateError("the product is too large a number")
    elif operator == "%" and isinstance(left, (str, bytes)):
        raise TemplateError("'%' does not format text here: use '~' to join, or the filters format and round")
    elif operator == "*":
        for sequence, count in ((left, right), (right, left)):
            if isinstance(sequence, (str, list, tuple)) and isinstance(count, int):
                if max(len(sequence), weight(sequence)) * count > MAX_LENGTH:
                    raise TemplateError(f"repeating {excerpt(sequence)} {count} times is too large")
                spend(len(sequence) * max(count, 0) // 100)
    elif operator == "+" and isinstance(left, (str, list, tuple)) and isinstance(right, type(left)):
        check_length(len(left) + len(right), "the sum")
        if not isinstance(left, str):
            spend((len(left) + len(right)) // 10)


def add(left: Any, right: Any) -> Any:
    """Return ``left + right``; the weight of a list is a sum too, so a list that grows in a loop is not weighed again.

    Raises:
        TemplateError: the result would be too large, or the budget is exceeded.
    """
    check_operands("+", left, right)
    total = left + right
    if isinstance(total, (list, tuple)):
        total_weight = weight(left) + weight(right)
        if total_weight > MAX_WEIGHT:
            raise TemplateError(f"the sum has more than {MAX_WEIGHT:,} members, shared ones counted each time")
        _meter.weights[id(total)] = (total, total_weight)
    return total


def excerpt(value: Any) -> str:
    """Return a value as a short text for an error message."""
    if isinstance(value, int) and value.bit_length() > 300:
        return "(a number of hundreds of digits)"
    text = repr(value if not isinstance(value, (str, list, tuple)) else value[:80])
    return cut(text, 81, "..." + text[0])


def weight(value: Any) -> int:
    """Return the weight of a value, and spend the units for computing it.

    The weight is the number of its members, where a shared part counts each time, plus one for each 16 characters.

    Raises:
        TemplateError: the weight is more than ``MAX_WEIGHT``, or the budget is exceeded.
    """
    if type(value) in _SCALARS:
        return 1
    if isinstance(value, str):
        spend(len(value) // 100)
        return 1 + len(value) // 16
    weights = _meter.weights
    total, seen, stack = 0, 0, [value]
    while stack:
        member = stack.pop()
        kind = type(member)
        seen += 1
        total += 1
        if kind in _SCALARS:
            continue
        if kind is str:
            total += len(member) >> 4
        elif id(member) in weights:
            total += weights[id(member)][1]
        elif isinstance(member, Mapping):
            total += len(member)
            stack.extend(member.values())
        elif isinstance(member, (list, tuple)):
            stack.extend(member)
        if total + len(stack) > MAX_WEIGHT:
            spend(seen)
            raise TemplateError(
                f"a value has more than {MAX_WEIGHT:,} members, those of shared parts counted each time"
            )
    spend(seen)
    if total > _MAX_UNCACHED_WEIGHT:
        weights[id(value)] = (value, total)
    return total


def check_weight(value: Any) -> Any:
    """Return the value after checking its weight.

    Raises:
        TemplateError: its weight is more than ``MAX_WEIGHT``, or the budget is exceeded.
    """
    weight(value)
    return value


def compared(value: Any) -> Any:
    """Return the value after spending the units for comparing it with another one."""
    spend(weight(value) // 10)
    return value


def counted(iterable: Any, cost: int) -> Iterator[Any]:
    """Yield the items of an iterable, and spend ``cost`` units for each."""
    for item in iterable:
        spend(cost)
        yield item
