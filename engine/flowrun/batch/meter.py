"""Counts what a batch asks of its models: how many requests are in flight, and what came back. Changes nothing."""

import math
from collections.abc import Callable, Mapping
from typing import Final

from flowrun.backends.wrapper import WrappedBackend
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply, Usage
from flowrun.core.ports import ModelBackend

_QUEUE_SHARE: Final = 1 / 8
"""So much more than a backend works on at once is asked of it, so that a place that gets free is taken at once."""


MAX_LIVE: Final = 256
"""So many runs are live at once where no backend has a limit of its own."""

LIVE_PER_PLACE: Final = 8
"""So many runs may be live for each request that the backends work on at once; most of them wait for tools then."""


class Meter:
    """What the backends of a batch do. ``on_room`` is called when a request ends."""

    def __init__(self, on_room: Callable[[], None] = lambda: None) -> None:
        self.rounds = 0
        self.usage = Usage()
        self.on_room = on_room
        self._backends: list[MeteredBackend] = []

    def around(self, backends: Mapping[str, ModelBackend]) -> dict[str, ModelBackend]:
        """Give backends that do the same, and are counted."""
        metered = {name: MeteredBackend(backend, self) for name, backend in backends.items()}
        self._backends += metered.values()
        return dict(metered)

    @property
    def max_live(self) -> int:
        """Derive how many runs may be live at once from the backends' own limits."""
        limits = [limit for _, limit in self._limited()]
        return LIVE_PER_PLACE * sum(limits) if limits else MAX_LIVE

    @property
    def places(self) -> int | None:
        """Give how many more requests the backend with most room could be asked; None: none has a limit of its own."""
        free = (math.ceil(limit * (1 + _QUEUE_SHARE) - backend.asking) for backend, limit in self._limited())
        return max(free, default=None)

    @property
    def has_room(self) -> bool:
        """Tell whether some backend could work on another request, or none has a limit of its own."""
        return (places := self.places) is None or places > 0

    def _limited(self) -> list[tuple["MeteredBackend", int]]:
        return [(backend, limit) for backend in self._backends if (limit := backend.concurrency) is not None]


class MeteredBackend(WrappedBackend):
    """A ``ports.ModelBackend`` that counts what another one is asked."""

    def __init__(self, backend: ModelBackend, meter: Meter) -> None:
        super().__init__(backend)
        self.asking = 0
        self._meter = meter

    async def reply(self, request: AskModel) -> Reply:
        """Ask the backend, and count what it says."""
        meter = self._meter
        self.asking += 1
        try:
            reply = await self.backend.reply(request)
        finally:
            self.asking -= 1
            meter.on_room()
        meter.rounds += 1
        meter.usage += reply.usage
        return reply
