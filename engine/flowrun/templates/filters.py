"""Jinja2's filters and tests with bounded cost: each spends units for its input, and refuses too large a result.

Not available are the filters for HTML (``xmlattr``, ``urlize``), for Python's syntax (``pprint``), and ``random``: a
replay needs templates that return the same value again.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from typing import Any, Final

from jinja2 import Undefined, pass_environment
from jinja2.filters import make_attrgetter

from flowrun.templates.extracting import FILTERS
from flowrun.templates.limits import (
    MAX_DIGITS,
    MAX_LENGTH,
    TemplateError,
    add,
    check_length,
    compared,
    counted,
    spend,
    weight,
)
from flowrun.templates.writing import as_json, as_text

_LEFT_OUT: Final = frozenset({"pprint", "random", "urlize", "xmlattr"})
_CHEAP: Final = frozenset({"abs", "attr", "count", "d", "default", "first", "float", "length"})
_TEXT_FILTERS: Final = frozenset(
    {
        *("capitalize", "center", "e", "escape", "forceescape", "format", "indent", "lower", "replace", "striptags"),
        *("title", "trim", "truncate", "upper", "wordcount", "wordwrap"),
        *FILTERS,
    }
)
"""Filters that convert their input to text; here by ``as_text``, as everywhere else in a spec."""

_COMPARISONS: Final = frozenset({"in", "==", "eq", "equalto", "!=", "ne"})
_MAX_STRIPPED: Final = 100_000  # Jinja2's implementation is quadratic in the number of comments
_MAX_PRECISION: Final = 100
_WIDE: Final = re.compile(r"\d{4}|%[^%a-zA-Z]*\*|\{[^{}]*\{")


def bounded_filters(filters: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Return the filters that a template may use, by name, with bounded cost."""
    own: dict[str, Callable[..., Any]] = {
        **filters,
        **{name: one.function for name, one in FILTERS.items()},
        "join": _join,
        "sum": _sum,
        "string": as_text,
        "tojson": _tojson,
    }
    return {
        name: function if name in _CHEAP else _metered_filter(name, function)
        for name, function in own.items()
        if name not in _LEFT_OUT
    }


def bounded_tests(tests: Mapping[str, Callable[..., Any]]) -> dict[str, Callable[..., Any]]:
    """Return the tests that a template may use, by name, with bounded cost."""
    known = {name: _metered_test(test) if name in _COMPARISONS else test for name, test in tests.items()}
    return {**known, "calling": _is_calling}


def _is_calling(value: Any, tool: Any) -> bool:
    """Return whether a reply calls a tool: the test ``reply is calling('look_up')``."""
    calls = (
        counted(value["tool_calls"], 1) if isinstance(value, (Mapping, Undefined)) and "tool_calls" in value else None
    )
    if calls is None or not isinstance(tool, str):
        raise TemplateError("'is calling' asks whether a reply calls a tool: reply is calling('NAME')")
    return any(call["name"] == tool for call in calls)


def _metered_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    first = 1 if hasattr(function, "jinja_pass_arg") else 0
    check, is_text_filter = _CHECKS.get(name), name in _TEXT_FILTERS

    @wraps(function)
    def metered(*args: Any, **kwargs: Any) -> Any:
        value, rest = args[first], args[first + 1 :]
        if is_text_filter and not isinstance(value, (str, Undefined)):
            value = as_text(value)
        value = _charge(value)
        if check is not None:
            check(value, rest, kwargs)
        result = function(*args[:first], value, *rest, **kwargs)
        if isinstance(result, (str, list, tuple, dict)):
            weight(result)
        return result

    return metered


def _charge(value: Any) -> Any:
    """Spend units for reading a value; an iterator spends them for each item when it is read."""
    if isinstance(value, str):
        spend(1 + len(value) // 50)
    elif isinstance(value, (list, tuple, Mapping)):
        weight(value)
        spend(1 + len(value))
    elif isinstance(value, Iterator):
        return counted(value, 1)
    elif isinstance(value, range):
        spend(1 + len(value))
    else:
        spend(1)
    return value


def _metered_test(test: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(test)
    def compare(value: Any, other: Any) -> Any:
        return test(compared(value), compared(other))

    return compare


# --- checks of a filter's arguments -------------------------------------------------------------------------------

Arguments = tuple[Any, ...]
Keywords = Mapping[str, Any]


def _argument(args: Arguments, kwargs: Keywords, index: int, name: str, default: Any) -> Any:
    return args[index] if len(args) > index else kwargs.get(name, default)


def _check_center(value: str, args: Arguments, kwargs: Keywords) -> None:
    check_length(_argument(args, kwargs, 0, "width", 80), "the padded text")


def _check_indent(value: str, args: Arguments, kwargs: Keywords) -> None:
    width = _argument(args, kwargs, 0, "width", 4)
    indentation = len(width) if isinstance(width, str) else width
    check_length(len(value) + (len(value.splitlines()) + 1) * indentation, "the indented text")


def _check_wordwrap(value: str, args: Arguments, kwargs: Keywords) -> None:
    width = _argument(args, kwargs, 0, "width", 79)
    separator = _argument(args, kwargs, 2, "wrapstring", None) or "\n"
    lines = 2 * len(value) // max(1, width) + value.count("\n") + 1
    spend(len(value) // 10 + lines)
    check_length(len(value) + lines * len(separator), "the wrapped text")


def _check_replace(value: str, args: Arguments, kwargs: Keywords) -> None:
    old, new = _argument(args, kwargs, 0, "old", ""), _argument(args, kwargs, 1, "new", "")
    check_length(replaced_length(value, old, new), "the text with replacements")


def _check_format(value: str, args: Arguments, kwargs: Keywords) -> None:
    check_format(value, [*args, *kwargs.values()])


def _check_count(value: Any, args: Arguments, kwargs: Keywords) -> None:
    count = _argument(args, kwargs, 0, "linecount", kwargs.get("slices", 1))
    check_length(count, "the number of parts")
    spend(count)


def _check_round(value: Any, args: Arguments, kwargs: Keywords) -> None:
    if abs(_argument(args, kwargs, 0, "precision", 0)) > _MAX_PRECISION:
        raise TemplateError(f"round: the precision must be at most {_MAX_PRECISION}")


def _check_int(value: Any, args: Arguments, kwargs: Keywords) -> None:
    if isinstance(value, str) and len(value) > MAX_DIGITS:
        raise TemplateError(f"int: a number has at most {MAX_DIGITS:,} digits")


def _check_striptags(value: str, args: Arguments, kwargs: Keywords) -> None:
    if len(value) > _MAX_STRIPPED:
        raise TemplateError(f"striptags: the text has more than {_MAX_STRIPPED:,} characters")


_CHECKS: Final[dict[str, Callable[[Any, Arguments, Keywords], None]]] = {
    "batch": _check_count,
    "center": _check_center,
    "format": _check_format,
    "indent": _check_indent,
    "int": _check_int,
    "replace": _check_replace,
    "round": _check_round,
    "slice": _check_count,
    "striptags": _check_striptags,
    "wordwrap": _check_wordwrap,
}


def replaced_length(text: str, old: Any, new: Any) -> int:
    """Return an upper bound of the length of a text after each ``old`` in it is replaced by ``new``."""
    old, new = as_text(old), as_text(new)
    times = text.count(old) if old else len(text) + 1
    return len(text) + times * len(new)


def check_format(text: str, values: Sequence[Any]) -> None:
    """Refuse a format with a width of four or more digits, or with a width that is an argument.

    Raises:
        TemplateError: the format has such a width, or its result could be too large.
    """
    if found := _WIDE.search(text):
        raise TemplateError(f"the format has a width that is too large or an argument itself: {found[0]!r}")
    longest = max((len(value) if isinstance(value, str) else 16 * weight(value) for value in values), default=0)
    fields = text.count("{") + text.count("%")
    check_length(len(text) + fields * (longest + 1000), "the formatted text")


# --- own filters --------------------------------------------------------------------------------------------------


@pass_environment
def _join(environment: Any, value: Iterable[Any], d: str = "", attribute: str | int | None = None) -> str:
    """Join items as Jinja2 does, with ``as_text`` for the items that are no text."""
    items = value if attribute is None else map(make_attrgetter(environment, attribute), value)
    texts: list[str] = []
    separator, length = as_text(d), 0
    for item in items:
        text = _text(item)
        length += len(text) + len(separator)
        if length > MAX_LENGTH:
            check_length(length, "the joined text")
        texts.append(text)
    spend(length // 100)
    return separator.join(texts)


def _text(item: Any) -> str:
    if isinstance(item, Undefined):
        str(item)  # StrictUndefined raises an UndefinedError that names the missing member
    return as_text(item)


@pass_environment
def _sum(environment: Any, iterable: Iterable[Any], attribute: str | int | None = None, start: Any = 0) -> Any:
    """Add up items as Jinja2 does; a sum of lists spends units for each intermediate list."""
    total = start
    for item in iterable if attribute is None else map(make_attrgetter(environment, attribute), iterable):
        total = add(total, item)
    return total


def _tojson(value: Any, indent: int | None = None) -> str:
    if indent is None:
        return as_json(value)
    check_length(indent, "the indentation")
    chunks, length = [], 0
    for chunk in json.JSONEncoder(ensure_ascii=False, indent=indent).iterencode(value):
        length += len(chunk)
        spend(1)
        if length > MAX_LENGTH:
            check_length(length, "the JSON")
        chunks.append(chunk)
    return "".join(chunks)
