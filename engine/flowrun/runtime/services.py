"""The ports that the runs of a runner share, with the clock, the random numbers and the run drivers. Data only."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from flowrun.core.events import Event
from flowrun.core.ports import Functions, HumanInput, Journal, ModelBackend, Observer, Tracer
from flowrun.runtime.origin import Origin
from flowrun.runtime.run_result import Resolve


class Driver(Protocol):
    """A run in progress, which an event from outside can interrupt."""

    def interrupt(self, event: Event) -> None:
        """Apply an event to the run now; do nothing if it is too late for the event."""


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """The ports, callbacks and registry that all run drivers of a runner share.

    Attributes:
        backends: started backends, by the names that the specs give their models.
        human_input: answers the questions of ``wait`` states; if None, the runs wait.
        resolve: resolves calls that were in doubt after a crash; if None, they stay in doubt.
        sleep: waits for a number of seconds.
        tick: the seconds after which a run that sleeps looks at the clock, as a machine may sleep too.
        park: a run of which all parts sleep or wait is left there; otherwise it sleeps in this process.
        chance: returns a random number from 0 to 1.
        now: returns seconds since the epoch.
        drivers: the runs in progress, by their ids.
        origin: what made the results of the runs.
        keeps_tokens: the backends keep the tokens of replies.
        tracer: traces the runs; None: nobody does, which costs nothing.
    """

    backends: Mapping[str, ModelBackend]
    functions: Functions
    human_input: HumanInput | None = None
    journal: Journal | None = None
    observers: Sequence[Observer] = ()
    resolve: Resolve | None = None
    sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep
    chance: Callable[[], float] = random.random
    now: Callable[[], float] = time.time
    tick: float = 60.0
    park: bool = False
    drivers: dict[str, Driver] = msgspec.field(default_factory=dict)
    origin: Origin | None = None
    keeps_tokens: bool = False
    tracer: Tracer | None = None

    async def sleep_until(self, moment: float) -> None:
        """Wait until the clock shows a moment, in seconds since the epoch.

        The clock is looked at again and again: it may be set meanwhile, or the machine suspended.
        """
        while (left := moment - self.now()) > 0:
            await self.sleep(min(left, self.tick))
