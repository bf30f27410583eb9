"""Writes durations and points in time for people. Pure."""

from datetime import UTC, datetime, tzinfo
from typing import Final, Literal

_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def spell_duration(seconds: float, *, whole: bool = False) -> str:
    """Format a duration, from a minute on with its two largest units: ``812 ms``, ``2.41 s``, ``3 min 12 s``.

    Args:
        whole: no fractions of a second, for ages and estimates.
    """
    seconds = max(seconds, 0.0)
    if seconds < 0.9995 and not whole:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.995 and not whole:
        return f"{seconds:.2f} s"
    total = round(seconds)
    parts: list[str] = []
    for size, unit in _UNITS:
        count, total = divmod(total, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
    return " ".join(filter(None, parts[:2])) or "0 s"


def spell_moment(
    seconds: float, zone: tzinfo | None = UTC, precision: Literal["seconds", "milliseconds"] = "seconds"
) -> str:
    """Format a point in time as RFC 3339 does; one that no calendar has, as ``the year 10000 or later``.

    Args:
        seconds: since the epoch.
        zone: None: that of this machine.
    """
    try:
        moment = datetime.fromtimestamp(seconds, UTC).astimezone(zone)
    except (OverflowError, ValueError, OSError):
        return "the year 10000 or later"
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")
