"""Parses a model's text without the model: vLLM's tokenizer, chat template and parsers, and no engine.

Needs the model's configuration and tokenizer, never its weights.
"""

import asyncio
import importlib.util
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from flowrun.backends.vllm.chat import VllmChat
from flowrun.backends.vllm.engine import INSTALL, Engine, Start
from flowrun.backends.vllm.errors import as_model_error
from flowrun.backends.vllm.model_files import find_model, find_model_here
from flowrun.backends.vllm.templates import load_template
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply, Tokens
from flowrun.errors import BackendError, FlowrunError
from flowrun.spec.model import Model

T = TypeVar("T")


def can_read() -> bool:
    """Return whether vLLM is installed."""
    return importlib.util.find_spec("vllm") is not None


class VllmReader:
    """The prompts and the parsers of one model."""

    def __init__(self, model: Model, *, base_dir: Path, fetches: bool = True) -> None:
        """Bind the model's settings; its paths are relative to ``base_dir``.

        Args:
            fetches: ask the hub, and convert a GGUF file; else the model's files must be on this machine.
        """
        self._model = model
        self._find = find_model if fetches else find_model_here
        self._base_dir = base_dir
        self._chat: VllmChat | None = None

    async def start(self) -> None:
        """Load the tokenizer and the parsers.

        Raises:
            BackendError: vLLM or the model is missing, or the parsers do not fit the model.
        """
        if not can_read():
            raise BackendError(INSTALL)
        path = await self._find(self._model.name, base_dir=self._base_dir, revision=self._model.revision)
        template = load_template(self._model.chat_template, self._base_dir)
        start = _ChatOnly(self._model, path=path, template=template, verbose=False, progress=lambda message: None)
        self._chat = (await asyncio.to_thread(start.run))[1]

    @property
    def window(self) -> int:
        """The tokens of the model's context window."""
        return self._started().window

    async def rendered_prompt(self, request: AskModel) -> str:
        """Return the text that the model would read for a request.

        Raises:
            ModelError: the request cannot be rendered.
        """
        chat = self._started()
        return chat.prompt_text(await _render(chat, request))

    async def read_prompt(self, request: AskModel) -> tuple[str, list[int]]:
        """Return the text and the tokens that the model would read for a request, also if they are too many for it.

        Raises:
            ModelError: the request cannot be rendered.
        """
        return await _as_model_errors(self._started().read_prompt(request))

    def has_read(self, prompt: Sequence[int], tokens: Tokens) -> bool:
        """Return whether the reply with these tokens was written behind this prompt, by the checksum of both."""
        return self._started().has_read(prompt, tokens)

    async def read_text(self, request: AskModel, written: Reply) -> Reply:
        """Parse the ``text`` of a model's reply to a request again; its finish reason and usage stay.

        Raises:
            ModelError: the request cannot be rendered.
        """
        chat = self._started()
        reason = "stop" if written.finish_reason == "tool_calls" else written.finish_reason
        rendered = await _render(chat, request)
        return chat.read(rendered, written.text or "", finish_reason=reason, usage=written.usage)

    async def stop(self) -> None:
        """Stop the tokenizer. May be called twice, and without a start."""
        chat, self._chat = self._chat, None
        if chat is not None:
            await asyncio.to_thread(chat.close)

    def _started(self) -> VllmChat:
        if self._chat is None:
            raise BackendError("the reader was not started, or was stopped")
        return self._chat


async def _render(chat: VllmChat, request: AskModel) -> Any:
    return await _as_model_errors(chat.render(request))


async def _as_model_errors(rendering: Awaitable[T]) -> T:
    try:
        return await rendering
    except FlowrunError:
        raise
    except Exception as exc:
        raise as_model_error(exc) from exc


class _ChatOnly(Start):
    """A start that loads the tokenizer and the parsers, but no engine."""

    def _start_engine(self, config: Any) -> Engine:
        return _NoEngine(None, [], None)


class _NoEngine(Engine):
    """The placeholder that ``_ChatOnly`` returns in place of an engine."""
