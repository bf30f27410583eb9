"""What the journal keeps beside events, as data: runs, and which process drives them."""

from typing import Final

import msgspec

from flowrun.errors import StoreError

ENDED: Final = ("succeeded", "failed", "cancelled")
"""Statuses that nothing leads out of."""

STATUSES: Final = ("running", "waiting", "needs_attention", *ENDED)
"""What the journal keeps of a run; ``interrupted`` is told from ``running`` by the process that is gone."""

FIRST: Final = 0
"""The place of a run's first event, ``Started``; the next have no gaps."""


class NewRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is about to start. ``spec`` is the digest of its flow's canonical form, ``parent`` a run's id."""

    id: str
    flow: str
    spec: str
    parent: str | None = None
    batch: str | None = None


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A process that drives runs.

    ``started`` is its start in the kernel's ticks, so that another with its ``pid`` is no mistake for it. Only
    processes of one ``pid_space`` (a boot and a pid namespace) can look each other up; others trust ``beat``.
    """

    id: str
    host: str
    pid: int
    pid_space: str
    started: int
    beat: float


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """A run as lists show it. ``updated`` and ``state`` are its last event's, ``holder`` is a process that lives."""

    id: str
    flow: str
    spec: str
    status: str
    state: str
    events: int
    created: float
    updated: float
    ended: float | None = None
    parent: str | None = None
    batch: str | None = None
    holder: Holder | None = None

    @property
    def interrupted(self) -> bool:
        """Tell whether the run should go on, and the process that drove it is gone."""
        return self.status == "running" and self.holder is None


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A run that could not be taken, because ``holder`` drives it."""

    run: str
    holder: Holder


class LeaseLost(StoreError):
    """Another process drives the run now; this one must let go of it. What it had written before is kept."""
