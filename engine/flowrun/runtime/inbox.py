"""Answers and cancellations that other processes send to the runs of this one."""

import asyncio
from collections import defaultdict

from flowrun.core.events import Answered, Cancelled, Event, RequestInput
from flowrun.core.ports import HumanInput
from flowrun.errors import NoResponderError
from flowrun.runtime.runner import Runner
from flowrun.spec.model import JSON


class Inbox:
    """What other processes have for the runs of this one: it interrupts a run, or is there when the run asks.

    As ``HumanInput`` it gives the answers that came; whoever sits at the terminal is asked for the others.
    """

    def __init__(self, people: HumanInput | None = None) -> None:
        self.runner: Runner | None = None
        self._people = people
        self._events: defaultdict[str, list[Event]] = defaultdict(list)
        self._news = asyncio.Event()

    def receive(self, run: str, event: Event) -> None:
        """Take in what another process has for a run."""
        self._events[run].append(event)
        if self.runner is not None:
            self.runner.deliver(run, event)
        self._news.set()

    async def answer(self, effect: RequestInput) -> JSON:
        """Give an answer that has come in, or ask. See ``ports.HumanInput.answer``."""
        for event in self._events.get(effect.run, ()):
            if isinstance(event, Answered) and event.step == effect.step:
                return event.value
        if self._people is None:
            raise NoResponderError
        return await self._people.answer(effect)

    async def next_for(self, run: str) -> Cancelled | None:
        """Wait until something has come in for a run or a child of it; give its cancellation, if it is one."""
        while not any(self._events[name] for name in self._family(run)):
            self._news.clear()
            await self._news.wait()
        return self.cancellation_of(run)

    def cancellation_of(self, run: str) -> Cancelled | None:
        """Give the cancellation of a run, if one has come in."""
        return next((event for event in self._events.get(run, ()) if isinstance(event, Cancelled)), None)

    def forget(self, run: str) -> None:
        """Drop what had come in for a run and its children."""
        for name in self._family(run):
            del self._events[name]

    def _family(self, run: str) -> list[str]:
        return [name for name in self._events if name == run or name.startswith(f"{run}.")]
