"""Finds the warm engine that a model can use, or says why one that is near cannot be used."""

from collections.abc import Callable

from flowrun.backends.warm.client import WarmBackend
from flowrun.backends.warm.records import FORMAT, HeldModel, engine_records
from flowrun.errors import BackendError


async def connect_to_warm(
    wanted: HeldModel, *, timeout: float | None, note: Callable[[str], None]
) -> WarmBackend | None:
    """Return a backend over the warm engine of a model, connected; None if there is none that can be used.

    Args:
        timeout: ``model.timeout``.
        note: receives which engine is used, or why one of the same model is not.
    """
    try:
        records = [record for record in engine_records() if record.model.name == wanted.name]
    except BackendError as exc:
        note(f"no warm engine is used: {exc}")
        return None
    for record in records:
        if not record.is_of_this_version:
            what = f"runs flowrun {record.flowrun} and vLLM {record.vllm}"
            if record.format != FORMAT:
                what = "is of another version of flowrun"
            note(f"the warm engine of {wanted.name} is not used: it {what}; end it by flowrun engine down")
        elif others := differences(wanted, record.model):
            note(f"the warm engine of {wanted.name} is not used: it has another {', '.join(others)}")
        else:
            backend = WarmBackend(record, timeout=timeout)
            try:
                await backend.start()
            except BackendError as exc:
                note(f"the warm engine of {wanted.name} is not used: {exc}")
                continue
            note(f"the warm engine of {wanted.name} is used (process {record.pid})")
            return backend
    return None


def differences(wanted: HeldModel, held: HeldModel) -> list[str]:
    """Return the settings that keep an engine from serving a model."""
    found = [name for name in wanted.differences(held) if name != "adapters"]
    return found if set(wanted.adapters) <= set(held.adapters) else [*found, "adapters"]
