"""Finds the changes between two versions of a spec, and their impact on the callers of the flow. Pure.

The contract of a flow consists of its inputs, the answers to its wait states, its end states and their outputs;
everything else is internal.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from flowrun.changes.change import IMPACTS, Change, Impact
from flowrun.changes.flow import compare_flows
from flowrun.changes.locked_models import compare_locks
from flowrun.changes.versions import VersionVerdict, compare_version
from flowrun.errors import Path
from flowrun.spec.model import Spec
from flowrun.spec.model_lock import LockedModel


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a spec; ``profiles`` holds the same version with each of its profiles merged in.

    ``lock`` holds the locked models, those of the profiles too. ``written`` holds the text in the file, such as
    ``${MODEL}``, at each path where an environment variable was substituted.
    """

    spec: Spec
    written: Mapping[Path, str] = {}
    lock: Mapping[str, LockedModel] = {}
    profiles: Mapping[str, "Side"] = {}


def classify(old: Spec, new: Spec) -> list[Change]:
    """Return all changes of a spec: breaking ones first, those of one impact in the order of the spec."""
    return _sorted(compare_flows(old, new))


def classify_sides(old: Side, new: Side) -> list[Change]:
    """Return all changes of a spec, of its profiles and of its references to environment variables."""
    changes = list(_compare_sides(old, new))
    reported = {(change.path, change.impact) for change in changes}
    for name in {**old.profiles, **new.profiles}:
        path = ("profiles", name)
        if name not in new.profiles:
            changes.append(Change(impact="breaking", path=path, what="profile removed"))
        elif name not in old.profiles:
            changes.append(Change(impact="compatible", path=path, what="profile added"))
        else:
            found = _compare_sides(old.profiles[name], new.profiles[name])
            changes += [change.with_prefix(path) for change in found if (change.path, change.impact) not in reported]
    changes += compare_locks(old.lock, new.lock)
    return _sorted(changes)


def _compare_sides(old: Side, new: Side) -> Iterator[Change]:
    changes = list(compare_flows(old.spec, new.spec))
    yield from changes
    reported = {change.path for change in changes}
    for path in {**old.written, **new.written}:
        before, after = (side.written.get(path, msgspec.UNSET) for side in (old, new))
        if before != after and path not in reported:
            yield Change(impact="internal", path=path, what="environment variable changed", old=before, new=after)


def _sorted(changes: Iterable[Change]) -> list[Change]:
    return sorted(changes, key=lambda change: IMPACTS.index(change.impact))


__all__ = ["Change", "Impact", "Side", "VersionVerdict", "classify", "classify_sides", "compare_version"]
