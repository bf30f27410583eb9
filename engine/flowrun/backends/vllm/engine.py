"""Starts vLLM's engine in a thread and a process of its own: the loop is not blocked, and a start can be cancelled.

The engine is AsyncLLM, that of vLLM's own server; if its process dies, this one survives. On CPUs two of its defaults
are changed, which halves the time to the first token: no worker process besides the engine's, and a fork of this
process, which has imported all modules, instead of a new one.
"""

import contextlib
import importlib
import logging
import os
import re
import signal
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from multiprocessing.process import BaseProcess
from types import MappingProxyType
from typing import Any, Final

import msgspec

from flowrun.backends.vllm import engine_process
from flowrun.backends.vllm.chat import Rendered, VllmChat
from flowrun.backends.vllm.contract import check_contract
from flowrun.backends.vllm.cpu_generators import mend_cpu_generators
from flowrun.backends.vllm.errors import explain
from flowrun.backends.vllm.internals import SUPPORTED
from flowrun.backends.vllm.log_scan import error_line, raised_line
from flowrun.backends.vllm.names import faults_of_model
from flowrun.errors import BackendError, install_extra
from flowrun.printable_log import make_printable
from flowrun.spec.model import Model

INSTALL: Final = (
    f"vLLM is not installed: {install_extra('vllm')} for NVIDIA GPUs, "
    '`uv pip install --torch-backend=cpu ".[cpu]"` for CPUs'
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
"""Imported one by one: a start can be cancelled between two of them."""
_QUIET: Final = {
    "VLLM_LOGGING_LEVEL": "CRITICAL",
    "TRANSFORMERS_VERBOSITY": "error",
    "TQDM_DISABLE": "1",
}
_ALWAYS: Final = {"VLLM_LOGGING_STREAM": "ext://sys.stderr"}  # stdout is for the flow's answer
_DEFAULTS: Final = {"VLLM_NO_USAGE_STATS": "1"}  # no usage report without the user's consent
_CPU_DEFAULTS: Final = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # 1 adds a worker process: three processes, slower, a longer start
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB; vLLM's own default takes a large part of the machine
}
_CACHE_HINT: Final = " On CPUs the cache has 2 GiB unless model.engine.kv_cache_memory_bytes says otherwise."
_KILLED: Final = re.compile(r"'EngineCore\w*': -(\d+)")

_start_lock = threading.Lock()  # a start temporarily changes the process's environment


class StartCancelled(Exception):
    """A start was cancelled."""


class Engine:
    """A running engine and the processes behind it."""

    def __init__(self, engine: Any, processes: list[BaseProcess], log: engine_process.EngineLog | None) -> None:
        self._engine = engine
        self._processes = processes
        self._log = log
        self._stopped = False

    @property
    def dead(self) -> str | None:
        """Return the reason why the engine died; None while it lives."""
        if self._stopped:
            return "vLLM's engine was stopped"
        if not self._engine.errored:
            return None
        ends = [process.exitcode or 0 for process in self._processes]
        why = killed_by(-min(ends)) if min(ends, default=0) < 0 else raised_line(self._log.read() if self._log else "")
        return f"vLLM's engine died{f': {why}' if why else ''}"

    async def load_adapter(self, adapter: Any) -> None:
        """Load a LoRA adapter, a ``LoRARequest`` of vLLM, into a slot of its own."""
        await self._engine.add_lora(adapter)

    async def generate(
        self,
        rendered: Rendered,
        request_id: str,
        adapter: Any = None,
        *,
        on_output: Callable[[Any], object] | None = None,
    ) -> Any:
        """Return vLLM's final output of a request. Cancelling frees its place in the engine at once.

        Args:
            adapter: the ``LoRARequest`` of an adapter that is loaded; None: the model as it is.
            on_output: receives all that was written so far, again and again, and then the final output; if None, the
                engine sends nothing before that.
        """
        if on_output is not None:
            from vllm.sampling_params import RequestOutputKind

            rendered.sampling.output_kind = RequestOutputKind.CUMULATIVE
        outputs: AsyncIterator[Any] = self._engine.generate(
            rendered.prompt, rendered.sampling, request_id, lora_request=adapter, **rendered.generate
        )
        last: Any = None
        async for output in outputs:
            last = output
            if on_output is not None:
                on_output(output)
        return last

    def shutdown(self) -> None:
        """Stop the processes. Blocks for a second or two; may be called twice. To be followed by ``release``."""
        self._stopped = True
        try:
            self._engine.shutdown()
            # vLLM's __del__ calls it again, which prints a traceback if the engine lives until Python exits.
            self._engine.shutdown = lambda: None
        finally:
            for process in self._processes:
                engine_process.kill_group(process)
            if self._log is not None:
                self._log.close()

    def release(self) -> None:
        """Close the ZeroMQ context, which vLLM's shutdown leaves open; in the event loop, after vLLM's callbacks."""
        with contextlib.suppress(Exception):
            self._engine.engine_core.resources.ctx.destroy(linger=0)


class Start:
    """One attempt to start an engine: ``run`` blocks in a thread of its own, ``cancel`` ends it from another."""

    def __init__(
        self,
        model: Model,
        *,
        path: str,
        template: str | None,
        verbose: bool,
        progress: Callable[[str], object],
        note: Callable[[str], object] = lambda message: None,
        arguments: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Bind the settings of an engine.

        Args:
            arguments: engine arguments that those of the model have precedence over.
            note: called with what the user should know of the start.
        """
        self._model = model
        self._arguments = arguments
        self._path = path
        self._template = template
        self._verbose = verbose
        self._progress = progress
        self._note = note
        self._cancelled = threading.Event()
        self._earlier: list[BaseProcess] | None = None  # engine processes that existed before this start
        self._log: engine_process.EngineLog | None = None
        self._reported = 0  # stages of the engine's process

    def cancel(self) -> None:
        """Make ``run`` end soon; it raises StartCancelled, or returns an engine that became ready before."""
        self._cancelled.set()
        for process in self._processes():
            engine_process.kill_group(process)

    def report_stages(self) -> None:
        """Report the stages that the engine's process has announced since the last call."""
        stages = self._log.stages() if self._log is not None else []
        for stage in stages[self._reported :]:
            self._progress(stage)
        self._reported = len(stages)

    def _processes(self) -> list[BaseProcess]:
        if self._earlier is None:
            return []
        return [process for process in engine_process.engine_processes() if process not in self._earlier]

    def run(self) -> tuple[Engine, VllmChat]:
        """Import vLLM, check the model's settings, start the engine.

        Raises:
            BackendError: vLLM, the model or a setting is missing or wrong; no process is left.
            StartCancelled: ``cancel`` was called; no process is left.
        """
        while not _start_lock.acquire(timeout=0.1):
            self._check_cancelled()
        variables = _ALWAYS if self._verbose else {**_ALWAYS, **_QUIET}
        try:
            with engine_process.environment(variables, _DEFAULTS), engine_process.silence(verbose=self._verbose):
                return self._run()
        except (BackendError, StartCancelled):
            raise
        except Exception as exc:
            raise BackendError(f"vLLM cannot run {self._model.name!r}: {explain(exc)}") from exc
        finally:
            _start_lock.release()

    def _run(self) -> tuple[Engine, VllmChat]:
        self._progress("importing vLLM")
        self._import()
        import vllm
        from vllm.platforms import current_platform

        check_contract(vllm.__version__, self._note)

        if faults := faults_of_model(self._model):
            raise BackendError("\n".join(faults))
        cpu = current_platform.is_cpu()
        if cpu:
            mend_cpu_generators()
        defaults = _CPU_DEFAULTS if cpu else {}
        if "kv_cache_memory_bytes" in self._model.engine:  # the variable would override it
            defaults = {name: value for name, value in defaults.items() if name != "VLLM_CPU_KVCACHE_SPACE"}
        with engine_process.environment({}, defaults):
            self._progress("reading the configuration")
            method = os.environ.get("VLLM_WORKER_MULTIPROC_METHOD")
            config = self._configure({**self._arguments, **({"enforce_eager": True} if cpu else {})})
            if cpu:  # configuring sets it to spawn; the user's value has precedence
                os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = method or "fork"
            self._check_cancelled()
            self._progress("reading the tokenizer")
            chat = VllmChat(self._model, config, self._template)
            try:
                self._check_cancelled()
                self._progress("starting the engine")
                return self._start_engine(config), chat
            except BaseException:
                chat.close()
                raise

    def _check_cancelled(self) -> None:
        if self._cancelled.is_set():
            raise StartCancelled

    def _import(self) -> None:
        for module in _IMPORTS:
            self._check_cancelled()
            try:
                importlib.import_module(module)
            except Exception as exc:
                why = f"{type(exc).__name__}: {explain(exc)}"
                raise BackendError(
                    f"vLLM cannot be imported ({why}): flowrun needs vLLM {SUPPORTED}, and builds of torch, "
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

    def _start_engine(self, config: Any) -> Engine:
        from vllm import AsyncLLMEngine

        log = self._log = None if self._verbose else engine_process.EngineLog()
        self._earlier = engine_process.engine_processes()
        try:
            with engine_process.settled_forks(log.name if log else ""):
                self._check_cancelled()
                engine = AsyncLLMEngine.from_vllm_config(config, disable_log_stats=True)
        except Exception as exc:
            for process in self._processes():
                engine_process.kill_group(process)
            output = log.read() if log else ""
            if log:
                log.close()
            self._check_cancelled()
            why = cause_of(exc, output)
            hint = _CACHE_HINT if "cache" in why and "VLLM_CPU_KVCACHE_SPACE" in os.environ else ""
            raise BackendError(f"vLLM's engine did not start: {why}{hint}") from exc
        if log:
            log.take_name()
        return Engine(engine, self._processes(), log)


def cause_of(exc: Exception, output: str) -> str:
    """Return the reason why an engine did not start.

    Args:
        exc: vLLM's exception.
        output: the log of the engine's process.
    """
    if killed := _KILLED.search(str(exc)):
        return killed_by(int(killed[1]))
    return error_line(output) or explain(exc)


def killed_by(number: int) -> str:
    """Return the message that a signal killed the engine's process, with its most likely cause."""
    likely = ", most often for lack of memory" if number == signal.SIGKILL else ""
    return f"its process was killed by {signal.Signals(number).name}{likely}"
