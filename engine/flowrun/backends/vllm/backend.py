"""The model in this process: vLLM's engine, which works on any number of requests at once.

Only the modules of this package import vllm, inside functions, when a run needs it; importing them is cheap.
"""

import asyncio
import importlib.util
import itertools
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from flowrun.backends.text_pieces import TextPieces
from flowrun.backends.vllm.adapters import adapter_arguments, adapter_requests, find_adapters
from flowrun.backends.vllm.chat import Rendered, VllmChat
from flowrun.backends.vllm.engine import INSTALL, Engine, Start
from flowrun.backends.vllm.errors import as_model_error, explain
from flowrun.backends.vllm.model_files import find_model
from flowrun.backends.vllm.templates import load_template
from flowrun.backends.vllm.written_text import WrittenText
from flowrun.backends.wrapper import AdaptedBackend, PromptSize, in_time
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply, Usage
from flowrun.core.ports import ModelBackend, OnText
from flowrun.durations import spell_duration
from flowrun.errors import BackendError, FlowrunError, ModelError
from flowrun.spec.model import Model

_POLL_SECONDS: Final = 0.1  # between two looks for the stages that the engine's process announces


class VllmBackend:
    """The port ``ModelBackend`` over an engine of vLLM."""

    def __init__(
        self,
        model: Model,
        *,
        base_dir: Path,
        verbose: bool = False,
        progress: Callable[[str], None] = lambda message: None,
        note: Callable[[str], None] = lambda message: None,
        cache_dir: Path | None = None,
        adapters: Sequence[str] = (),
    ) -> None:
        """Bind the model's settings; ``start`` loads it.

        Args:
            adapters: the LoRA adapters of which requests may use one; see ``with_adapter``.
            base_dir: the spec's folder; its paths are relative to it.
            verbose: show vLLM's log.
            progress: called with each stage of a start, when it begins.
            note: called with what the user should know of a start, and with its time when it has ended.
            cache_dir: the folder of converted models; the user's cache if None.
        """
        self._model = model
        self._base_dir = base_dir
        self._verbose = verbose
        self._progress = progress
        self._note = note
        self._cache_dir = cache_dir
        self._adapters = tuple(adapters)
        self._loaded: dict[str, Any] = {}
        self._counter = itertools.count(1)
        self._engine: Engine | None = None
        self._chat: VllmChat | None = None
        self._failure: str | None = None

    @property
    def concurrency(self) -> int | None:
        """Return the number of sequences in one step of the engine; None while it is not running."""
        return None if self._chat is None else self._chat.concurrency

    @property
    def failure(self) -> str | None:
        """Return why the engine died; None while it lives, or was stopped alive. See ``wrapper.Ends``."""
        return self._failure if self._engine is None else self._engine.dead

    async def start(self) -> None:
        """Find the model, and start vLLM's engine on it. See ``ports.ModelBackend.start``."""
        if self._engine is not None:
            return
        if importlib.util.find_spec("vllm") is None:
            raise BackendError(INSTALL)
        loop, began = asyncio.get_running_loop(), time.monotonic()
        template = load_template(self._model.chat_template, self._base_dir)
        self._progress(f"reading the files of {self._model.name}")
        path = await find_model(
            self._model.name,
            base_dir=self._base_dir,
            revision=self._model.revision,
            cache_dir=self._cache_dir,
            progress=self._progress,
            note=self._note,
        )
        folders = await find_adapters(self._adapters, base_dir=self._base_dir)
        start = Start(
            self._model,
            path=path,
            arguments=adapter_arguments(list(folders.values())),
            template=template,
            verbose=self._verbose,
            progress=lambda message: loop.call_soon_threadsafe(self._progress, message),
            note=lambda message: loop.call_soon_threadsafe(self._note, message),
        )
        self._engine, self._chat = await run_start(start)
        if folders:
            await self._load_adapters(folders)
        if template is not None and not self._chat.uses_template:
            self._note("the Mistral tokenizer ignores model.chat_template")
        self._note(f"ready after {spell_duration(time.monotonic() - began)}")

    async def _load_adapters(self, folders: Mapping[str, Path]) -> None:
        """Load the adapters into the engine that has just started; it is stopped if one of them does not fit."""
        engine, _ = self._running()
        for name, adapter in adapter_requests(folders).items():
            self._progress(f"loading the adapter {name}")
            try:
                await engine.load_adapter(adapter)
            except Exception as exc:
                await self.stop()
                raise BackendError(f"model.adapter: vLLM cannot load {name!r}: {explain(exc)}") from exc
            self._loaded[name] = adapter

    def with_adapter(self, name: str) -> ModelBackend:
        """Return this backend for requests that use one of its adapters. The engine is the same."""
        return AdaptedBackend(self, name)

    async def reply(
        self,
        request: AskModel,
        *,
        keeps_tokens: bool = False,
        on_text: OnText | None = None,
        adapter: str | None = None,
    ) -> Reply:
        """Return the model's reply, by one of its adapters or by none. See ``ports.ModelBackend.reply``.

        Args:
            keeps_tokens: return the log-probabilities and the tokens of the prompt too.
        """
        engine, chat = self._running()
        rendered = await self._render(chat, request, keeps_tokens=keeps_tokens)
        request_id = f"{request.run}-{request.step}-{next(self._counter)}"
        pieces = None if on_text is None or request.labels else TextPieces(on_text)
        output = await self._generate(
            engine,
            rendered,
            request_id,
            self._loaded.get(adapter) if adapter else None,
            on_output=None if pieces is None else _reader(chat, rendered, pieces),
        )
        (completion,) = output.outputs
        if completion.finish_reason in ("abort", "error"):
            why = engine.dead or f"vLLM gave the request up ({completion.finish_reason})"
            raise ModelError("backend.unavailable", why)
        usage = Usage(
            prompt_tokens=len(output.prompt_token_ids),
            completion_tokens=len(completion.token_ids),
            cached_tokens=output.num_cached_tokens or 0,
            rerendered=int(rendered.rerendered),
        )
        if request.labels:
            return chat.read_decision(request, completion.logprobs, usage)
        reply = chat.read(
            rendered,
            completion.text,
            token_ids=completion.token_ids,
            logprobs=_own_logprobs(completion) if keeps_tokens else (),
            finish_reason=completion.finish_reason or "stop",
            usage=usage,
        )
        return reply if pieces is None else pieces.finish(reply)

    def check_decisions(self) -> None:
        """Check that decide states can be answered. See ``wrapper.Decides``."""
        _, chat = self._running()
        if chat.letters.fault:
            raise BackendError(f"the model {self._model.name!r}: {chat.letters.fault}")

    def check_tokens(self) -> None:
        """Check that the tokens of replies can be kept. See ``wrapper.KeepsTokens``."""
        _, chat = self._running()
        chat.check_tokens()

    async def measure_prompt(self, request: AskModel) -> PromptSize:
        """Return how long the prompt of a request is. See ``wrapper.MeasuresPrompts``."""
        _, chat = self._running()
        try:
            _, ids = await chat.read_prompt(request)
        except FlowrunError:
            raise
        except Exception as exc:
            raise as_model_error(exc) from exc
        return PromptSize(len(ids), chat.window)

    async def rendered_prompt(self, request: AskModel) -> str:
        """Return the text that the model would read for a request.

        Raises:
            ModelError: the request cannot be rendered, or the engine is not running.
        """
        _, chat = self._running()
        return chat.prompt_text(await self._render(chat, request))

    async def read_text(self, request: AskModel, text: str) -> Reply:
        """Parse ``text`` as if it were the model's reply to a request.

        Raises:
            ModelError: the request cannot be rendered, or the engine is not running.
        """
        _, chat = self._running()
        return chat.read(await self._render(chat, request), text)

    async def stop(self) -> None:
        """Stop the engine. See ``ports.ModelBackend.stop``."""
        engine, chat = self._engine, self._chat
        self._failure = self.failure
        self._engine = self._chat = None
        if engine is not None and chat is not None:
            await to_the_end(stop_engine(engine, chat))

    def _running(self) -> tuple[Engine, VllmChat]:
        if self._engine is None or self._chat is None:
            raise ModelError("backend.unavailable", "vLLM's engine is not running: it was not started, or was stopped")
        if why := self._engine.dead:
            raise ModelError("backend.unavailable", why)
        return self._engine, self._chat

    async def _render(self, chat: VllmChat, request: AskModel, *, keeps_tokens: bool = False) -> Rendered:
        try:
            return await chat.render(request, keeps_tokens=keeps_tokens)
        except FlowrunError:
            raise
        except Exception as exc:
            if chat is not self._chat:
                raise ModelError("backend.unavailable", "vLLM's engine was stopped") from exc
            raise as_model_error(exc) from exc

    async def _generate(
        self,
        engine: Engine,
        rendered: Rendered,
        request_id: str,
        adapter: Any = None,
        *,
        on_output: Callable[[Any], object] | None = None,
    ) -> Any:
        try:
            written = engine.generate(rendered, request_id, adapter, on_output=on_output)
            return await in_time(written, self._model.timeout)
        except ModelError:
            raise
        except Exception as exc:
            if why := engine.dead:
                raise ModelError("backend.unavailable", why) from exc
            raise as_model_error(exc) from exc


def _reader(chat: VllmChat, rendered: Rendered, pieces: TextPieces) -> Callable[[Any], object]:
    """Return what reads vLLM's outputs of a reply while it is written."""
    parser = chat.parser_of(rendered)
    return WrittenText(pieces, parser=parser, request=rendered.request, prompt=rendered.token_ids).receive


def _own_logprobs(completion: Any) -> list[float]:
    """Return the log-probability of each token of a completion."""
    return [found[token].logprob for token, found in zip(completion.token_ids, completion.logprobs or (), strict=True)]


async def run_start(start: Start) -> tuple[Engine, VllmChat]:
    """Run a start in a thread, and report its stages; if this task is cancelled, cancel it and stop its engine.

    Raises:
        BackendError: the start failed.
    """
    running = asyncio.ensure_future(asyncio.to_thread(start.run))
    try:
        while not running.done():
            start.report_stages()
            await asyncio.wait([running], timeout=_POLL_SECONDS)
        return running.result()
    except asyncio.CancelledError:
        await to_the_end(_cancel_start(start, running))
        raise


async def _cancel_start(start: Start, running: asyncio.Future[tuple[Engine, VllmChat]]) -> None:
    while not running.done():
        start.cancel()
        await asyncio.wait([running], timeout=0.2)
    if running.exception() is None:  # it succeeded before it was cancelled
        await stop_engine(*running.result())


async def to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Await ``work`` until it is done, even if this task is cancelled; the cancellation is raised afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as exc:
            cancelled = exc
    task.result()
    if cancelled is not None:
        raise cancelled


async def stop_engine(engine: Engine, chat: VllmChat) -> None:
    """Stop an engine's processes and release its resources."""
    await asyncio.to_thread(engine.shutdown)
    await asyncio.to_thread(chat.close)
    await asyncio.sleep(0)  # vLLM closes its sockets by a callback in this loop
    engine.release()
