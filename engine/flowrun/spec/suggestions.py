"""What somebody probably meant who wrote a name that does not exist."""

from collections.abc import Iterable
from typing import Final

LONGEST_COMPARED: Final = 100
"""Names of more characters are like nothing; comparing costs the square of the length."""


def closest(name: str, names: Iterable[str]) -> str:
    """Give the most similar of ``names``, or an empty text if none is similar."""
    if len(name) > LONGEST_COMPARED:
        return ""
    from difflib import get_close_matches

    known = {known.casefold(): known for known in names}
    close = get_close_matches(name.casefold(), known, n=1)
    return known[close[0]] if close else ""


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Give ``did you mean 'x'?`` for the most similar of ``names``, or an empty text."""
    similar = closest(name, names)
    return f"did you mean '{similar}'?" if similar else ""


def suggest(name: str, names: Iterable[str], kind: str) -> str:
    """Give ``did you mean``, else the list of what there is, else that there is none. ``kind`` is a plural."""
    known = sorted(names)
    return did_you_mean(name, known) or (f"the {kind} are: {', '.join(known)}" if known else f"there are no {kind}")
