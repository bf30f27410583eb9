"""The scheduler: facts about rows and two replicas, and the decisions that follow from them."""

from collections.abc import Sequence

import pytest

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
    Reported,
    Restart,
    RowRead,
    RowWithdrawn,
    RunAgain,
    StartFailed,
    Stopped,
)
from flowrun.batch.distributed.scheduler import READ_AHEAD, Scheduler
from flowrun.errors import Failure

Step = tuple[Sequence[Fact], Sequence[Decision]]
"""Facts, and the decisions that follow from them."""

RESULT = {"status": "succeeded"}


def read(*rows: int) -> list[Fact]:
    return [RowRead(row=row) for row in rows]


def has(capacity: int, *, replica: int = 1, received: int = 0, ended: Sequence[int] = ()) -> Reported:
    return Reported(replica=replica, results=[(row, RESULT) for row in ended], capacity=capacity, received=received)


def ready(capacity: int, *, replica: int = 1) -> list[Fact]:
    return [Ready(replica=replica), has(capacity, replica=replica)]


def lost(replica: int = 1) -> Lost:
    return Lost(replica=replica, reason="killed")


def assign(*rows: int, replica: int = 1) -> Assign:
    return Assign(replica=replica, rows=rows)


def end(row: int) -> EndRow:
    return EndRow(row=row, result=RESULT)


def again(*rows: int, replica: int = 1) -> list[Decision]:
    return [RunAgain(replica=replica, rows=rows, reason="killed"), Restart(replica=replica, seconds=1.0)]


def blame(row: int, losses: int) -> FailRow:
    message = f"{losses} replicas died while they ran this row, the last while it ran no other: killed"
    return FailRow(row=row, failure=Failure(name="backend.unavailable", message=message))


def numbers(first: int, last: int) -> tuple[int, ...]:
    return tuple(range(first, last + 1))


EIGHT = numbers(1, 8)
SIXTEEN = numbers(1, 16)

TWICE_LOST: list[Step] = [
    ([*read(*EIGHT), *ready(8)], [assign(*EIGHT)]),
    ([lost()], again(*EIGHT)),
    (ready(8), [assign(*EIGHT)]),
    ([lost()], again(*EIGHT)),
]
"""Eight rows that ran together on two lost replicas: now they run in twos."""

CASES: dict[str, list[Step]] = {
    # --- rows for replicas
    "a row waits until a replica has capacity": [
        (read(1), []),
        ([Ready(replica=1)], []),
        ([has(0)], []),
        ([has(1)], [assign(1)]),
    ],
    "a replica with capacity gets a row at once": [
        (ready(4), []),
        (read(1), [assign(1)]),
    ],
    "a replica gets rows in their order and no more than its capacity": [
        (read(*numbers(1, 5)), []),
        (ready(3), [assign(1, 2, 3)]),
        ([Delivered(replica=1)], []),
        ([has(1, received=3, ended=[2])], [end(2), assign(4)]),
    ],
    "rows on their way count against the capacity that was reported before they arrived": [
        ([*read(1, 2), *ready(2)], [assign(1, 2)]),
        ([Delivered(replica=1), *read(3)], []),
        ([has(2, received=0)], []),
        ([has(2, received=1)], [assign(3)]),
    ],
    "a replica gets no rows while others are on their way to it": [
        ([*ready(4), *read(1)], [assign(1)]),
        (read(2, 3), []),
        ([Delivered(replica=1)], [assign(2, 3)]),
    ],
    "the next replica gets rows meanwhile": [
        ([*ready(4), *ready(4, replica=2)], []),
        (read(1, 2, 3), [assign(1), assign(2, replica=2)]),
        ([Delivered(replica=2)], [assign(3, replica=2)]),
    ],
    "a row ends once": [
        ([*ready(4), *read(1)], [assign(1)]),
        ([has(4, received=1, ended=[1])], [end(1)]),
        ([has(4, received=1, ended=[1])], []),
    ],
    "a result of a row that the replica does not have is ignored": [
        ([*ready(4), *read(1)], [assign(1)]),
        (ready(0, replica=2), []),
        ([has(0, replica=2, ended=[1, 7])], []),
        ([has(4, received=1, ended=[1])], [end(1)]),
    ],
    "a replica that was taken for dead and then answers ends no row that another runs": [
        ([*ready(2), *read(1, 2), Delivered(replica=1)], [assign(1), assign(2)]),
        (ready(2, replica=2), []),
        ([lost()], [*again(1, 2), assign(1, 2, replica=2)]),
        ([has(2, received=2, ended=[1])], []),
        (ready(2), []),
        ([has(2, ended=[1, 2])], []),
        ([has(1, replica=2, received=2, ended=[1])], [end(1)]),
        ([has(2, replica=2, received=2, ended=[1, 2])], [end(2)]),
    ],
    "a withdrawn row is not assigned": [
        ([*read(1, 2), RowWithdrawn(row=1)], []),
        (ready(4), [assign(2)]),
    ],
    "a withdrawn row has no result and is not run again": [
        ([*ready(4), *read(1), Delivered(replica=1), *read(2), RowWithdrawn(row=1)], [assign(1), assign(2)]),
        ([has(2, received=2, ended=[1])], []),
        ([RowWithdrawn(row=2), lost()], again()),
    ],
    # --- reading ahead
    "rows are read ahead up to a number": [
        (read(*numbers(1, READ_AHEAD)), []),
        (ready(1), [assign(1), ReadRows()]),
    ],
    "rows are read ahead up to the capacity of all replicas": [
        (read(*numbers(1, READ_AHEAD)), []),
        ([Ready(replica=1), Ready(replica=2)], []),
        ([has(READ_AHEAD)], [assign(*numbers(1, READ_AHEAD)), ReadRows()]),
        (read(*numbers(17, 32)), []),
        ([has(20, replica=2)], [assign(*numbers(17, 32), replica=2), ReadRows()]),
    ],
    # --- lost replicas
    "the rows of a lost replica go to the head of the queue": [
        ([*read(1, 2, 3, 4), *ready(3)], [assign(1, 2, 3)]),
        ([has(0, received=3, ended=[2])], [end(2)]),
        ([lost()], again(1, 3)),
        (ready(4), [assign(1, 3, 4)]),
    ],
    "another replica runs them at once": [
        ([*ready(2), *read(1)], [assign(1)]),
        (ready(2, replica=2), []),
        ([lost()], [*again(1), assign(1, replica=2)]),
    ],
    "a lost replica gets no rows until it is ready again and has capacity": [
        ([*ready(4), *read(1)], [assign(1)]),
        ([lost()], again(1)),
        ([Delivered(replica=1), has(4, received=1, ended=[1]), *read(2)], []),
        ([Ready(replica=1)], []),
        ([has(4)], [assign(1, 2)]),
    ],
    "a row that ran alone on three lost replicas fails": [
        ([*ready(4), *read(1)], [assign(1)]),
        ([lost(), *ready(4)], [*again(1), assign(1)]),
        ([lost(), *ready(4)], [*again(1), assign(1)]),
        ([lost()], [blame(1, 3), *again()]),
    ],
    "a row is blamed only if it was alone at the last loss": [
        ([*ready(4), *read(1, 2)], [assign(1)]),
        ([lost(), *ready(4)], [*again(1), assign(1, 2)]),
        ([lost()], again(1, 2)),  # row 1 was on two lost replicas: it runs alone now
        (ready(4), [assign(1)]),
        ([lost()], [blame(1, 3), *again()]),
        (ready(4), [assign(2)]),
        ([has(4, received=1, ended=[2])], [end(2)]),
    ],
    "rows together on two lost replicas run in groups of a quarter": [
        *TWICE_LOST,
        (ready(8), [assign(1, 2)]),
        ([Delivered(replica=1), has(6, received=2)], []),
        ([has(7, received=2, ended=[1])], [end(1), assign(3)]),
    ],
    "a row that must run alone does so even if there are rows without a loss": [
        ([*ready(8), *read(1)], [assign(1)]),
        ([lost(), *ready(8)], [*again(1), assign(1)]),
        ([lost(), *ready(8)], [*again(1), assign(1)]),
        ([Delivered(replica=1), has(7, received=1), *read(2)], []),
        ([has(8, received=1, ended=[1])], [end(1), assign(2)]),
    ],
    "rows without a limit pass those that must wait for a smaller group": [
        (ready(8, replica=2), []),
        (read(20), [assign(20, replica=2)]),
        ([Delivered(replica=2), has(0, replica=2, received=1), *read(21)], []),
        (ready(8), [assign(21)]),
        ([lost(), *ready(8)], [*again(21), assign(21)]),
        ([lost()], again(21)),  # row 21 runs alone from now on
        (read(22), []),
        ([has(7, replica=2, received=1)], [assign(22, replica=2)]),
        (ready(8), [assign(21)]),
    ],
    "several rows are passed, in their order": [
        (ready(1, replica=2), []),
        (read(20), [assign(20, replica=2)]),
        ([Delivered(replica=2), has(0, replica=2, received=1), *read(1, 2)], []),
        (ready(2), [assign(1, 2)]),
        ([lost(), *ready(2)], [*again(1, 2), assign(1, 2)]),
        ([lost()], again(1, 2)),  # both run alone from now on
        (read(3), []),
        ([has(1, replica=2, received=1)], [assign(3, replica=2)]),
        (ready(2), [assign(1)]),
    ],
    "groups become smaller and smaller": [
        *TWICE_LOST,
        (ready(8), [assign(1, 2)]),
        ([lost()], again(1, 2)),
        (ready(8), [assign(1)]),
        ([lost()], [blame(1, 4), *again()]),
        (ready(8), [assign(2)]),
        ([has(8, received=1, ended=[2])], [end(2)]),
        ([Delivered(replica=1)], [assign(3, 4)]),
    ],
    "the size of smaller groups is a quarter": [
        ([*read(*SIXTEEN), *ready(16)], [assign(*SIXTEEN), ReadRows()]),
        ([lost()], again(*SIXTEEN)),
        (ready(16), [assign(*SIXTEEN), ReadRows()]),
        ([lost()], again(*SIXTEEN)),
        (ready(16), [assign(1, 2, 3, 4), ReadRows()]),
    ],
    # --- dropped replicas
    "a replica that dies three times in a row without rows is dropped": [
        ([lost()], again()),
        ([Ready(replica=1), lost()], again()),
        ([lost()], [again()[0], Drop(replica=1, reason="it died 3 times in a row: killed")]),
        ([*ready(4), *read(1)], []),
        (ready(4, replica=2), [assign(1, replica=2)]),
    ],
    "a replica that had rows in between is not dropped": [
        ([lost(), lost()], [*again(), *again()]),
        ([*ready(4), *read(1)], [assign(1)]),
        ([has(4, received=1, ended=[1]), lost()], [end(1), *again()]),
        ([lost(), lost()], [*again(), *again()]),
    ],
    "a replica that cannot start is dropped": [
        ([StartFailed(replica=1, reason="no GPU")], [Drop(replica=1, reason="no GPU")]),
        ([*ready(4), *read(1)], []),
        (ready(4, replica=2), [assign(1, replica=2)]),
    ],
    "the batch ends when no replica can start": [
        (read(*numbers(1, 20)), []),
        ([StartFailed(replica=2, reason="no GPU")], [Drop(replica=2, reason="no GPU")]),
        ([StartFailed(replica=1, reason="no model")], [EndBatch(reason="no model")]),
        (read(*numbers(21, 40)), []),
    ],
    "the batch ends when the last replica died three times in a row": [
        ([StartFailed(replica=2, reason="no GPU")], [Drop(replica=2, reason="no GPU")]),
        ([*read(1), lost(), lost()], [*again(), *again()]),
        ([lost()], [again()[0], EndBatch(reason="it died 3 times in a row: killed")]),
    ],
    # --- the end
    "nothing is decided once the batch is stopped": [
        ([*ready(4), *read(1), *read(2)], [assign(1)]),
        ([Stopped()], []),
        ([Delivered(replica=1), has(3, received=1, ended=[1]), *read(3), lost(), *ready(4)], []),
    ],
}


@pytest.mark.parametrize("steps", [pytest.param(steps, id=name) for name, steps in CASES.items()])
def test_decisions(steps: list[Step]) -> None:
    scheduler = Scheduler(2)
    decided = [[one for fact in facts for one in scheduler.handle(fact)] for facts, _ in steps]
    assert decided == [list(decisions) for _, decisions in steps]


@pytest.mark.parametrize(
    ("facts", "wants"),
    [
        pytest.param([], True, id="before the first replica"),
        pytest.param(read(*numbers(1, READ_AHEAD - 1)), True, id="below the number to read ahead"),
        pytest.param(read(*numbers(1, READ_AHEAD)), False, id="the number to read ahead"),
        pytest.param([*read(*numbers(1, 40)), *ready(20)], False, id="the rest is more than the capacity"),
        pytest.param([*read(*numbers(1, 40)), *ready(30)], True, id="the rest is little"),
        pytest.param([*ready(40), *read(*numbers(1, 20))], True, id="the capacity is larger"),
        pytest.param([*ready(4), has(40), lost(), *read(*numbers(1, 16))], False, id="a lost replica has no capacity"),
    ],
)
def test_whether_rows_are_read(facts: Sequence[Fact], wants: bool) -> None:
    scheduler = Scheduler(2)
    for fact in facts:
        scheduler.handle(fact)
    assert scheduler.wants_rows is wants
