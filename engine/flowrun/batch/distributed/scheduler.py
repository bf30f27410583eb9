"""Every decision of a distributed batch is made here. No asyncio, no I/O, no clock, no Ray.

Facts come in: a row was read, a replica has capacity, a replica was lost. Decisions come out: send these rows to that
replica, start it again, fail that row. The same facts always lead to the same decisions; ``pool`` performs them.

A replica gets rows while it has capacity. A row is blamed for the loss of a replica only if it ran there alone. Rows
that ran on several lost replicas are run in smaller and smaller groups, so that a row that kills its replica fails no
other row.
"""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal, assert_never

import msgspec

from flowrun.batch.distributed.facts import (
    Assign,
    Decision,
    Delivered,
    Drop,
    EndBatch,
    EndRow,
    Fact,
    FailRow,
    Lost,
    ReadRows,
    Ready,
    ReplicaFact,
    Reported,
    Restart,
    RowRead,
    RowWithdrawn,
    RunAgain,
    StartFailed,
    Stopped,
)
from flowrun.errors import Failure

LOSSES_OF_A_ROW: Final = 3
"""The number of lost replicas after which a row fails, if it ran alone on the last of them."""

LOSSES_BEFORE_SMALLER_GROUPS: Final = 2
"""The number of lost replicas after which a row runs in a smaller group: a quarter of the rows of the last of them."""

LOSSES_OF_A_REPLICA: Final = 3
"""The number of consecutive losses without a row in between after which a replica is dropped."""

RESTART_SECONDS: Final = 1.0
"""The pause before a lost replica is started again."""

READ_AHEAD: Final = 16
"""The number of rows to read ahead at least, so that no replica waits for them to be read."""


class _RowState(msgspec.Struct, kw_only=True):
    """A row without a result, and the number of replicas that were lost while they ran it.

    Attributes:
        group_size: the maximum number of rows on a replica that runs this row, this row included; None: no limit.
    """

    number: int
    losses: int = 0
    group_size: int | None = None


class _ReplicaState(msgspec.Struct, kw_only=True):
    """The scheduler's view of a replica; all but the first and the last attribute are those of its session.

    Attributes:
        assigned: the rows that the replica runs, by number.
        capacity: the number of further rows that it can start.
        fed: the number of rows assigned to its session.
        delivering: whether assigned rows are still on their way to it.
        losses: the number of consecutive losses without a row in between.
    """

    number: int
    status: Literal["starting", "ready"] = "starting"
    assigned: dict[int, _RowState] = {}
    capacity: int = 0
    fed: int = 0
    delivering: bool = False
    losses: int = 0

    @property
    def group_size(self) -> int | None:
        """Return the maximum number of rows here at once, given the rows that it runs; None: no limit."""
        return min((row.group_size for row in self.assigned.values() if row.group_size is not None), default=None)


_STATUSES: Final[Mapping[type[ReplicaFact], frozenset[str]]] = {
    Ready: frozenset({"starting"}),
    StartFailed: frozenset({"starting"}),
    Delivered: frozenset({"ready"}),
    Reported: frozenset({"ready"}),
    Lost: frozenset({"starting", "ready"}),
}
"""The statuses of a replica in which a fact means something; in any other it changes nothing."""


class Scheduler:
    """The rows and replicas of a batch, as the facts so far say."""

    def __init__(self, replicas: int) -> None:
        """Begin with a number of replicas, all of which are being started."""
        self._replicas = {number: _ReplicaState(number=number) for number in range(1, replicas + 1)}
        self._rows: dict[int, _RowState] = {}
        self._queue: deque[_RowState] = deque()
        self._wanted_rows = self.wants_rows
        self._stopped = False

    @property
    def wants_rows(self) -> bool:
        """Return whether more rows should be read."""
        return len(self._queue) < max(READ_AHEAD, sum(max(0, one.capacity) for one in self._replicas.values()))

    def handle(self, fact: Fact) -> tuple[Decision, ...]:
        """Apply a fact, and return the decisions that follow from it. They must be performed in this order."""
        if self._stopped:
            return ()
        decisions = [*self._take(fact), *self._assign()]
        wanted, self._wanted_rows = self._wanted_rows, self.wants_rows
        if self._wanted_rows and not wanted and not self._stopped:
            decisions.append(ReadRows())
        return tuple(decisions)

    def _take(self, fact: Fact) -> Sequence[Decision]:
        match fact:
            case RowRead():
                row = self._rows[fact.row] = _RowState(number=fact.row)
                self._queue.append(row)
            case RowWithdrawn():
                self._rows.pop(fact.row, None)
            case Stopped():
                self._stop()
            case _:
                replica = self._replicas.get(fact.replica)
                if replica is not None and replica.status in _STATUSES[type(fact)]:
                    return self._take_from(replica, fact)
        return ()

    def _take_from(self, replica: _ReplicaState, fact: ReplicaFact) -> Sequence[Decision]:
        match fact:
            case Ready():
                replica.status = "ready"
            case Delivered():
                replica.delivering = False
            case Reported():
                replica.capacity = fact.capacity - (replica.fed - fact.received)
                return [
                    EndRow(row=number, result=result)
                    for number, result in fact.results
                    if replica.assigned.pop(number, None) is not None and self._rows.pop(number, None) is not None
                ]
            case Lost():
                return self._lose(replica, fact.reason)
            case StartFailed():
                return [self._drop(replica, fact.reason)]
            case _:
                assert_never(fact)
        return ()

    def _stop(self) -> None:
        self._stopped = True
        self._rows.clear()
        self._queue.clear()

    # --- rows for replicas

    def _assign(self) -> Iterator[Assign]:
        for replica in self._replicas.values():
            if not replica.delivering and (rows := self._next_rows(replica)):
                replica.assigned |= {row.number: row for row in rows}
                replica.fed += len(rows)
                replica.capacity -= len(rows)
                replica.delivering = True
                yield Assign(replica=replica.number, rows=tuple(row.number for row in rows))

    def _next_rows(self, replica: _ReplicaState) -> list[_RowState]:
        """Remove rows from the queue for a replica, within its capacity and the group sizes of its rows."""
        chosen: list[_RowState] = []
        skipped: list[_RowState] = []
        group_size = replica.group_size
        while self._queue and len(chosen) < replica.capacity:
            count = len(replica.assigned) + len(chosen)
            if group_size is not None and count >= group_size:
                break
            row = self._queue.popleft()
            if row.number not in self._rows:
                continue
            if row.group_size is not None and count >= row.group_size:
                skipped.append(row)
                continue
            chosen.append(row)
            group_size = _smaller(group_size, row.group_size)
        self._queue.extendleft(reversed(skipped))
        return chosen

    # --- lost replicas

    def _lose(self, replica: _ReplicaState, reason: str) -> list[Decision]:
        """Put the rows of a lost replica at the head of the queue; a row that is to blame fails instead."""
        rows = [row for row in replica.assigned.values() if row.number in self._rows]
        losses = 0 if replica.fed else replica.losses + 1
        self._replicas[replica.number] = _ReplicaState(number=replica.number, losses=losses)
        failed: list[Decision] = []
        again: list[_RowState] = []
        for row in rows:
            row.losses += 1
            if row.losses >= LOSSES_OF_A_ROW and len(rows) == 1:
                del self._rows[row.number]
                failed.append(FailRow(row=row.number, failure=_blame(row.losses, reason)))
                continue
            if row.losses >= LOSSES_BEFORE_SMALLER_GROUPS:
                row.group_size = max(1, len(rows) // 4)
            again.append(row)
        self._queue.extendleft(reversed(again))
        numbers = tuple(row.number for row in again)
        return [
            *failed,
            RunAgain(replica=replica.number, rows=numbers, reason=reason),
            self._drop(replica, f"it died {losses} times in a row: {reason}")
            if losses == LOSSES_OF_A_REPLICA
            else Restart(replica=replica.number, seconds=RESTART_SECONDS),
        ]

    def _drop(self, replica: _ReplicaState, reason: str) -> Drop | EndBatch:
        del self._replicas[replica.number]
        if self._replicas:
            return Drop(replica=replica.number, reason=reason)
        self._stop()
        return EndBatch(reason=reason)


def _blame(losses: int, reason: str) -> Failure:
    return Failure(
        name="backend.unavailable",
        message=f"{losses} replicas died while they ran this row, the last while it ran no other: {reason}",
    )


def _smaller(one: int | None, other: int | None) -> int | None:
    return min((limit for limit in (one, other) if limit is not None), default=None)
