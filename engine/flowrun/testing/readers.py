"""The readers that parse the raw text of models in tests: one per model, started at its first use and then reused."""

from collections.abc import Callable
from typing import Protocol

from flowrun.core.events import AskModel
from flowrun.core.messages import Reply
from flowrun.errors import BackendError
from flowrun.runtime.project import BoundModel
from flowrun.testing.clock import VirtualLoop

NOT_INSTALLED = "its replies hold raw text, which only vLLM's parsers read, and vLLM is not installed"


class Reader(Protocol):
    """A reader that renders the prompts and parses the replies of one model."""

    async def start(self) -> None:
        """Load the tokenizer and the parsers.

        Raises:
            BackendError: a package or a file of the model is missing.
        """

    async def rendered_prompt(self, request: AskModel) -> str:
        """Return the rendered prompt, as the model would read it."""

    async def read_text(self, request: AskModel, written: Reply) -> Reply:
        """Return a reply with its ``text`` parsed into content, reasoning and tool calls."""

    async def stop(self) -> None:
        """Release all resources."""


def find_vllm_reader() -> Callable[[BoundModel], Reader] | None:
    """Return a function that builds readers with vLLM's parsers, or None if vLLM is not installed."""
    from flowrun.backends.vllm.reader import VllmReader, can_read

    return (lambda bound: VllmReader(bound.model, base_dir=bound.folder)) if can_read() else None


class _RealTimeReader:
    """A reader whose work takes real time on the virtual loop."""

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
    """The readers of a session.

    Args:
        open_reader: builds the reader of a model; None if raw text cannot be parsed here.
    """

    def __init__(self, open_reader: Callable[[BoundModel], Reader] | None, loop: VirtualLoop) -> None:
        self._open = open_reader
        self._loop = loop
        self._started: list[tuple[BoundModel, Reader]] = []

    @property
    def available(self) -> bool:
        """Return whether raw text can be parsed here."""
        return self._open is not None

    async def reader_of(self, bound: BoundModel) -> Reader:
        """Return the reader of a model; start it at its first use.

        Raises:
            BackendError: there is no reader for the model, or it cannot start.
        """
        for started, reader in self._started:
            if started == bound:
                return reader
        if self._open is None:
            raise BackendError(NOT_INSTALLED)
        if not bound.model.capabilities.raw_text:
            raise BackendError(
                f"raw text is read by vLLM's parsers, and the model {bound.model.name!r} runs by "
                f"{bound.model.backend}: give content and tool_calls in place of text"
            )
        reader = _RealTimeReader(self._open(bound), self._loop)
        await reader.start()
        self._started.append((bound, reader))
        return reader

    async def stop(self) -> None:
        """Stop all readers."""
        while self._started:
            await self._started.pop()[1].stop()
