"""The engines of a session: one started backend for all equal models. Only what runs something uses this."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path
from weakref import WeakSet

import msgspec

from flowrun.backends.kept_tokens import KeptTokensBackend
from flowrun.backends.pressure import STALL_SECONDS
from flowrun.backends.warm.records import HeldModel, held_model
from flowrun.backends.wrapper import (
    Decides,
    KeepsTokens,
    MeasuresPrompts,
    TakesAdapters,
    TimedBackend,
    failure_of,
    watchable,
)
from flowrun.collector import skip_loaded
from flowrun.core.fixed_prompts import REMEDY, MeasuredPrompt, fixed_prompts
from flowrun.core.ports import ModelBackend
from flowrun.errors import BackendError, ModelError
from flowrun.runtime.model_check import ModelCheck
from flowrun.runtime.project import BoundModel, CompiledFlow
from flowrun.spec import lies_in, mask
from flowrun.spec.model import BACKENDS_GROUP, Model


class BackendSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the caller for backends.

    Attributes:
        verbose: show the log of vLLM.
        stall: the seconds without any success after which a busy server counts as unavailable.
        locked: refuse models that are not those of the lock of their spec, or are in none; else differences are noted.
        keeps_tokens: keep the tokens of all replies, with log-probabilities, for the records of the runs. A run that
            began so keeps them wherever it is resumed.
        progress: receives each stage of a model's start, when it begins.
        note: receives other messages for the user about a start.
        warm: use an engine that `flowrun engine up` keeps warm, if there is one of the same model.
    """

    verbose: bool = False
    stall: float = STALL_SECONDS
    locked: bool = False
    keeps_tokens: bool = False
    progress: Callable[[str], None] = lambda message: None
    note: Callable[[str], None] = lambda message: None
    warm: bool = True


class EngineModel(msgspec.Struct, frozen=True):
    """What an engine runs: a model without an adapter, and the adapters that its requests may use."""

    bound: BoundModel
    adapters: frozenset[str] = frozenset()

    def serves(self, other: "EngineModel") -> bool:
        """Return whether the engine can run what another one is wanted for."""
        return self.bound == other.bound and self.adapters >= other.adapters


Wanted = EngineModel | ModelBackend


class _Engine:
    """A backend that was started, or is being started for ``waiters`` runs."""

    def __init__(self, wanted: Wanted, start: "asyncio.Task[ModelBackend]") -> None:
        self.wanted = wanted
        self.start = start
        self.waiters = 0


class Engines:
    """The backends of flows: one for all models that are equal or differ in their adapter, started at the first need.

    Those in this process start one after the other: engines that start together misjudge the free memory. A start
    belongs to all runs that wait for it: it is given up when the last of them is cancelled. One whose engine has ended
    is for no further run: the next one that needs it starts another.
    """

    def __init__(self, settings: BackendSettings) -> None:
        self._settings = settings
        self._secrets: dict[str, str] = {}
        self._engines: list[_Engine] = []
        self._ended: list[ModelBackend] = []
        self._check = ModelCheck(locked=settings.locked, note=settings.note)
        self._lock = asyncio.Lock()
        self._measured: WeakSet[CompiledFlow] = WeakSet()

    async def start_for(self, flow: CompiledFlow, *, keeps_tokens: bool = False) -> dict[str, ModelBackend]:
        """Return the backends of a flow by their names, started.

        Args:
            keeps_tokens: keep the tokens of their replies.

        Raises:
            BackendError: one cannot start, is not as it is locked and must be, a decide state asks one whose model
                cannot decide, what is the same in each prompt of a state does not fit into a context window, or tokens
                are to be kept and one does not give them.
        """
        self._secrets |= flow.secrets
        await self._check.check(flow)
        backends = {name: await self._backend(flow, name) for name in flow.models}
        for name in sorted(flow.deciding_models):
            if isinstance(backend := backends[name], Decides):
                backend.check_decisions()
        if flow not in self._measured:
            await _check_windows(flow, backends)
            self._measured.add(flow)
        return _keeping_tokens(flow, backends) if keeps_tokens else backends

    async def stop(self) -> None:
        """Stop all backends. One that fails to stop keeps no other from stopping."""
        starts = [engine.start for engine in self._engines]
        self._engines.clear()
        for start in starts:
            start.cancel()  # does nothing to one that has ended
        backends = await asyncio.gather(*starts, return_exceptions=True)
        await self._stop_ended()
        stops = (backend.stop() for backend in backends if not isinstance(backend, BaseException))
        for error in await asyncio.gather(*stops, return_exceptions=True):
            if error is not None:
                raise error

    async def _backend(self, flow: CompiledFlow, name: str) -> ModelBackend:
        if name in flow.backends:
            return await self._get(flow, flow.backends[name])
        adapter = flow.models[name].model.adapter
        backend = await self._get(flow, engine_model(flow, name))
        return backend.with_adapter(adapter) if adapter and isinstance(backend, TakesAdapters) else backend

    def _drop_ended(self) -> None:
        """Forget the engines that have ended; the next start stops their backends, which frees what they hold."""
        for engine in tuple(self._engines):
            if engine.start.done() and not _has_failed(engine.start):
                backend = engine.start.result()
                if isinstance(engine.wanted, EngineModel) and (why := failure_of(backend)) is not None:
                    self._engines.remove(engine)
                    self._ended.append(backend)
                    self._settings.note(f"{engine.wanted.bound.model.name} starts anew: {why}")

    async def _stop_ended(self) -> None:
        """Stop the backends whose engines have ended; what goes wrong with one that is dead harms nobody."""
        ended, self._ended = self._ended, []
        await asyncio.gather(*(backend.stop() for backend in ended), return_exceptions=True)

    async def _get(self, flow: CompiledFlow, wanted: Wanted) -> ModelBackend:
        self._drop_ended()
        for engine in self._engines:
            known = engine.wanted
            if known is wanted or (
                isinstance(wanted, EngineModel) and isinstance(known, EngineModel) and known.serves(wanted)
            ):
                break
        else:
            engine = _Engine(wanted, asyncio.create_task(self._start(flow, wanted)))
            self._engines.append(engine)
        engine.waiters += 1
        try:
            await asyncio.wait((engine.start,))
        finally:
            engine.waiters -= 1
            if not engine.waiters and not engine.start.done():
                engine.start.cancel()
                await asyncio.wait((engine.start,))
            if engine in self._engines and _has_failed(engine.start):
                self._engines.remove(engine)
        return engine.start.result()

    async def _start(self, flow: CompiledFlow, wanted: Wanted) -> ModelBackend:
        if _is_in_process(wanted):
            async with self._lock:
                return await self._start_now(flow, wanted)
        return await self._start_now(flow, wanted)

    async def _start_now(self, flow: CompiledFlow, wanted: Wanted) -> ModelBackend:
        await self._stop_ended()
        if isinstance(wanted, EngineModel) and (warm := await self._find_warm(wanted)) is not None:
            return warm
        backend = self._make(wanted, flow.project) if isinstance(wanted, EngineModel) else watchable(wanted)
        try:
            await backend.start()
        except BackendError as exc:
            raise self._explained(exc, wanted) from exc
        except BaseException:
            await backend.stop()
            raise
        if _is_in_process(wanted):  # no other loads so much
            skip_loaded()
        return watchable(backend)

    async def _find_warm(self, wanted: EngineModel) -> ModelBackend | None:
        """Return a backend over a warm engine, connected; None if there is none for this model."""
        bound = wanted.bound
        if not self._settings.warm or bound.model.backend != "vllm":
            return None
        from flowrun.backends.warm.find import connect_to_warm

        held = held_model_of(wanted)
        return await connect_to_warm(held, timeout=bound.model.timeout, note=self._settings.note)

    def _make(self, wanted: EngineModel, project: Path) -> ModelBackend:
        secrets, bound, adapters = self._secrets, wanted.bound, sorted(wanted.adapters)
        return make_backend(
            bound.model, bound.folder, project, lambda text: mask(text, secrets), self._settings, adapters
        )

    def _explained(self, error: BackendError, wanted: Wanted) -> BackendError:
        """Return the error of an engine that does not start, with the engines that use the memory already."""
        others = [
            engine.wanted.bound.model.name
            for engine in self._engines
            if engine.start.done() and isinstance(engine.wanted, EngineModel) and _is_in_process(engine.wanted)
        ]
        if not others or not _is_in_process(wanted):
            return error
        return BackendError(
            f"{error}; the engine of {', '.join(others)} runs in this process already: it may need less memory "
            "(engine: gpu_memory_utilization), or run the flows in sessions one after the other"
        )


def engine_model(flow: CompiledFlow, name: str) -> EngineModel:
    """Return what the engine of a flow's model runs, with the adapters of all models that share it."""
    bound = _without_adapter(flow.models[name])
    adapters = (other.model.adapter for other in flow.models.values() if _without_adapter(other) == bound)
    return EngineModel(bound, frozenset(filter(None, adapters)))


def held_model_of(wanted: EngineModel) -> HeldModel:
    """Return what the engine of a model is made of."""
    from flowrun.backends.vllm.templates import load_template

    model, folder = wanted.bound.model, wanted.bound.folder
    template = load_template(model.chat_template, folder)
    return held_model(model, folder=folder, template=template, adapters=wanted.adapters)


async def _check_windows(flow: CompiledFlow, backends: Mapping[str, ModelBackend]) -> None:
    """Check that the models can read what is the same in each prompt of a state, so that no run begins in vain.

    Raises:
        BackendError: one cannot.
    """
    too_long: list[str] = []
    for request in (request for graph in flow.graphs() for request in fixed_prompts(graph)):
        if request.model in backends and isinstance(backend := backends[request.model], MeasuresPrompts):
            with suppress(ModelError):  # what cannot be rendered fails by name in the run that asks it
                size = await backend.measure_prompt(request)
                prompt = MeasuredPrompt(request.state, flow.models[request.model].model.name, *size)
                if prompt.room < 1:
                    too_long.append(f"flow {request.flow}: {prompt}")
    if too_long:
        raise BackendError("\n".join(f"{one}: {REMEDY}" for one in too_long))


def _keeping_tokens(flow: CompiledFlow, backends: Mapping[str, ModelBackend]) -> dict[str, ModelBackend]:
    """Return the backends of a flow with the gate of kept tokens.

    Raises:
        BackendError: one gives no tokens.
    """
    keeping: dict[str, ModelBackend] = {}
    for name, backend in backends.items():
        if not isinstance(backend, KeepsTokens):
            kind = type(backend).__name__ if name in flow.backends else flow.models[name].model.backend
            why = "--tokens needs vLLM in this process, or a server of vLLM"
            raise BackendError(f"the model {name!r} ({kind}) gives no tokens: {why}")
        backend.check_tokens()
        keeping[name] = KeptTokensBackend(backend, flow.secrets)
    return keeping


def _has_failed(start: "asyncio.Task[ModelBackend]") -> bool:
    return start.done() and (start.cancelled() or start.exception() is not None)


def _is_in_process(wanted: Wanted) -> bool:
    return isinstance(wanted, EngineModel) and wanted.bound.model.capabilities.in_process


def _without_adapter(bound: BoundModel) -> BoundModel:
    replace = msgspec.structs.replace
    return bound if bound.model.adapter is None else replace(bound, model=replace(bound.model, adapter=None))


def make_backend(
    model: Model,
    folder: Path,
    project: Path,
    masked: Callable[[str], str],
    settings: BackendSettings,
    adapters: Sequence[str] = (),
) -> ModelBackend:
    """Build the backend that a model names, not yet started.

    Args:
        folder: the folder of the spec; relative paths of the model start here.
        project: the folder that scripted replies must lie in.
        masked: replaces the secrets in a text.
        adapters: the LoRA adapters that requests may use.

    Raises:
        BackendError: the scripted replies cannot be read, are not valid, or lie outside of the project; or the package
            that brings the backend fails.
    """
    backend = _make_plain(model, folder, project, masked, settings, adapters)
    bounds_itself = model.backend in ("vllm", "openai")
    return backend if model.timeout is None or bounds_itself else TimedBackend(backend, model.timeout)


def _make_plain(
    model: Model,
    folder: Path,
    project: Path,
    masked: Callable[[str], str],
    settings: BackendSettings,
    adapters: Sequence[str],
) -> ModelBackend:
    match model.backend:
        case "vllm":
            from flowrun.backends.vllm.backend import VllmBackend

            return VllmBackend(
                model,
                base_dir=folder,
                verbose=settings.verbose,
                progress=settings.progress,
                note=settings.note,
                adapters=adapters,
            )
        case "openai":
            from flowrun.backends.openai import OpenAIBackend

            return OpenAIBackend(model, mask=masked, stall=settings.stall)
        case "scripted":
            from flowrun.backends.scripted import ScriptedBackend, load_replies

            if not lies_in(folder / model.name, project):
                raise BackendError(f"the scripted replies {model.name} lie outside of the project {project}")
            return ScriptedBackend(load_replies(folder / model.name), record=False)
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
