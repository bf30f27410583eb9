"""Compares the models of a flow with its locks, before their engines start: by the files that are here."""

import asyncio
from collections.abc import Callable

from flowrun.errors import BackendError
from flowrun.runtime.project import BoundModel, CompiledFlow
from flowrun.spec.lock_file import lock_path
from flowrun.spec.model import Model
from flowrun.spec.model_lock import LockedModel, compare_models, departures


class ModelCheck:
    """What was found of the models of a session's flows. Each is looked at once, and its differences are said once.

    Args:
        locked: refuse a flow whose models are not those of its lock, or are in none.
        note: receives each difference, if ``locked`` is False.
    """

    def __init__(self, *, locked: bool, note: Callable[[str], None]) -> None:
        self._locked = locked
        self._note = note
        self._found: list[tuple[BoundModel, LockedModel, list[str]]] = []
        self._said: set[str] = set()

    async def check(self, flow: CompiledFlow) -> None:
        """Compare the models of a flow that run in this process.

        Raises:
            BackendError: a model differs, or is not locked, and must be; it names all differences.
        """
        used = [bound for name, bound in flow.models.items() if name not in flow.backends]
        faults = [fault for bound in used for fault in await self._faults(flow, bound)]
        if faults and self._locked:
            lines = "\n".join(f"- {fault}" for fault in faults)
            raise BackendError(
                f"--locked: the models of {flow.path} are not those of its lock:\n{lines}\n{_remedy(flow)}"
            )
        for fault in faults:
            self._say(f"not as locked: {fault}")

    def _say(self, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            self._note(what)

    async def _faults(self, flow: CompiledFlow, bound: BoundModel) -> list[str]:
        if not bound.model.capabilities.in_process:
            if self._locked:
                self._say(
                    f"{bound.model.name} runs elsewhere (backend: {bound.model.backend}), where nothing is locked"
                )
            return []
        faults = []
        for one in flow.locks:
            if one.bound != bound:
                continue
            locked = None if one.lock is None else one.lock.find(one.key, bound.model)
            if locked is not None:
                faults += [f"{one.key}: {line}" for line in await self._compare(bound, locked)]
            elif self._locked or (one.lock is not None and one.lock.has_profile):
                faults.append(f"{one.key} is not in {lock_path(one.file).name}")
        return faults

    async def _compare(self, bound: BoundModel, locked: LockedModel) -> list[str]:
        for known, before, differences in self._found:
            if (known, before) == (bound, locked):
                return differences
        differences = await asyncio.to_thread(_compare, bound, locked, reads=self._locked)
        self._found.append((bound, locked, differences))
        return differences


def _remedy(flow: CompiledFlow) -> str:
    profile = f" --profile {flow.profile}" if flow.profile else ""
    return f"if that is meant, write it down: flowrun lock {flow.path}{profile}"


def _compare(bound: BoundModel, locked: LockedModel, *, reads: bool) -> list[str]:
    """Return the differences between a model and its lock; none if it is not here, which its engine will say."""
    from flowrun.backends.vllm.described import describe_model

    model: Model = bound.model
    if departed := list(departures(model, locked)):
        return departed
    try:
        found = describe_model(model, base_dir=bound.folder, reads=reads, asks_hub=True)
    except BackendError:
        if reads:
            raise
        return []
    return [str(one) for one in compare_models(locked, found.model, unknown=found.unknown)]
