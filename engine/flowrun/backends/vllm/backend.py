"""The model in this process: vLLM's engine, asked for any number of replies at once.

Only this module's neighbours ``vllm_*`` import vllm, inside functions, when a run needs it; importing them is cheap.
"""

import asyncio
import importlib.util
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

from flowrun.backends.vllm.chat import Rendered, VllmChat
from flowrun.backends.vllm.engine import INSTALL, Engine, Start
from flowrun.backends.vllm.errors import as_model_error
from flowrun.backends.vllm.model_files import find_model
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply, Usage
from flowrun.errors import BackendError, FlowrunError, ModelError
from flowrun.spec.model import Model


class VllmBackend:
    """A ``ports.ModelBackend`` that runs the model by vLLM."""

    def __init__(
        self,
        model: Model,
        *,
        base_dir: Path,
        verbose: bool = False,
        progress: Callable[[str], None] | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        """Keep what is needed to start; ``base_dir`` is the spec's folder, from which its paths count.

        ``progress`` is told of the stages of a start; ``cache_dir`` is where converted models are kept, instead of in
        the user's cache.
        """
        self._model = model
        self._base_dir = base_dir
        self._verbose = verbose
        self._progress = progress or (lambda message: None)
        self._cache_dir = cache_dir
        self._numbers = itertools.count(1)
        self._engine: Engine | None = None
        self._chat: VllmChat | None = None

    @property
    def concurrency(self) -> int | None:
        """So many sequences are in one step of the engine; None while it is not running."""
        return None if self._chat is None else self._chat.concurrency

    async def start(self) -> None:
        """Find the model, and start vLLM's engine on it. See ``ports.ModelBackend.start``."""
        if self._engine is not None:
            return
        if importlib.util.find_spec("vllm") is None:
            raise BackendError(INSTALL)
        loop = asyncio.get_running_loop()
        template = load_template(self._model.chat_template, self._base_dir)
        path = await find_model(
            self._model.name,
            base_dir=self._base_dir,
            revision=self._model.revision,
            cache_dir=self._cache_dir,
            progress=self._progress,
        )
        start = Start(
            self._model,
            path=path,
            template=template,
            verbose=self._verbose,
            progress=lambda message: loop.call_soon_threadsafe(self._progress, message),
        )
        self._engine, self._chat = await finish(start)
        if template is not None and not self._chat.takes_template:
            self._progress("the Mistral tokenizer ignores model.chat_template")
        self._progress("ready")

    async def reply(self, request: AskModel) -> Reply:
        """Ask for one reply. See ``ports.ModelBackend.reply``."""
        engine, chat = self._running()
        rendered = await self._render(chat, request)
        output = await self._generate(engine, rendered, f"{request.run}-{request.step}-{next(self._numbers)}")
        (completion,) = output.outputs
        if completion.finish_reason in ("abort", "error"):
            why = engine.dead or f"vLLM gave the request up ({completion.finish_reason})"
            raise ModelError("backend.unavailable", why)
        return chat.read(
            rendered,
            completion.text,
            token_ids=completion.token_ids,
            finish_reason=completion.finish_reason or "stop",
            usage=Usage(
                prompt_tokens=len(output.prompt_token_ids),
                completion_tokens=len(completion.token_ids),
                cached_tokens=output.num_cached_tokens or 0,
                rerendered=int(rendered.rerendered),
            ),
        )

    async def rendered_prompt(self, request: AskModel) -> str:
        """Give the text that the model would read for a request.

        Raises:
            ModelError: as ``reply`` does for a request that cannot be rendered.
        """
        _, chat = self._running()
        return chat.prompt_text(await self._render(chat, request))

    async def read_text(self, request: AskModel, text: str) -> Reply:
        """Read ``text`` as if the model had written it in answer to a request.

        Raises:
            ModelError: as ``reply`` does for a request that cannot be rendered.
        """
        _, chat = self._running()
        return chat.read(await self._render(chat, request), text)

    async def stop(self) -> None:
        """End the engine. See ``ports.ModelBackend.stop``."""
        engine, chat = self._engine, self._chat
        self._engine = self._chat = None
        with anyio.CancelScope(shield=True):
            if engine is not None and chat is not None:
                await end(engine, chat)

    def _running(self) -> tuple[Engine, VllmChat]:
        if self._engine is None or self._chat is None:
            raise ModelError("backend.unavailable", "vLLM's engine is not running: it was not started, or was stopped")
        if why := self._engine.dead:
            raise ModelError("backend.unavailable", why)
        return self._engine, self._chat

    async def _render(self, chat: VllmChat, request: AskModel) -> Rendered:
        try:
            return await chat.render(request)
        except FlowrunError:
            raise
        except Exception as exc:
            if chat is not self._chat:
                raise ModelError("backend.unavailable", "vLLM's engine was stopped") from exc
            raise as_model_error(exc) from exc

    async def _generate(self, engine: Engine, rendered: Rendered, request_id: str) -> Any:
        try:
            return await engine.generate(rendered, request_id)
        except Exception as exc:
            if why := engine.dead:
                raise ModelError("backend.unavailable", why) from exc
            raise as_model_error(exc) from exc


async def finish(start: Start) -> tuple[Engine, VllmChat]:
    """Wait for a start in its thread; if this task is cancelled, end what it began.

    Raises:
        BackendError: it did not succeed.
    """
    running = asyncio.ensure_future(asyncio.to_thread(start.run))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        with anyio.CancelScope(shield=True):
            while not running.done():
                start.give_up()
                await asyncio.wait([running], timeout=0.2)
            if running.exception() is None:  # it was ready just then
                await end(*running.result())
        raise


async def end(engine: Engine, chat: VllmChat) -> None:
    """End an engine's processes and give back what it held."""
    await asyncio.to_thread(engine.shutdown)
    await asyncio.to_thread(chat.close)
    await asyncio.sleep(0)  # vLLM closes its sockets by a callback in this loop
    engine.release()


def load_template(template: str | None, base_dir: Path) -> str | None:
    """Give a chat template's text; a text that looks like Jinja is one itself, any other is a path.

    Raises:
        BackendError: there is no such file.
    """
    if template is None or any(sign in template for sign in ("\n", "{{", "{%")):
        return template
    path = base_dir / Path(template).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise BackendError(f"model.chat_template: cannot read {path}: {exc}") from exc
