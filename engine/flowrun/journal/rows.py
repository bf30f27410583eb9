"""The data that a journal holds besides events: runs, and the processes that drive them."""

from typing import Final

import msgspec

from flowrun.errors import StoreError

ENDED: Final = ("succeeded", "failed", "cancelled")
"""Final statuses: no event changes them."""

STATUSES: Final = ("running", "waiting", "sleeping", "needs_attention", *ENDED)
"""The statuses that are stored."""

FIRST: Final = 0
"""The ``seq`` of a run's first event, ``Started``; the following have no gaps."""


class NewRun(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is about to start. ``spec`` is the digest of its flow's canonical form, ``parent`` a run's id."""

    id: str
    flow: str
    spec: str
    parent: str | None = None
    batch: str | None = None


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A process that drives runs.

    ``started`` is its start in clock ticks since boot, so that a later process with the same ``pid`` is not mistaken
    for it. Only processes of one ``pid_space`` (a boot and a pid namespace) can look each other up; others rely on
    ``heartbeat`` (seconds since the epoch).
    """

    id: str
    host: str
    pid: int
    pid_space: str
    started: int
    heartbeat: float = msgspec.field(name="beat")  # its name in the JSON of `flowrun runs`


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """A run as lists show it. ``updated`` and ``state`` are of its last event, ``holder`` is a living process.

    A ``damaged`` run has no last event that belongs to it, or a status that there is not; ``History.damages`` finds
    what else may be damaged.
    """

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
    damaged: bool = False
    holder: Holder | None = None

    @property
    def interrupted(self) -> bool:
        """Return whether the run is unfinished and the process that drove it is gone."""
        return self.status == "running" and self.holder is None


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A run that could not be acquired, because ``holder`` drives it."""

    run: str
    holder: Holder


class RunDamaged(StoreError):
    """The events of one run are not complete; other runs of the journal are not concerned."""


class LeaseLost(StoreError):
    """Another process drives the run now. The events that this process has written before are kept."""


class Fenced(LeaseLost):
    """Another process took this one for dead, and may drive all its runs now. Nothing more is written."""
