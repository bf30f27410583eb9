"""Finds the warm engine that a model can use, or says why one that is near cannot be used."""

from collections.abc import Callable
from typing import Final

from flowrun.backends.warm.client import WarmBackend
from flowrun.backends.warm.records import FORMAT, EngineRecord, HeldModel, engine_records
from flowrun.errors import BackendError

_SHOWN: Final = 3
"""The names of files in a note."""


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
        if (why := outdated(wanted, record)) is not None:
            note(f"the warm engine of {wanted.name} is not used: {why}; end it by flowrun engine down")
        elif others := wanted.differences(record.model):
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


def outdated(wanted: HeldModel, record: EngineRecord) -> str | None:
    """Return why no command will use an engine any more; None if one may."""
    if record.format != FORMAT:
        return "it is of another version of flowrun"
    if not record.is_of_this_version:
        return f"it runs flowrun {record.flowrun} and vLLM {record.vllm}"
    if wanted.digest == record.digest and (changed := wanted.changed_files(record.model)):
        shown = ", ".join(changed[:_SHOWN]) + (f" and {len(changed) - _SHOWN} more" if len(changed) > _SHOWN else "")
        return f"the files of the model have changed since it was loaded ({shown})"
    return None
