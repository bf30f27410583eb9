"""What changed between two versions of a spec, and what that means for whoever runs it. Pure.

A flow's contract is what it takes (inputs, answers to wait states) and what it gives (its ends and their outputs);
everything else is how it works inside.
"""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from flowrun.changes.change import IMPACTS, Change, Impact
from flowrun.changes.flow import compare_flows
from flowrun.changes.versions import VersionVerdict, judge_version
from flowrun.errors import Path
from flowrun.spec.model import Spec


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a spec, with each of its profiles merged over it.

    ``written`` holds what stands in the file at each place where the environment's value was put in.
    """

    spec: Spec
    written: Mapping[Path, str] = {}
    profiles: Mapping[str, "Side"] = {}


def classify(old: Spec, new: Spec) -> list[Change]:
    """Give every change of a spec, the gravest first, else in the order of the spec."""
    return _ordered(compare_flows(old, new))


def classify_sides(old: Side, new: Side) -> list[Change]:
    """Give every change of a spec, of its profiles and of its references to the environment."""
    changes = list(_side(old, new))
    known = {(change.path, change.impact) for change in changes}
    for name in {**old.profiles, **new.profiles}:
        path = ("profiles", name)
        if name not in new.profiles:
            changes.append(Change(impact="breaking", path=path, what="profile removed"))
        elif name not in old.profiles:
            changes.append(Change(impact="compatible", path=path, what="profile added"))
        else:
            found = _side(old.profiles[name], new.profiles[name])
            changes += [change.below(path) for change in found if (change.path, change.impact) not in known]
    return _ordered(changes)


def _side(old: Side, new: Side) -> Iterator[Change]:
    changes = list(compare_flows(old.spec, new.spec))
    yield from changes
    known = {change.path for change in changes}
    for path in {**old.written, **new.written}:
        before, after = (side.written.get(path, msgspec.UNSET) for side in (old, new))
        if before != after and path not in known:
            yield Change(impact="internal", path=path, what="environment variable changed", old=before, new=after)


def _ordered(changes: Iterable[Change]) -> list[Change]:
    return sorted(changes, key=lambda change: IMPACTS.index(change.impact))


__all__ = ["IMPACTS", "Change", "Impact", "Side", "VersionVerdict", "classify", "classify_sides", "judge_version"]
