"""Compares version numbers (SemVer 2.0.0, semver.org) with the changes: was the right part of the number raised?"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from flowrun.changes.change import IMPACTS, Change, Impact

Core = tuple[int, int, int]

_VERSION: Final = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:-([0-9A-Za-z.-]+))?(?:\+.*)?")


class VersionVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """The result of comparing a version number with the changes.

    ``needed`` is the lowest sufficient version. ``impact`` is the greatest impact of a change, None without changes.
    """

    old: str
    new: str
    impact: Impact | None
    raised_enough: bool
    needed: str

    @property
    def sentence(self) -> str:
        """The verdict as an English sentence."""
        if self.impact is None:
            text = "nothing changed"
            return (
                text if self.raised_enough else f"{text}, but {self.old} -> {self.new} goes back: it needs {self.old}"
            )
        article = {"breaking": "a breaking", "compatible": "a compatible", "internal": "an internal"}[self.impact]
        if self.raised_enough:
            return f"version {self.old} -> {self.new} says enough for {article} change"
        now = f"version is still {self.new}" if self.old == self.new else f"version {self.old} -> {self.new}"
        return f"{now}: {article} change needs {self.needed}"


class _Version(NamedTuple):
    core: Core
    stage: tuple[str, ...]
    """The identifiers of a pre-release, such as ``rc`` and ``1``; empty for a release."""


def compare_version(old: str, new: str, changes: Iterable[Change]) -> VersionVerdict:
    """Return whether ``new`` is high enough after ``old`` for the changes.

    Raises:
        ValueError: a version is not valid in SemVer.
    """
    impacts = {change.impact for change in changes}
    impact = next((impact for impact in IMPACTS if impact in impacts), None)
    before, after = _parse(old), _parse(new)
    minimum = before.core if impact is None else _next_release(before, impact)
    order = _precedence(after) >= _precedence(before) if impact is None else _precedence(after) > _precedence(before)
    return VersionVerdict(
        old=old,
        new=new,
        impact=impact,
        raised_enough=order and after.core >= minimum,
        needed=old if impact is None else ".".join(map(str, minimum)),
    )


def _next_release(version: _Version, impact: Impact) -> Core:
    """Return the lowest version that may follow. A pre-release (``-rc.1``) may change in any way before its release."""
    major, minor, patch = version.core
    if version.stage:
        return version.core
    if impact == "breaking" and major > 0:
        return (major + 1, 0, 0)
    if impact in ("breaking", "compatible"):
        return (major, minor + 1, 0)
    return (major, minor, patch + 1)


def _parse(text: str) -> _Version:
    match = _VERSION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no version as SemVer has it")
    stage = tuple(match[4].split(".")) if match[4] else ()
    return _Version((int(match[1]), int(match[2]), int(match[3])), stage)


def _precedence(version: _Version) -> tuple[Core, bool, tuple[tuple[bool, int, str], ...]]:
    """Return the sort key of a version (SemVer 2.0.0, item 11).

    Numeric identifiers come before alphanumeric ones, fewer identifiers first, the release after its pre-releases.
    """
    parts = tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in version.stage)
    return version.core, not version.stage, parts
