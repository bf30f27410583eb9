"""Base classes of backends: one that wraps another backend, and one that has nothing to start."""

from flowrun.core.events import AskModel
from flowrun.core.messages import Reply
from flowrun.core.ports import ModelBackend


class WrappedBackend:
    """The port ``ModelBackend`` over another backend, to which all calls are passed."""

    def __init__(self, backend: ModelBackend) -> None:
        self.backend = backend

    @property
    def concurrency(self) -> int | None:
        """Return the backend's own concurrency. See ``ports.ModelBackend.concurrency``."""
        return self.backend.concurrency

    async def start(self) -> None:
        """Start the backend."""
        await self.backend.start()

    async def reply(self, request: AskModel) -> Reply:
        """Return the backend's reply."""
        return await self.backend.reply(request)

    async def stop(self) -> None:
        """Stop the backend."""
        await self.backend.stop()


class ReadyBackend:
    """The base of a ``ModelBackend`` that has no limit, and nothing to start or to stop."""

    @property
    def concurrency(self) -> int | None:
        """Return None: there is no limit."""
        return None

    async def start(self) -> None:
        """Do nothing: there is nothing to load."""

    async def stop(self) -> None:
        """Do nothing: nothing was started."""
