"""Builds and starts the backends of a prepared flow. Only commands that run something use this."""

import gc
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from flowrun.core.ports import ModelBackend
from flowrun.errors import BackendError
from flowrun.runtime.project import Flow
from flowrun.spec import lies_in, mask
from flowrun.spec.model import Model


class BackendSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the command line for backends. ``progress`` receives messages for the user."""

    verbose: bool = False
    progress: Callable[[str], None] = lambda message: None


def make_backends(flow: Flow, settings: BackendSettings) -> dict[str, ModelBackend]:
    """Build a backend, not yet started, for each model that a chat state uses."""
    secrets = flow.secrets
    return {
        name: make_backend(bound.model, bound.folder, flow.project, lambda text: mask(text, secrets), settings)
        for name, bound in flow.models.items()
    }


@asynccontextmanager
async def started(backends: Mapping[str, ModelBackend]) -> AsyncIterator[None]:
    """Start backends one after the other, since engines that start together misjudge free memory; stop all at exit."""
    calm_collector()
    try:
        for backend in backends.values():
            await backend.start()
        yield
    finally:
        for backend in backends.values():
            await backend.stop()


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
        BackendError: the scripted replies cannot be read, are not valid, or lie outside of the project.
    """
    match model.backend:
        case "vllm":
            from flowrun.backends.vllm.backend import VllmBackend

            return VllmBackend(model, base_dir=folder, verbose=settings.verbose, progress=settings.progress)
        case "openai":
            from flowrun.backends.openai import OpenAIBackend

            return OpenAIBackend(model, mask=masked)
        case "scripted":
            from flowrun.backends.scripted import ScriptedBackend, load_replies

            if not lies_in(folder / model.name, project):
                raise BackendError(f"the scripted replies {model.name} lie outside of the project {project}")
            return ScriptedBackend(load_replies(folder / model.name))
