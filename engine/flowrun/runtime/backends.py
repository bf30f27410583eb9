"""Puts the adapters in: from a flow that can run to its backends. Only verbs that run something come here."""

import gc
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from flowrun.core.ports import ModelBackend
from flowrun.errors import BackendError
from flowrun.runtime.prepare import Flow
from flowrun.spec import lies_in, mask
from flowrun.spec.model import Model


class BackendSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says of how to run, beside the spec."""

    verbose: bool = False
    progress: Callable[[str], None] = lambda message: None


def make_backends(flow: Flow, settings: BackendSettings) -> dict[str, ModelBackend]:
    """Make a backend, not yet started, for each model that some chat state asks."""
    secrets = flow.secrets
    return {
        name: make_backend(bound.model, bound.folder, flow.project, lambda text: mask(text, secrets), settings)
        for name, bound in flow.models.items()
    }


@asynccontextmanager
async def started(backends: Mapping[str, ModelBackend]) -> AsyncIterator[None]:
    """Start backends, in turn, since engines that start at once misjudge the free memory; end them all."""
    calm_collector()
    try:
        for backend in backends.values():
            await backend.start()
        yield
    finally:
        for backend in backends.values():
            await backend.stop()


def calm_collector() -> None:
    """Let Python's garbage collector look less often, and not at what is loaded by now and stays.

    A run makes many small objects that live as long as the run; with the default thresholds the collector takes a
    quarter of the engine's own time to find that none of them is garbage.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def make_backend(
    model: Model, folder: Path, project: Path, masked: Callable[[str], str], settings: BackendSettings
) -> ModelBackend:
    """Make the backend that a model asks for; ``folder`` is the spec's, and lies in the ``project``.

    Raises:
        BackendError: scripted replies are not to be read, or wrong.
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
