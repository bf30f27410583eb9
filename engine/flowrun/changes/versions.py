"""Version numbers (SemVer 2.0.0) against what changed: was the right part of the number raised?"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from flowrun.changes.change import IMPACTS, Change, Impact

Core = tuple[int, int, int]

_VERSION: Final = re.compile(r"(\d+)\.(\d+)\.(\d+)(?:-([0-9A-Za-z.-]+))?(?:\+.*)?")


class VersionVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a version number says what changed. ``needed`` is the lowest one that would, if this one does not."""

    old: str
    new: str
    impact: Impact | None
    raised_enough: bool
    needed: str

    @property
    def sentence(self) -> str:
        """Say it to people."""
        if self.impact is None:
            told = "nothing changed"
            return (
                told if self.raised_enough else f"{told}, but {self.old} -> {self.new} goes back: it needs {self.old}"
            )
        article = {"breaking": "a breaking", "compatible": "a compatible", "internal": "an internal"}[self.impact]
        if self.raised_enough:
            return f"version {self.old} -> {self.new} says enough for {article} change"
        now = f"version is still {self.new}" if self.old == self.new else f"version {self.old} -> {self.new}"
        return f"{now}: {article} change needs {self.needed}"


class _Version(NamedTuple):
    core: Core
    stage: tuple[str, ...]
    """The parts of a pre-release; a version without any is the release itself."""


def judge_version(old: str, new: str, changes: Iterable[Change]) -> VersionVerdict:
    """Tell whether ``new`` is high enough after ``old`` for the changes."""
    impacts = {change.impact for change in changes}
    impact = next((impact for impact in IMPACTS if impact in impacts), None)
    before, after = _read(old), _read(new)
    least = before.core if impact is None else _next(before, impact)
    order = _precedence(after) >= _precedence(before) if impact is None else _precedence(after) > _precedence(before)
    return VersionVerdict(
        old=old,
        new=new,
        impact=impact,
        raised_enough=order and after.core >= least,
        needed=old if impact is None else ".".join(map(str, least)),
    )


def _next(version: _Version, impact: Impact) -> Core:
    """Give the lowest release that may follow. What is not released yet (``-rc.1``) may change in any way."""
    major, minor, patch = version.core
    if version.stage:
        return version.core
    if impact == "breaking" and major > 0:
        return (major + 1, 0, 0)
    if impact in ("breaking", "compatible"):
        return (major, minor + 1, 0)
    return (major, minor, patch + 1)


def _read(text: str) -> _Version:
    match = _VERSION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no version as SemVer has it")
    stage = tuple(match[4].split(".")) if match[4] else ()
    return _Version((int(match[1]), int(match[2]), int(match[3])), stage)


def _precedence(version: _Version) -> tuple[Core, bool, tuple[tuple[bool, int, str], ...]]:
    """Give what versions are ordered by (SemVer, 11): numbers before words, fewer parts first, releases last."""
    parts = tuple((not part.isdigit(), int(part) if part.isdigit() else 0, part) for part in version.stage)
    return version.core, not version.stage, parts
