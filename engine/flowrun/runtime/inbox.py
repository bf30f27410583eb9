"""Answers and cancellations that other processes send to the runs of this one."""

import asyncio
from collections import defaultdict
from collections.abc import Iterable

from flowrun.core.events import Answered, Cancelled, Event, RequestInput
from flowrun.core.ports import HumanInput
from flowrun.errors import NoResponderError
from flowrun.runtime.runner import Runner
from flowrun.spec.model import JSON


class Inbox:
    """The signals of other processes for the runs of this one: a signal interrupts its run, or waits for its question.

    As the port ``HumanInput`` it returns the answers that have come in, and passes other questions on.
    """

    def __init__(self, human_input: HumanInput | None = None) -> None:
        """Bind the inbox to ``human_input``, which answers if no signal does; ``runner`` is set later."""
        self.runner: Runner | None = None
        self._human_input = human_input
        self._events: defaultdict[str, list[Event]] = defaultdict(list)
        self._received = asyncio.Event()

    def receive(self, run: str, event: Event) -> None:
        """Store a signal for a run, and interrupt the run with it if it is in progress.

        One that is stored already comes a second time, such as by the journal and by the session that sent it.
        """
        if event in self._events[run]:
            return
        self._events[run].append(event)
        if self.runner is not None:
            self.runner.deliver(run, event)
        self._received.set()

    async def answer(self, effect: RequestInput, /) -> JSON:
        """Return an answer that has come in, or request one. See ``ports.HumanInput.answer``."""
        for event in self._events.get(effect.run, ()):
            if isinstance(event, Answered) and (event.step, event.index) == (effect.step, effect.index):
                return event.value
        if self._human_input is None:
            raise NoResponderError
        return await self._human_input.answer(effect)

    async def next_for(self, run: str) -> Cancelled | None:
        """Wait until a signal has come in for a run or its children; return the run's cancellation, if there is one."""
        while not any(self._events[name] for name in self._family(run)):
            self._received.clear()
            await self._received.wait()
        return self.cancellation_of(run)

    def cancellation_of(self, run: str) -> Cancelled | None:
        """Return the cancellation of a run, if one has come in."""
        return next((event for event in self._events.get(run, ()) if isinstance(event, Cancelled)), None)

    def signals(self, run: str) -> list[tuple[str, Event]]:
        """Return the signals for a run and its children that have come in, each with the run that it is for."""
        return [(name, event) for name in self._family(run) for event in self._events[name]]

    def forget(self, signals: Iterable[tuple[str, Event]]) -> None:
        """Delete signals."""
        for run, event in signals:
            self._events[run].remove(event)
            if not self._events[run]:
                del self._events[run]

    def _family(self, run: str) -> list[str]:
        return [name for name in self._events if name == run or name.startswith(f"{run}.")]
