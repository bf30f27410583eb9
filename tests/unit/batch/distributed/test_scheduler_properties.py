"""What holds for any sequence of facts: rows end once, and replicas get what they can run. The world is simulated."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

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
    RunAgain,
    StartFailed,
)
from flowrun.batch.distributed.scheduler import LOSSES_BEFORE_SMALLER_GROUPS, LOSSES_OF_A_ROW, Scheduler

NO_LIMIT = 10**6


class SimulatedReplica:
    """A replica that runs at most ``limit`` rows.

    Attributes:
        status: starting, ready or dropped.
        coming: rows on their way to it.
        running: rows that it runs; those in ``World.deadly`` kill it in the end.
    """

    def __init__(self, number: int, limit: int) -> None:
        self.number = number
        self.limit = limit
        self.status = "starting"
        self.new_session()

    def new_session(self) -> None:
        self.coming: list[int] = []
        self.running: list[int] = []
        self.received = 0

    @property
    def rows(self) -> list[int]:
        return self.running + self.coming


class World:
    """The replicas, rows and results of a batch. Each step checks the decisions that follow from it.

    Attributes:
        results: by row, true for a result and false for a failure.
        over: whether the scheduler ended the batch.
        history: all facts, and the decisions that followed from each.
    """

    def __init__(self, limits: list[int], deadly: frozenset[int]) -> None:
        self.replicas = {number: SimulatedReplica(number, limit) for number, limit in enumerate(limits, 1)}
        self.deadly = deadly
        self.scheduler = Scheduler(len(limits))
        self.results: dict[int, bool] = {}
        self.losses: Counter[int] = Counter()
        self.group_sizes: dict[int, int] = {}
        self.read_count = 0
        self.over = False
        self.history: list[tuple[Fact, tuple[Decision, ...]]] = []

    # --- steps

    def read(self, _: SimulatedReplica) -> None:
        self.read_count += 1
        self._handle(RowRead(row=self.read_count))

    def start(self, replica: SimulatedReplica) -> None:
        if replica.status == "starting":
            replica.status = "ready"
            self._handle(Ready(replica=replica.number))

    def fail_start(self, replica: SimulatedReplica) -> None:
        if replica.status == "starting":
            self._handle(StartFailed(replica=replica.number, reason="no GPU"))

    def deliver(self, replica: SimulatedReplica) -> None:
        if replica.coming:
            replica.running += replica.coming
            replica.received += len(replica.coming)
            replica.coming = []
            self._handle(Delivered(replica=replica.number))

    def report(self, replica: SimulatedReplica, *, most: int = 2) -> None:
        if replica.status != "ready":
            return
        ended = [row for row in replica.running if row not in self.deadly][:most]
        replica.running = [row for row in replica.running if row not in ended]
        self._handle(
            Reported(
                replica=replica.number,
                results=[(row, {}) for row in ended],
                capacity=replica.limit - len(replica.running),
                received=replica.received,
            )
        )

    def report_late(self, replica: SimulatedReplica) -> None:
        """Report what belongs to a session that has ended."""
        if replica.status != "ready":
            assert not self._handle(Delivered(replica=replica.number))
            results: list[tuple[int, dict[str, Any]]] = [(row, {}) for row in range(1, self.read_count + 1)]
            assert not self._handle(Reported(replica=replica.number, results=results, capacity=9, received=9))

    def lose(self, replica: SimulatedReplica) -> None:
        if replica.status == "dropped":
            return
        rows = replica.rows
        replica.new_session()
        replica.status = "lost"
        self.losses.update(rows)
        size = max(1, len(rows) // 4)
        self.group_sizes |= {row: size for row in rows if self.losses[row] >= LOSSES_BEFORE_SMALLER_GROUPS}
        blamed = rows if len(rows) == 1 and self.losses[rows[0]] >= LOSSES_OF_A_ROW else []
        decisions = self._handle(Lost(replica=replica.number, reason="killed"))
        assert [one.row for one in decisions if isinstance(one, FailRow)] == blamed
        assert [one.rows for one in decisions if isinstance(one, RunAgain)] == [
            tuple(row for row in rows if row not in blamed)
        ]

    def kill(self, replica: SimulatedReplica) -> None:
        """Lose a replica, if it runs a deadly row."""
        if self.deadly.intersection(replica.running):
            self.lose(replica)

    def finish(self, *, patient: bool) -> None:
        """Go on until every row has ended.

        Args:
            patient: the other rows of a replica end before a deadly one kills it; else none does.
        """
        for _ in range(100 + 20 * self.read_count):
            if self.over or len(self.results) == self.read_count:
                return
            for replica in self.replicas.values():
                self.start(replica)
                self.deliver(replica)
                if patient:
                    self.report(replica, most=NO_LIMIT)
                self.kill(replica)
                self.report(replica, most=NO_LIMIT)

    # --- decisions

    def _handle(self, fact: Fact) -> tuple[Decision, ...]:
        decisions = self.scheduler.handle(fact)
        self.history.append((fact, decisions))
        assert not (self.over and decisions)
        for decision in decisions:
            self._perform(decision)
        return decisions

    def _perform(self, decision: Decision) -> None:
        match decision:
            case Assign():
                self._check_assign(self.replicas[decision.replica], decision.rows)
                self.replicas[decision.replica].coming += decision.rows
            case EndRow() | FailRow():
                assert decision.row not in self.results
                self.results[decision.row] = isinstance(decision, EndRow)
            case Restart():
                assert self.replicas[decision.replica].status == "lost"
                self.replicas[decision.replica].status = "starting"
            case Drop():
                self.replicas[decision.replica].status = "dropped"
            case EndBatch():
                assert [one.status for one in self.replicas.values()].count("dropped") == len(self.replicas) - 1
                self.over = True
                for one in self.replicas.values():
                    one.status = "dropped"
            case ReadRows():
                assert self.scheduler.wants_rows
            case RunAgain():
                pass

    def _check_assign(self, replica: SimulatedReplica, rows: tuple[int, ...]) -> None:
        assert (replica.status, replica.coming) == ("ready", [])
        elsewhere = {row for one in self.replicas.values() for row in one.rows}
        assert not elsewhere.intersection(rows)
        assert not self.results.keys() & set(rows)
        together = [*replica.rows, *rows]
        assert len(together) <= min(replica.limit, *(self.group_sizes.get(row, NO_LIMIT) for row in together))


Step = Callable[[World, SimulatedReplica], None]

limits = st.lists(st.integers(1, 12), min_size=1, max_size=4)
deadly_rows = st.frozensets(st.integers(1, 40), max_size=5)


def steps_of(*steps: Step) -> st.SearchStrategy[list[tuple[Step, int]]]:
    return st.lists(st.tuples(st.sampled_from(steps), st.integers(0, 3)), max_size=120)


FAIR = (World.read, World.read, World.start, World.deliver, World.report, World.kill)
"""Steps in which only deadly rows kill replicas."""


def run(world: World, steps: list[tuple[Step, int]], *, patient: bool) -> World:
    for step, index in steps:
        step(world, world.replicas[index % len(world.replicas) + 1])
    world.finish(patient=patient)
    return world


@given(limits, deadly_rows, steps_of(*FAIR, World.lose, World.fail_start, World.report_late), st.booleans())
def test_every_row_ends_once_while_a_replica_is_left(
    limits: list[int], deadly: frozenset[int], steps: list[tuple[Step, int]], patient: bool
) -> None:
    world = run(World(limits, deadly), steps, patient=patient)
    assert world.over == all(replica.status == "dropped" for replica in world.replicas.values())
    assert world.over or sorted(world.results) == list(range(1, world.read_count + 1))


@given(limits, deadly_rows, steps_of(*FAIR), st.booleans())
def test_a_row_that_kills_replicas_costs_no_other_row_its_result(
    limits: list[int], deadly: frozenset[int], steps: list[tuple[Step, int]], patient: bool
) -> None:
    world = run(World(limits, deadly), steps, patient=patient)
    assert world.results == {row: row not in deadly for row in range(1, world.read_count + 1)}
    assert not world.over


@given(limits, deadly_rows, steps_of(*FAIR, World.lose, World.fail_start, World.report_late))
def test_the_same_facts_lead_to_the_same_decisions(
    limits: list[int], deadly: frozenset[int], steps: list[tuple[Step, int]]
) -> None:
    world = run(World(limits, deadly), steps, patient=True)
    again = Scheduler(len(limits))
    assert [again.handle(fact) for fact, _ in world.history] == [decisions for _, decisions in world.history]
