"""Starts vLLM's engine in a thread and a process of its own: the event loop goes on, and a start can be given up.

It is AsyncLLM, the engine of vLLM's own server, whose process may die without taking us along. On CPUs two of its
defaults are changed, which halves the time to the first token: no worker process beside the engine's, and a fork of
this process, which has all imports done, instead of a new one.
"""

import contextlib
import importlib
import logging
import os
import re
import signal
import threading
from collections.abc import AsyncIterator, Callable
from multiprocessing.process import BaseProcess
from typing import Any, Final

import msgspec

from flowrun.backends.vllm import engine_process
from flowrun.backends.vllm.chat import Rendered, VllmChat
from flowrun.backends.vllm.errors import explain
from flowrun.backends.vllm.log_scan import raised_line, telling_line
from flowrun.backends.vllm.names import faults_of_model
from flowrun.errors import BackendError
from flowrun.printable_log import make_printable
from flowrun.spec.model import Model

INSTALL: Final = (
    'vLLM is not installed: `pip install "flowrun[vllm]"` for NVIDIA GPUs, '
    '`uv pip install --torch-backend=cpu "flowrun[cpu]"` for CPUs'
)
_IMPORTS: Final = (
    "torch",
    "transformers",
    "vllm",
    "vllm.engine.arg_utils",
    "vllm.v1.engine.async_llm",
    "vllm.parser",
    "vllm.renderers.online_renderer",
)
"""In pieces, for between two of them a start can be given up."""
_QUIET: Final = {
    "VLLM_LOGGING_LEVEL": "CRITICAL",
    "TRANSFORMERS_VERBOSITY": "error",
    "TQDM_DISABLE": "1",
}
_ALWAYS: Final = {"VLLM_LOGGING_STREAM": "ext://sys.stderr"}  # stdout is for the answer
_DEFAULTS: Final = {"VLLM_NO_USAGE_STATS": "1"}  # nobody asked us to report what the user runs
_CPU_DEFAULTS: Final = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # 1 adds a worker process: three processes, slower, a longer start
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB; vLLM's own default takes a large part of the machine
}
_CACHE_HINT: Final = " On CPUs the cache has 2 GiB unless model.engine.kv_cache_memory_bytes says otherwise."
_KILLED: Final = re.compile(r"'EngineCore\w*': -(\d+)")

_one_start = threading.Lock()  # a start changes the process's environment for a while


class GivenUp(Exception):
    """Nobody waits for this start any more."""


class Engine:
    """A running engine and the processes behind it."""

    def __init__(self, engine: Any, processes: list[BaseProcess], log: engine_process.EngineLog | None) -> None:
        self._engine = engine
        self._processes = processes
        self._log = log
        self._stopped = False

    @property
    def dead(self) -> str | None:
        """Say why the engine died, or None while it lives."""
        if self._stopped:
            return "vLLM's engine was stopped"
        if not self._engine.errored:
            return None
        ends = [process.exitcode or 0 for process in self._processes]
        why = killed_by(-min(ends)) if min(ends, default=0) < 0 else raised_line(self._log.read() if self._log else "")
        return f"vLLM's engine died{f': {why}' if why else ''}"

    async def generate(self, rendered: Rendered, request_id: str) -> Any:
        """Give vLLM's output of a request, whole. Cancelling frees its place in the engine at once."""
        outputs: AsyncIterator[Any] = self._engine.generate(
            rendered.prompt, rendered.sampling, request_id, **rendered.generate
        )
        last: Any = None
        async for output in outputs:
            last = output
        return last

    def shutdown(self) -> None:
        """End the processes. Blocks for a second or two; may be called twice. ``release`` comes after it."""
        self._stopped = True
        try:
            self._engine.shutdown()
            # Its __del__ calls it again; if somebody still holds it when Python ends, that prints a traceback.
            self._engine.shutdown = lambda: None
        finally:
            for process in self._processes:
                engine_process.kill_group(process)
            if self._log is not None:
                self._log.close()

    def release(self) -> None:
        """Let go of what vLLM's shutdown leaves to the garbage collector; in the event loop, once its callbacks ran."""
        with contextlib.suppress(Exception):
            self._engine.engine_core.resources.ctx.destroy(linger=0)


class Start:
    """One attempt to start an engine: ``run`` blocks in a thread of its own, ``give_up`` ends it from another."""

    def __init__(
        self, model: Model, *, path: str, template: str | None, verbose: bool, progress: Callable[[str], object]
    ) -> None:
        self._model = model
        self._path = path
        self._template = template
        self._verbose = verbose
        self._progress = progress
        self._given_up = threading.Event()
        self._others: list[BaseProcess] | None = None  # engine processes that were there before the launch

    def give_up(self) -> None:
        """Make ``run`` end soon; it raises GivenUp, or gives an engine that was ready just then."""
        self._given_up.set()
        for process in self._processes():
            engine_process.kill_group(process)

    def _processes(self) -> list[BaseProcess]:
        if self._others is None:
            return []
        return [process for process in engine_process.engine_processes() if process not in self._others]

    def run(self) -> tuple[Engine, VllmChat]:
        """Import vLLM, check the model's settings, start the engine.

        Raises:
            BackendError: something is missing or wrong; no process is left.
            GivenUp: nobody wants it any more; no process is left.
        """
        while not _one_start.acquire(timeout=0.1):
            self._go_on()
        settings = _ALWAYS if self._verbose else {**_ALWAYS, **_QUIET}
        try:
            with engine_process.environment(settings, _DEFAULTS), engine_process.silence(verbose=self._verbose):
                return self._run()
        except (BackendError, GivenUp):
            raise
        except Exception as exc:
            raise BackendError(f"vLLM cannot run {self._model.name!r}: {explain(exc)}") from exc
        finally:
            _one_start.release()

    def _run(self) -> tuple[Engine, VllmChat]:
        self._progress("importing vLLM")
        self._import()
        from vllm.platforms import current_platform

        if faults := faults_of_model(self._model):
            raise BackendError("\n".join(faults))
        cpu = current_platform.is_cpu()
        defaults = _CPU_DEFAULTS if cpu else {}
        if "kv_cache_memory_bytes" in self._model.engine:  # which the environment's would override
            defaults = {name: value for name, value in defaults.items() if name != "VLLM_CPU_KVCACHE_SPACE"}
        with engine_process.environment({}, defaults):
            method = os.environ.get("VLLM_WORKER_MULTIPROC_METHOD")
            config = self._configure({"enforce_eager": True} if cpu else {})
            if cpu:  # configuring has set it to spawn; what the user set counts more
                os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = method or "fork"
            self._go_on()
            chat = VllmChat(self._model, config, self._template)
            try:
                self._go_on()
                self._progress("loading the weights")
                return self._launch(config), chat
            except BaseException:
                chat.close()
                raise

    def _go_on(self) -> None:
        if self._given_up.is_set():
            raise GivenUp

    def _import(self) -> None:
        for module in _IMPORTS:
            self._go_on()
            try:
                importlib.import_module(module)
            except Exception as exc:
                why = f"{type(exc).__name__}: {explain(exc)}"
                raise BackendError(
                    f"vLLM cannot be imported ({why}): flowrun needs vLLM 0.32 or newer, and builds of torch, "
                    "torchvision and torchaudio that belong together"
                ) from exc
        if self._verbose:
            make_printable(logging.getLogger("vllm").handlers)
        else:
            from huggingface_hub.utils.tqdm import disable_progress_bars

            disable_progress_bars()

    def _configure(self, defaults: dict[str, Any]) -> Any:
        from vllm.engine.arg_utils import AsyncEngineArgs

        model = self._model
        wanted: dict[str, Any] = msgspec.to_builtins(dict(model.engine))
        own: dict[str, Any] = {"model": self._path}
        if model.reasoning_parser:
            own["reasoning_parser"] = model.reasoning_parser
        if model.revision and self._path == model.name:
            own["revision"] = model.revision
        try:
            return AsyncEngineArgs(**{**defaults, **wanted, **own}).create_engine_config()
        except Exception as exc:
            raise BackendError(f"vLLM refuses {model.name!r} or its engine arguments: {explain(exc)}") from exc

    def _launch(self, config: Any) -> Engine:
        from vllm import AsyncLLMEngine

        log = None if self._verbose else engine_process.EngineLog()
        self._others = engine_process.engine_processes()
        try:
            with engine_process.settled_forks(log.name if log else ""):
                self._go_on()
                engine = AsyncLLMEngine.from_vllm_config(config, disable_log_stats=True)
        except Exception as exc:
            for process in self._processes():
                engine_process.kill_group(process)
            output = log.read() if log else ""
            if log:
                log.close()
            self._go_on()
            why = cause_of(exc, output)
            hint = _CACHE_HINT if "cache" in why and "VLLM_CPU_KVCACHE_SPACE" in os.environ else ""
            raise BackendError(f"vLLM's engine did not start: {why}{hint}") from exc
        if log:
            log.take_name()
        return Engine(engine, self._processes(), log)


def cause_of(exc: Exception, output: str) -> str:
    """Say why an engine did not start, from vLLM's exception and what the engine's process wrote."""
    if killed := _KILLED.search(str(exc)):
        return killed_by(int(killed[1]))
    return telling_line(output) or explain(exc)


def killed_by(number: int) -> str:
    """Say that the engine's process was killed by a signal, and what that most often means."""
    likely = ", most often for lack of memory" if number == signal.SIGKILL else ""
    return f"its process was killed by {signal.Signals(number).name}{likely}"
