"""Base classes of backends, one that wraps another and one that has nothing to start, and ``model.timeout``."""

import asyncio
import inspect
from collections.abc import Awaitable
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from flowrun.backends.text_pieces import in_one_piece
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply
from flowrun.core.ports import ModelBackend, OnText
from flowrun.errors import ModelError

T = TypeVar("T")


async def in_time(reply: Awaitable[T], seconds: float | None) -> T:
    """Return what a model gives within ``model.timeout``; None: there is no such limit.

    Raises:
        ModelError: the model takes longer.
    """
    if seconds is None:
        return await reply
    try:
        async with asyncio.timeout(seconds) as limit:
            return await reply
    except TimeoutError:
        if not limit.expired():
            raise
        what = f"the model took longer than {seconds:g} s for a reply; raise model.timeout, or ask less"
        raise ModelError("backend.unavailable", what) from None


@runtime_checkable
class Decides(Protocol):
    """A backend that knows, once it is started, whether its model can answer decide states."""

    def check_decisions(self) -> None:
        """Check that it can.

        Raises:
            BackendError: it cannot; the message says what to do.
        """


@runtime_checkable
class Ends(Protocol):
    """A backend whose engine may end by itself: another process holds it."""

    @property
    def failure(self) -> str | None:
        """Why the engine has ended; None while it lives, or was not started. It stays after ``stop``."""


def failure_of(backend: ModelBackend) -> str | None:
    """Return why the engine of a backend has ended; None if it lives, or cannot end by itself."""
    return backend.failure if isinstance(backend, Ends) else None


class PromptSize(NamedTuple):
    """The tokens of a prompt, and of the context window of its model."""

    length: int
    window: int


@runtime_checkable
class MeasuresPrompts(Protocol):
    """A backend that knows, once it is started, how long a prompt is."""

    async def measure_prompt(self, request: AskModel) -> PromptSize:
        """Return how long the prompt of a request is, also if it is too long.

        Raises:
            ModelError: the request cannot be rendered.
        """


@runtime_checkable
class KeepsTokens(ModelBackend, Protocol):
    """A backend that gives a reply with its tokens, their log-probabilities and its prompt, if asked for them."""

    def check_tokens(self) -> None:
        """Check, once it is started, that it can.

        Raises:
            BackendError: it cannot; the message says what to do.
        """

    async def reply(self, request: AskModel, *, keeps_tokens: bool = False, on_text: OnText | None = None) -> Reply:
        """Return a reply; see ``ports.ModelBackend``."""


@runtime_checkable
class TakesAdapters(Protocol):
    """A backend of whose requests each may use one of the adapters that it was started with."""

    def with_adapter(self, name: str) -> ModelBackend:
        """Return the backend for requests that use an adapter."""


class WrappedBackend:
    """The port ``ModelBackend`` over another backend, to which all calls are passed."""

    def __init__(self, backend: ModelBackend) -> None:
        self.backend = backend

    @property
    def concurrency(self) -> int | None:
        """Return the backend's own concurrency. See ``ports.ModelBackend.concurrency``."""
        return self.backend.concurrency

    @property
    def failure(self) -> str | None:
        """Return why the backend's engine has ended. See ``Ends``."""
        return failure_of(self.backend)

    async def start(self) -> None:
        """Start the backend."""
        await self.backend.start()

    async def reply(self, request: AskModel, *, on_text: OnText | None = None) -> Reply:
        """Return the backend's reply."""
        return await self.backend.reply(request, on_text=on_text)

    async def stop(self) -> None:
        """Stop the backend."""
        await self.backend.stop()


class ServesAdapters(KeepsTokens, Decides, MeasuresPrompts, Protocol):
    """A backend that takes the adapter of a request by its name."""

    async def reply(
        self,
        request: AskModel,
        *,
        keeps_tokens: bool = False,
        on_text: OnText | None = None,
        adapter: str | None = None,
    ) -> Reply:
        """Return a reply by an adapter, or by none."""


class AdaptedBackend(WrappedBackend):
    """A ``ports.ModelBackend`` whose requests use an adapter of another one, which others use too."""

    backend: ServesAdapters

    def __init__(self, backend: ServesAdapters, adapter: str) -> None:
        super().__init__(backend)
        self._adapter = adapter

    async def reply(self, request: AskModel, *, keeps_tokens: bool = False, on_text: OnText | None = None) -> Reply:
        """Return the model's reply by the adapter."""
        return await self.backend.reply(request, keeps_tokens=keeps_tokens, on_text=on_text, adapter=self._adapter)

    def check_decisions(self) -> None:
        """Check that decide states can be answered. See ``Decides``."""
        self.backend.check_decisions()

    def check_tokens(self) -> None:
        """Check that the tokens of replies can be kept. See ``KeepsTokens``."""
        self.backend.check_tokens()

    async def measure_prompt(self, request: AskModel) -> PromptSize:
        """Return how long the prompt of a request is. See ``MeasuresPrompts``."""
        return await self.backend.measure_prompt(request)


class TimedBackend(WrappedBackend):
    """A ``ports.ModelBackend`` that gives another one ``model.timeout`` for each reply."""

    def __init__(self, backend: ModelBackend, seconds: float) -> None:
        super().__init__(backend)
        self._seconds = seconds

    async def reply(self, request: AskModel, *, on_text: OnText | None = None) -> Reply:
        """Return the backend's reply, or fail with ``backend.unavailable``."""
        return await in_time(self.backend.reply(request, on_text=on_text), self._seconds)


class OnePieceBackend(WrappedBackend):
    """A ``ports.ModelBackend`` over one that does not know ``on_text``: a reply's text comes in one piece."""

    async def reply(self, request: AskModel, *, on_text: OnText | None = None) -> Reply:
        """Return the backend's reply."""
        return in_one_piece(await self.backend.reply(request), on_text)


def watchable(backend: ModelBackend) -> ModelBackend:
    """Return a backend that was written elsewhere so that it can be watched, also if it does not know ``on_text``."""
    parameters = inspect.signature(backend.reply).parameters.values()
    knows = any(one.name == "on_text" or one.kind is one.VAR_KEYWORD for one in parameters)
    return backend if knows else OnePieceBackend(backend)


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
