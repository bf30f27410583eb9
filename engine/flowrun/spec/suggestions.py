"""Suggestions for a name that does not exist: similar names, or the list of names."""

from collections.abc import Iterable
from typing import Final

LONGEST_COMPARED: Final = 100
"""The most characters of a name that is compared. The cost grows with the square of the length."""


def closest(name: str, names: Iterable[str]) -> str:
    """Return the most similar of ``names``, or "" if none is similar."""
    if len(name) > LONGEST_COMPARED:
        return ""
    from difflib import get_close_matches

    known = {known.casefold(): known for known in names}
    close = get_close_matches(name.casefold(), known, n=1)
    return known[close[0]] if close else ""


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the most similar of ``names``, or "" if none is similar."""
    similar = closest(name, names)
    return f"did you mean '{similar}'?" if similar else ""


def suggest(name: str, names: Iterable[str], kind: str) -> str:
    """Return ``did you mean 'x'?``; if no name is similar, a sentence that lists all names.

    Args:
        kind: the noun for the names, in the plural.
    """
    known = sorted(names)
    return did_you_mean(name, known) or (f"the {kind} are: {', '.join(known)}" if known else f"there are no {kind}")
