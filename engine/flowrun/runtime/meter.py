"""Counts the requests of a batch to its models, in flight and answered, and the tokens used. Changes no request."""

import math
from collections.abc import Callable
from typing import Final

from flowrun.backends.wrapper import WrappedBackend
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply, Usage
from flowrun.core.ports import ModelBackend, OnText

_QUEUE_SHARE: Final = 1 / 8
"""The queue that each backend gets on top of its limit, as a share of the limit: a freed slot is filled at once."""

MAX_LIVE: Final = 256
"""The maximum number of live runs if no backend has a limit of its own."""

LIVE_PER_SLOT: Final = 8
"""The maximum number of live runs per request that the backends run at once; most of those runs wait for tools."""


class Meter:
    """The request counts of a batch's backends: a ``Capacity``. ``on_capacity`` is called when a request ends."""

    def __init__(self, on_capacity: Callable[[], None] = lambda: None) -> None:
        self.rounds = 0
        self.usage = Usage()
        self.on_capacity = on_capacity
        self._backends: list[MeteredBackend] = []

    def wrap(self, name: str, backend: ModelBackend) -> ModelBackend:
        """Return a backend that passes all calls to another one, whose requests are counted."""
        metered = MeteredBackend(backend, self)
        self._backends.append(metered)
        return metered

    @property
    def in_flight(self) -> int | None:
        """Return how many requests the backends have; None if it is not known here: the backends are elsewhere."""
        return sum(backend.in_flight for backend in self._backends) if self._backends else None

    @property
    def max_live(self) -> int:
        """Return how many runs may be live at once, computed from the backends' own limits."""
        limits = [limit for _, limit in self._limited()]
        return LIVE_PER_SLOT * sum(limits) if limits else MAX_LIVE

    @property
    def free_slots(self) -> int | None:
        """Return how many more requests the backend with the most capacity accepts; None: none has its own limit."""
        free = (math.ceil(limit * (1 + _QUEUE_SHARE) - backend.in_flight) for backend, limit in self._limited())
        return max(free, default=None)

    @property
    def has_capacity(self) -> bool:
        """Return whether some backend can accept another request; true if no backend has a limit of its own."""
        return (free_slots := self.free_slots) is None or free_slots > 0

    def _limited(self) -> list[tuple["MeteredBackend", int]]:
        return [(backend, limit) for backend in self._backends if (limit := backend.concurrency) is not None]


class MeteredBackend(WrappedBackend):
    """A ``ports.ModelBackend`` that counts the requests to another one and those in flight."""

    def __init__(self, backend: ModelBackend, meter: Meter) -> None:
        super().__init__(backend)
        self.in_flight = 0
        self._meter = meter

    async def reply(self, request: AskModel, *, on_text: OnText | None = None) -> Reply:
        """Ask the backend, and count the request and the reply's tokens."""
        meter = self._meter
        self.in_flight += 1
        try:
            reply = await self.backend.reply(request, on_text=on_text)
        finally:
            self.in_flight -= 1
            meter.on_capacity()
        meter.rounds += 1
        meter.usage += reply.usage
        return reply
