"""A service that takes its time to write reports."""

import itertools

_looks = itertools.count(1)


def find_report(name: str) -> str | None:
    """Give the file of a report; nothing while it is being written, which takes three looks."""
    return None if next(_looks) % 3 else f"{name}.csv"
