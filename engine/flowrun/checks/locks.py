"""FR719: the lock of the models, if there is one, is that of the models which the spec names."""

from collections.abc import Iterator

from flowrun.checks.subject import Subject
from flowrun.errors import Issue
from flowrun.spec.model_lock import departures, key_of


def check_locks(subject: Subject) -> Iterator[Issue]:
    """Find models that the lock does not have, or has otherwise, and what it has of no model."""
    lock = subject.loaded.document.lock
    if lock is None:
        return
    profile = f" --profile {lock.profile}" if lock.profile else ""
    remedy = f"lock them anew: flowrun lock {subject.loaded.document.file}{profile}"
    for name, model in subject.spec.models.items():
        path = ("models", name)
        if not model.capabilities.in_process or not subject.has(path):
            continue
        locked = lock.find(key_of(subject.base, name), model)
        if locked is None:
            if not lock.has_profile:
                continue
            message = f"the lock does not have the model {name!r}"
            yield subject.issue("FR719", path, message, remedy, key=True, severity="warning")
            continue
        for departure in departures(model, locked):
            message = f"the lock is of another model than {name!r}: {departure}"
            yield subject.issue("FR719", path, message, remedy, key=True, severity="warning")
    known = {key_of(subject.base, name) for name, model in subject.spec.models.items() if model.capabilities.in_process}
    if lock.profile is None and not subject.base:
        for key in lock.models:
            if "/" not in key and "@" not in key and key not in known:
                message = f"the lock has a model {key!r}, and the spec has none that runs in this process"
                yield subject.issue("FR719", ("models",), message, remedy, key=True, severity="warning")
