"""Who reads a model's raw text in a test: one reader a model, started when it is first needed, kept for later tests."""

from collections.abc import Callable
from typing import Protocol

from flowrun.core.events import AskModel
from flowrun.core.messages import Reply
from flowrun.errors import BackendError
from flowrun.runtime.prepare import BoundModel
from flowrun.testing.clock import VirtualLoop

NOT_INSTALLED = "its replies hold raw text, which only vLLM's parsers read, and vLLM is not installed"


class Reader(Protocol):
    """Puts requests into prompts and reads replies as one model's family does."""

    async def start(self) -> None:
        """Load what is needed. Raises BackendError if it is not there."""

    async def rendered_prompt(self, request: AskModel) -> str:
        """Give the text that the model would read."""

    async def read_text(self, request: AskModel, written: Reply) -> Reply:
        """Read a reply's ``text``."""

    async def stop(self) -> None:
        """Let go of everything."""


def vllm_reader_here() -> Callable[[BoundModel], Reader] | None:
    """Give what makes readers by vLLM; None where it is not installed."""
    from flowrun.backends.vllm.reader import VllmReader, can_read

    return (lambda bound: VllmReader(bound.model, base_dir=bound.folder)) if can_read() else None


class _InRealTime:
    """A reader whose work the loop waits for."""

    def __init__(self, reader: Reader, loop: VirtualLoop) -> None:
        self._reader = reader
        self._loop = loop

    async def start(self) -> None:
        with self._loop.real_time():
            await self._reader.start()

    async def rendered_prompt(self, request: AskModel) -> str:
        with self._loop.real_time():
            return await self._reader.rendered_prompt(request)

    async def read_text(self, request: AskModel, written: Reply) -> Reply:
        with self._loop.real_time():
            return await self._reader.read_text(request, written)

    async def stop(self) -> None:
        with self._loop.real_time():
            await self._reader.stop()


class Readers:
    """The readers of a session. ``open_reader`` None is a machine that has none."""

    def __init__(self, open_reader: Callable[[BoundModel], Reader] | None, loop: VirtualLoop) -> None:
        self._open = open_reader
        self._loop = loop
        self._started: list[tuple[BoundModel, Reader]] = []

    @property
    def available(self) -> bool:
        """Whether raw text can be read at all."""
        return self._open is not None

    async def reader_of(self, bound: BoundModel) -> Reader:
        """Give a model's reader, started.

        Raises:
            BackendError: the model has none, or it cannot start.
        """
        for known, reader in self._started:
            if known == bound:
                return reader
        if self._open is None:
            raise BackendError(NOT_INSTALLED)
        if bound.model.backend != "vllm":
            raise BackendError(
                f"raw text is read by vLLM's parsers, and the model {bound.model.name!r} runs by "
                f"{bound.model.backend}: give content and tool_calls in place of text"
            )
        reader = _InRealTime(self._open(bound), self._loop)
        await reader.start()
        self._started.append((bound, reader))
        return reader

    async def stop(self) -> None:
        """Stop every reader."""
        while self._started:
            await self._started.pop()[1].stop()
