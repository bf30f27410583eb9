"""A journal in memory, for runs that live as long as this process: a run that waits can be answered and resumed."""

import time
from collections.abc import Callable, Iterable, Sequence

from flowrun.core.events import Answered, Cancelled, Closing, Event, Failed, Recorded, TimedOut
from flowrun.errors import UsageError
from flowrun.journal.questions import closing_of, refuse_second_answer
from flowrun.journal.rows import Held


class MemoryJournal:
    """The port ``Journal`` over a mapping, with the inbox and the leases of ``SqliteJournal``.

    ``records`` holds the events of each run, ``statuses`` its latest status, ``parents`` its parent.
    """

    def __init__(self, *, now: Callable[[], float] = time.time) -> None:
        self.records: dict[str, list[Recorded]] = {}
        self.statuses: dict[str, str] = {}
        self.parents: dict[str, str | None] = {}
        self._families: dict[str, list[str]] = {}  # by the top run: it and all below, one list for them all
        self._now = now
        self._signals: list[tuple[str, Event]] = []

    def register(self, run: str, *, flow: str, parent: str | None) -> None:
        """Register a run. See ``ports.Journal.register``."""
        assert run not in self.records, f"run {run} was begun twice"
        self.records[run] = []
        self.parents[run] = parent
        family = self._families.setdefault(run if parent is None else parent, [])
        self._families[run] = family
        family.append(run)

    async def append(self, run: str, event: Event, *, seq: int, state: str, status: str) -> None:
        """Store an event. See ``ports.Journal.append``."""
        events = self.records[run]
        assert seq == len(events), f"run {run}: event {seq} comes after {len(events)} others"
        events.append(Recorded(seq=seq, at=self._now(), state=state, event=event))
        self.statuses[run] = status
        if isinstance(event, Answered | Cancelled | TimedOut | Failed):
            await self.discard([(run, event)])

    async def close_question(self, run: str, event: Closing) -> Closing:
        """Return the event that closes a question. See ``ports.Journal.close_question``."""
        closing = closing_of(event, self._accepted(run))
        if closing is None:
            self._signals.append((run, event))
        return closing or event

    async def mark(self, run: str, status: str) -> None:
        """Store a status. See ``ports.Journal.mark``."""
        self.statuses[run] = status

    async def events(self, run: str) -> Sequence[Recorded]:
        """Return a run's events. See ``ports.Journal.events``."""
        return tuple(self.records.get(run, ()))

    async def take(self, runs: Iterable[str]) -> tuple[Held, ...]:
        """Return an empty tuple: no other process can hold these runs.

        Raises:
            UsageError: a run is not here.
        """
        for run in runs:
            if run not in self.records:
                raise UsageError(f"there is no run {run}")
        return ()

    async def release(self, run: str) -> bool:
        """Return whether no signal for a run or its children has arrived that is not yet applied."""
        family = self._family(run)
        return not any(name in family for name, _ in self._signals)

    async def signal(self, run: str, event: Answered | Cancelled, *, seen: int | None = None) -> bool:
        """Note a signal for a run; its sender delivers it. See ``SqliteJournal.signal``.

        Raises:
            UsageError: the run is not here, or the question of an answer is closed.
        """
        await self.take([run])
        if seen is not None and len(self.records[run]) != seen:
            return False
        refuse_second_answer(run, event, self._accepted(run))
        self._signals.append((run, event))
        return True

    def _accepted(self, run: str) -> list[Event]:
        return [event for name, event in self._signals if name == run]

    async def discard(self, signals: Iterable[tuple[str, Event]]) -> None:
        """Delete signals, each given with the run that it is for."""
        gone = list(signals)
        self._signals = [signal for signal in self._signals if signal not in gone]

    def forget(self, run: str) -> None:
        """Delete a run and its children, which have ended."""
        family = self._family(run)
        self._signals = [signal for signal in self._signals if signal[0] not in family]
        for name in family:
            del self.records[name], self.parents[name], self._families[name]
            self.statuses.pop(name, None)

    def _family(self, run: str) -> list[str]:
        return list(self._families.get(run, ()))
