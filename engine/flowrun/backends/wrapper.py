"""A backend around another one; what it does otherwise, its subclasses say."""

from flowrun.core.events import AskModel
from flowrun.core.messages import Reply
from flowrun.core.ports import ModelBackend


class WrappedBackend:
    """A ``ports.ModelBackend`` that passes everything on to ``backend``."""

    def __init__(self, backend: ModelBackend) -> None:
        self.backend = backend

    @property
    def concurrency(self) -> int | None:
        """Give the backend's own. See ``ports.ModelBackend.concurrency``."""
        return self.backend.concurrency

    async def start(self) -> None:
        """Start the backend."""
        await self.backend.start()

    async def reply(self, request: AskModel) -> Reply:
        """Ask the backend."""
        return await self.backend.reply(request)

    async def stop(self) -> None:
        """Stop the backend."""
        await self.backend.stop()
