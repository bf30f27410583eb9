"""An in-memory journal for tests, which can be truncated to simulate a crash."""

from flowrun.core.events import Event
from flowrun.journal import MemoryJournal


class TruncatableJournal(MemoryJournal):
    """A journal in memory whose ``order`` holds the run of each event, in the order of writing."""

    def __init__(self) -> None:
        super().__init__(now=lambda: 0.0)
        self.order: list[str] = []

    async def append(self, run: str, event: Event, *, seq: int, state: str, status: str) -> None:
        """Store an event. See ``ports.Journal.append``."""
        await super().append(run, event, seq=seq, state=state, status=status)
        self.order.append(run)

    def all_events(self, run: str) -> list[Event]:
        """Return a run's events without their sequence numbers, times and states."""
        return [recorded.event for recorded in self.records[run]]

    def cut(self, count: int) -> "TruncatableJournal":
        """Return a journal with only the first ``count`` events of all runs, as after a crash."""
        truncated = TruncatableJournal()
        for run in self.order[:count]:
            index = len(truncated.records.setdefault(run, []))
            truncated.records[run].append(self.records[run][index])
            truncated.parents[run] = self.parents[run]
            truncated.order.append(run)
        return truncated
