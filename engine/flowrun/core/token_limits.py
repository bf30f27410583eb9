"""What ``limits.tokens`` leaves to a run and its sub-flows. Pure.

A limit that is reached ends no reply: the run asks no model any more. A prompt counts whole each time it is read.
"""

from collections.abc import Callable, Mapping
from typing import Final

from flowrun.core.messages import Usage
from flowrun.spec.model import TokenLimits

_COUNTS: Final[Mapping[str, Callable[[Usage], int]]] = {
    "prompt": lambda usage: usage.prompt_tokens,
    "completion": lambda usage: usage.completion_tokens,
    "total": lambda usage: usage.prompt_tokens + usage.completion_tokens,
}
"""How much of each limit has been used."""

_NAMES: Final = {"prompt": "prompt tokens", "completion": "completion tokens", "total": "tokens"}


def least_limits(first: TokenLimits | None, second: TokenLimits | None) -> TokenLimits | None:
    """Return the limits that hold where both do."""
    if first is None or second is None:
        return second if first is None else first
    return TokenLimits(**{name: _least(getattr(first, name), getattr(second, name)) for name in _COUNTS})


def tokens_left(limits: TokenLimits, used: Usage) -> TokenLimits:
    """Return what limits leave: at least 0."""
    return TokenLimits(
        **{
            name: None if (limit := getattr(limits, name)) is None else max(limit - count(used), 0)
            for name, count in _COUNTS.items()
        }
    )


def limits_after(used: Usage, left: TokenLimits) -> TokenLimits:
    """Return the limits that leave ``left`` to a run that has used tokens already."""
    return TokenLimits(
        **{
            name: None if (more := getattr(left, name)) is None else count(used) + more
            for name, count in _COUNTS.items()
        }
    )


def reached_limit(limits: TokenLimits, used: Usage) -> str | None:
    """Return the sentence about the first limit that is reached; None if no limit is."""
    for name, count in _COUNTS.items():
        limit = getattr(limits, name)
        if limit is not None and count(used) >= limit:
            what = f"the run has used {count(used):,} {_NAMES[name]}"
            return f"{what}, and limits.tokens.{name} gives it {limit:,}: no model is asked any more"
    return None


def _least(first: int | None, second: int | None) -> int | None:
    return min((one for one in (first, second) if one is not None), default=None)
