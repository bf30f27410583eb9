"""An in-memory journal for tests, which can be truncated to simulate a crash."""

from collections.abc import Sequence

from flowrun.core.events import Event, Recorded


class MemoryJournal:
    """The port ``Journal`` over a mapping.

    ``records`` holds the events of each run, ``statuses`` its latest status, ``parents`` its parent. ``order`` holds
    the run of each event, in the order of writing.
    """

    def __init__(self) -> None:
        self.records: dict[str, list[Recorded]] = {}
        self.statuses: dict[str, str] = {}
        self.parents: dict[str, str | None] = {}
        self.order: list[str] = []

    def register(self, run: str, *, flow: str, parent: str | None) -> None:
        """Register a run. See ``ports.Journal.register``."""
        assert run not in self.records, f"run {run} was begun twice"
        self.records[run] = []
        self.parents[run] = parent

    async def append(self, run: str, event: Event, *, seq: int, state: str, status: str) -> None:
        """Store an event. See ``ports.Journal.append``."""
        events = self.records[run]
        assert seq == len(events), f"run {run}: event {seq} comes after {len(events)} others"
        events.append(Recorded(seq=seq, at=0.0, state=state, event=event))
        self.statuses[run] = status
        self.order.append(run)

    async def mark(self, run: str, status: str) -> None:
        """Store a status. See ``ports.Journal.mark``."""
        self.statuses[run] = status

    async def events(self, run: str) -> Sequence[Recorded]:
        """Return a run's events. See ``ports.Journal.events``."""
        return tuple(self.records.get(run, ()))

    def all_events(self, run: str) -> list[Event]:
        """Return a run's events without their sequence numbers, times and states."""
        return [recorded.event for recorded in self.records[run]]

    def cut(self, count: int) -> "MemoryJournal":
        """Return a journal with only the first ``count`` events of all runs, as after a crash."""
        truncated = MemoryJournal()
        for run in self.order[:count]:
            index = len(truncated.records.setdefault(run, []))
            truncated.records[run].append(self.records[run][index])
            truncated.parents[run] = self.parents[run]
            truncated.order.append(run)
        return truncated
