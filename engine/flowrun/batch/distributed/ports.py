"""The port of a pool to its replicas: the protocol, the reports, and the error for a lost replica. Without Ray."""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from flowrun.batch.rows import Row
from flowrun.core.messages import Usage


class ReplicaReport(msgspec.Struct, frozen=True, kw_only=True):
    """A report of a replica on its session.

    Attributes:
        results: (row number, result) of the rows that ended since the previous report.
        capacity: the number of further rows that the replica can start.
        received: the number of rows that the session had received when ``capacity`` was computed.
        rounds: the number of rounds since the previous report.
        usage: the tokens used since the previous report.
        lost: why the rows of the session must be run again.
        error: why the batch cannot continue.
    """

    results: Sequence[tuple[int, dict[str, Any]]] = ()
    capacity: int = 0
    received: int = 0
    rounds: int = 0
    usage: Usage = Usage()
    lost: str | None = None
    error: str | None = None


class ReplicaLost(Exception):
    """A replica died or cannot be reached. Its rows must be run again."""


class Replica(Protocol):
    """A process that runs rows. Each start begins a new session and cancels the rows of the session before."""

    async def start(self) -> str:
        """Start the backends, and return the process and host as text.

        Raises:
            BackendError: it cannot start, and another attempt would fail too.
            ReplicaLost: it died during the start.
        """

    async def feed(self, rows: Sequence[Row]) -> None:
        """Start rows.

        Raises:
            ReplicaLost: it died or cannot be reached.
        """

    async def collect(self) -> ReplicaReport:
        """Wait for the next report.

        Raises:
            ReplicaLost: it died or cannot be reached.
        """

    async def stop(self) -> None:
        """Stop the replica and cancel its rows."""
