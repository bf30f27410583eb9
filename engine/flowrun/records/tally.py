"""Counts of records: by status and error, and the sums of their figures."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeGuard

from flowrun.batch.results import SUCCEEDED
from flowrun.core.messages import Usage
from flowrun.records.record import Entry, Record
from flowrun.spec.model import JSON


class Tally:
    """Counts of the records that were added.

    Attributes:
        outcomes: the number of records by status and the error's name, which is "" without an error.
        scores: by the score's name, the number of records with a number or a truth value for it, and the sum (true: 1).
    """

    def __init__(self) -> None:
        self.count = self.rounds = 0
        self.usage = Usage()
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.scores: dict[str, tuple[int, float]] = {}

    def add(self, record: Record) -> None:
        """Count a record."""
        self.count += 1
        self.rounds += record.rounds
        self.usage += record.usage
        self.outcomes[record.status, record.error.name if record.error is not None else ""] += 1
        for name, value in (record.scores or {}).items():
            if is_figure(value):
                count, total = self.scores.get(name, (0, 0.0))
                self.scores[name] = count + 1, total + value

    def counted(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Yield entries, each once it is counted."""
        for entry in entries:
            self.add(entry.record)
            yield entry

    def sorted_outcomes(self) -> list[tuple[str, str, int]]:
        """Return (status, error, count): success first, then the most frequent."""
        found = [(status, error, count) for (status, error), count in self.outcomes.items()]
        return sorted(found, key=lambda one: (one[0] != SUCCEEDED, -one[2], one[0], one[1]))


def is_figure(value: JSON) -> TypeGuard[float]:
    """Return whether a score is a number or a truth value."""
    return isinstance(value, bool | int | float)
