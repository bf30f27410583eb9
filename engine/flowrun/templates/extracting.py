"""Filters that take values out of a text: ``findall``, ``between`` and ``from_json``. Their cost is bounded."""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from flowrun.excerpts import shortened
from flowrun.spec.strict_json import parse_json
from flowrun.templates.limits import TemplateError, spend

_MAX_PATTERN: Final = 1_000  # characters
_MAX_MEMORY: Final = 1 << 20
"""Bytes that a compiled pattern may take."""

_SHOWN: Final = 200  # characters
_MISSING: Final = object()


def find_all(text: str, pattern: Any) -> list[Any]:
    """Return all matches of a regular expression, or what its group matched: a list for several groups.

    RE2 searches in linear time, so no pattern and no text of a model can hold up a run. It knows neither look-around
    nor back-references (https://github.com/google/re2/wiki/Syntax).
    """
    if not isinstance(pattern, str):
        raise TemplateError(f"findall: the pattern must be a text, and is {shortened(repr(pattern), _SHOWN)}")
    spend(len(text) // 10 + len(pattern))
    matches = compile_pattern(pattern).findall(text)
    spend(len(matches))
    return [list(match) if isinstance(match, tuple) else match for match in matches]


def between(text: str, start: Any, end: Any) -> str:
    """Return what stands between the first ``start`` and the next ``end`` behind it; empty if one is missing."""
    if not isinstance(start, str) or not isinstance(end, str):
        raise TemplateError("between: write the two texts, such as between('<answer>', '</answer>')")
    _, found, rest = text.partition(start)
    inside, closed, _ = rest.partition(end) if found else ("", "", "")
    return inside if closed else ""


def from_json(text: str, default: Any = _MISSING) -> Any:
    """Return the value of a JSON text, by the rules for the JSON of models; the default if the text is no JSON."""
    try:
        return parse_json(text)
    except ValueError as exc:
        if default is not _MISSING:
            return default
        raise TemplateError(f"from_json: {shortened(text, _SHOWN)!r} is no JSON: {exc}") from exc


class Filter(NamedTuple):
    """A filter of flowrun's own: its function, and for the reference its form and its meaning."""

    function: Callable[..., Any]
    form: str
    meaning: str


FILTERS: Final[Mapping[str, Filter]] = {
    "findall": Filter(
        find_all,
        "findall('[0-9]+')",
        "all matches of a regular expression (RE2), or what its group matched: lists for several groups",
    ),
    "between": Filter(
        between,
        "between('<answer>', '</answer>')",
        "what stands between the first text and the next second one; empty if one of them is missing",
    ),
    "from_json": Filter(
        from_json,
        "from_json",
        "the value of a JSON text; `template.failed` if it is none, or a default: `from_json(none)`",
    ),
}
"""These filters, by name."""


@lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> Any:
    """Compile a regular expression of RE2.

    Raises:
        TemplateError: it is none.
    """
    import re2

    if len(pattern) > _MAX_PATTERN:
        raise TemplateError(f"findall: the pattern has more than {_MAX_PATTERN:,} characters")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = _MAX_MEMORY
    try:
        return re2.compile(pattern, options)
    except re2.error as exc:
        reason = exc.args[0].decode(errors="replace") if exc.args and isinstance(exc.args[0], bytes) else str(exc)
        raise TemplateError(f"findall: {shortened(pattern, _SHOWN)!r} is no regular expression: {reason}") from exc
