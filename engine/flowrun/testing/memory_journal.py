"""A journal in memory, for tests: it keeps what a durable run writes down, and can forget its end, as a crash does."""

from collections.abc import Sequence

from flowrun.core.events import Event, Recorded


class MemoryJournal:
    """The port ``Journal`` over a mapping. ``statuses`` and ``parents`` are the runs' as they were last told of."""

    def __init__(self) -> None:
        self.kept: dict[str, list[Recorded]] = {}
        self.statuses: dict[str, str] = {}
        self.parents: dict[str, str | None] = {}
        self.order: list[str] = []

    def begin(self, run: str, *, flow: str, parent: str | None) -> None:
        """Take a run in. See ``ports.Journal.begin``."""
        assert run not in self.kept, f"run {run} was begun twice"
        self.kept[run] = []
        self.parents[run] = parent

    async def append(self, run: str, event: Event, *, seq: int, state: str, status: str) -> None:
        """Keep an event. See ``ports.Journal.append``."""
        kept = self.kept[run]
        assert seq == len(kept), f"run {run}: event {seq} comes after {len(kept)} others"
        kept.append(Recorded(seq=seq, at=0.0, state=state, event=event))
        self.statuses[run] = status
        self.order.append(run)

    async def mark(self, run: str, status: str) -> None:
        """Note a status. See ``ports.Journal.mark``."""
        self.statuses[run] = status

    async def events(self, run: str) -> Sequence[Recorded]:
        """Give a run's events. See ``ports.Journal.events``."""
        return tuple(self.kept.get(run, ()))

    def all_events(self, run: str) -> list[Event]:
        """Give a run's events without their places."""
        return [one.event for one in self.kept[run]]

    def cut(self, count: int) -> "MemoryJournal":
        """Give a journal that holds only the first ``count`` events of all that were written, as after a crash."""
        earlier = MemoryJournal()
        for run in self.order[:count]:
            place = len(earlier.kept.setdefault(run, []))
            earlier.kept[run].append(self.kept[run][place])
            earlier.parents[run] = self.parents[run]
            earlier.order.append(run)
        return earlier
