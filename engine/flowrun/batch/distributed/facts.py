"""The facts that a scheduler receives, and the decisions that it returns. Data only.

A replica is identified by its number, from 1; a row by its number in the file.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from flowrun.errors import Failure


class _Data(msgspec.Struct, frozen=True, kw_only=True):
    """Base of facts and decisions."""


# --- facts


class RowRead(_Data, frozen=True, kw_only=True):
    """A row was read and must be run."""

    row: int


class RowWithdrawn(_Data, frozen=True, kw_only=True):
    """The result of a row is not needed any more."""

    row: int


class Ready(_Data, frozen=True, kw_only=True):
    """A replica has started a session. Its first report states its capacity."""

    replica: int


class Delivered(_Data, frozen=True, kw_only=True):
    """The rows of the last ``Assign`` have reached the replica; it may get others."""

    replica: int


class Reported(_Data, frozen=True, kw_only=True):
    """A replica reported the results of rows and its capacity; see ``ports.ReplicaReport``."""

    replica: int
    results: Sequence[tuple[int, Mapping[str, Any]]] = ()
    capacity: int
    received: int


class Lost(_Data, frozen=True, kw_only=True):
    """A replica died, during its start or later, and its session has ended."""

    replica: int
    reason: str


class StartFailed(_Data, frozen=True, kw_only=True):
    """A replica cannot start, and another attempt would fail too."""

    replica: int
    reason: str


class Stopped(_Data, frozen=True, kw_only=True):
    """The batch ends: nothing is decided any more."""


ReplicaFact = Ready | Delivered | Reported | Lost | StartFailed
Fact = RowRead | RowWithdrawn | Stopped | ReplicaFact


# --- decisions


class Assign(_Data, frozen=True, kw_only=True):
    """Send rows to a replica, and report ``Delivered`` once they are there."""

    replica: int
    rows: tuple[int, ...]


class EndRow(_Data, frozen=True, kw_only=True):
    """Write the result of a row."""

    row: int
    result: Mapping[str, Any]


class FailRow(_Data, frozen=True, kw_only=True):
    """Write the failure of a row, which is to blame for the loss of its replicas."""

    row: int
    failure: Failure


class RunAgain(_Data, frozen=True, kw_only=True):
    """Report to the user that rows of a lost replica are run again. The scheduler has already queued them first."""

    replica: int
    rows: tuple[int, ...]
    reason: str


class Restart(_Data, frozen=True, kw_only=True):
    """Start a lost replica again after a pause."""

    replica: int
    seconds: float


class Drop(_Data, frozen=True, kw_only=True):
    """Do not start a lost replica again; others are left."""

    replica: int
    reason: str


class EndBatch(_Data, frozen=True, kw_only=True):
    """End the batch with an error: no replica is left."""

    reason: str


class ReadRows(_Data, frozen=True, kw_only=True):
    """Read further rows, while ``Scheduler.wants_rows`` is true."""


Decision = Assign | EndRow | FailRow | RunAgain | Restart | Drop | EndBatch | ReadRows
