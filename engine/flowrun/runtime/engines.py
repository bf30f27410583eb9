"""The engines of a session: one started backend for all equal models. Only what runs something uses this."""

import asyncio
import gc
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import msgspec

from flowrun.backends.pressure import STALL_SECONDS
from flowrun.core.ports import ModelBackend
from flowrun.errors import BackendError
from flowrun.runtime.project import BoundModel, CompiledFlow
from flowrun.spec import lies_in, mask
from flowrun.spec.model import BACKENDS_GROUP, Model


class BackendSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the caller for backends.

    Attributes:
        verbose: show the log of vLLM.
        stall: the seconds without any success after which a busy server counts as unavailable.
        progress: receives messages for the user, such as the stages of a model's loading.
    """

    verbose: bool = False
    stall: float = STALL_SECONDS
    progress: Callable[[str], None] = lambda message: None


class Engines:
    """The backends of flows: one for all equal models, started at the first need.

    They start one after the other: engines that start together misjudge the free memory.
    """

    def __init__(self, settings: BackendSettings) -> None:
        self._settings = settings
        self._secrets: dict[str, str] = {}
        self._started: list[tuple[BoundModel | ModelBackend, ModelBackend]] = []
        self._lock = asyncio.Lock()

    async def start_for(self, flow: CompiledFlow) -> dict[str, ModelBackend]:
        """Return the backends of a flow by their names, started.

        Raises:
            BackendError: one cannot start.
        """
        self._secrets |= flow.secrets
        async with self._lock:
            return {name: await self._start(flow, flow.backends.get(name, flow.models[name])) for name in flow.models}

    async def stop(self) -> None:
        """Stop all backends."""
        async with self._lock:
            while self._started:
                await self._started.pop()[1].stop()

    async def _start(self, flow: CompiledFlow, wanted: BoundModel | ModelBackend) -> ModelBackend:
        for model, backend in self._started:
            if model is wanted or (isinstance(model, BoundModel) and model == wanted):
                return backend
        backend = self._make(wanted, flow.project) if isinstance(wanted, BoundModel) else wanted
        try:
            await backend.start()
        except BackendError as exc:
            raise self._explained(exc, wanted) from exc
        except BaseException:
            await backend.stop()
            raise
        self._started.append((wanted, backend))
        return backend

    def _make(self, bound: BoundModel, project: Path) -> ModelBackend:
        secrets = self._secrets
        return make_backend(bound.model, bound.folder, project, lambda text: mask(text, secrets), self._settings)

    def _explained(self, error: BackendError, wanted: BoundModel | ModelBackend) -> BackendError:
        """Return the error of an engine that does not start, with the engines that use the memory already."""
        others = [one.model.name for one, _ in self._started if isinstance(one, BoundModel) and _is_in_process(one)]
        if not others or not (isinstance(wanted, BoundModel) and _is_in_process(wanted)):
            return error
        return BackendError(
            f"{error}; the engine of {', '.join(others)} runs in this process already: it may need less memory "
            "(engine: gpu_memory_utilization), or run the flows in sessions one after the other"
        )


def _is_in_process(bound: BoundModel) -> bool:
    return bound.model.capabilities.in_process


def calm_collector() -> None:
    """Make Python's garbage collector run less often, and skip the objects that are loaded now.

    A run creates many small objects that live as long as the run. With the default thresholds, the collector takes a
    quarter of the engine's own time to find that none of them is garbage.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def make_backend(
    model: Model, folder: Path, project: Path, masked: Callable[[str], str], settings: BackendSettings
) -> ModelBackend:
    """Build the backend that a model names, not yet started.

    Args:
        folder: the folder of the spec; relative paths of the model start here.
        project: the folder that scripted replies must lie in.
        masked: replaces the secrets in a text.

    Raises:
        BackendError: the scripted replies cannot be read, are not valid, or lie outside of the project; or the package
            that brings the backend fails.
    """
    match model.backend:
        case "vllm":
            from flowrun.backends.vllm.backend import VllmBackend

            return VllmBackend(model, base_dir=folder, verbose=settings.verbose, progress=settings.progress)
        case "openai":
            from flowrun.backends.openai import OpenAIBackend

            return OpenAIBackend(model, mask=masked, stall=settings.stall)
        case "scripted":
            from flowrun.backends.scripted import ScriptedBackend, load_replies

            if not lies_in(folder / model.name, project):
                raise BackendError(f"the scripted replies {model.name} lie outside of the project {project}")
            return ScriptedBackend(load_replies(folder / model.name))
        case name:
            return _load_backend(name, model, folder)


def _load_backend(name: str, model: Model, folder: Path) -> ModelBackend:
    """Build a backend that an installed package brings, by calling its entry point with the model and its folder.

    Raises:
        BackendError: no package brings it any more, or it cannot be imported or built.
    """
    found = list(entry_points(group=BACKENDS_GROUP, name=name))
    if not found:
        raise BackendError(f"no installed package brings the backend {name!r}")
    try:
        backend: ModelBackend = found[0].load()(model, folder)
    except Exception as exc:
        raise BackendError(f"the backend {name!r}, {found[0].value}, fails: {type(exc).__name__}: {exc}") from exc
    return backend
