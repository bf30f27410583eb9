"""Durations and points in time that templates give. Pure: nobody reads a clock here."""

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from flowrun.excerpts import shortened
from flowrun.spec.model import Duration, DurationTemplate, Seconds
from flowrun.spec.parse import parse_duration
from flowrun.templates import Scope, TemplateError, compile_value

MAX_SECONDS: Final = 1e9 * 86400
"""The longest duration that a spec can write."""


def compile_duration(duration: Duration, *, above_zero: bool = False) -> Callable[[Scope], float]:
    """Compile a duration. The returned function raises TemplateError if a template gives none.

    Raises:
        TemplateError: the text is not a template.
    """
    if isinstance(duration, Seconds):
        return lambda scope: duration
    assert isinstance(duration, DurationTemplate)
    evaluate = compile_value(duration.text)
    return lambda scope: _as_seconds(evaluate(scope), duration.text, above_zero=above_zero)


def _as_seconds(value: Any, source: str, *, above_zero: bool) -> float:
    seconds = math.nan
    if isinstance(value, str):
        try:
            seconds = parse_duration(value)
        except ValueError as exc:
            raise TemplateError(f"{source!r} gave no duration: {shortened(str(exc), 200)}") from exc
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value) if abs(value) <= MAX_SECONDS else math.inf
    if not 0 <= seconds <= MAX_SECONDS or (above_zero and not seconds):
        least = "a duration above zero" if above_zero else "a duration"
        shown = shortened(repr(value), 200)
        raise TemplateError(f"{source!r} gave {shown}, which is not {least}: a number of seconds, or a text such as 5m")
    return seconds


def parse_moment(text: str) -> float:
    """Parse a point in time, as RFC 3339 writes it, to seconds since the epoch.

    Raises:
        ValueError: the text has another form, or no offset from UTC.
    """
    try:
        moment = datetime.fromisoformat(text)
        if len(text) >= len("2030-01-31T09:00Z") and text[10] == "T" and moment.tzinfo is not None:
            return moment.timestamp()
    except (ValueError, OverflowError):
        pass
    shown = shortened(repr(text), 200)
    raise ValueError(f"{shown} is no point in time with its offset from UTC, such as 2030-01-31T09:00:00+01:00")


def compile_moment(template: str) -> Callable[[Scope], float]:
    """Compile a point in time. The returned function raises TemplateError if the template gives none.

    Raises:
        TemplateError: the text is not a template.
    """
    evaluate = compile_value(template)

    def moment(scope: Scope) -> float:
        value = evaluate(scope)
        try:
            return parse_moment(value if isinstance(value, str) else repr(value))
        except ValueError as exc:
            raise TemplateError(f"until: {exc}") from exc

    return moment
