"""200 durable runs are killed many times, run out of disk space, and lose the end of their journal.

All runs end with the same results as undisturbed runs, and no effect with a stored result is performed again. The seed
of the disturbances is printed: ``FLOWRUN_TORTURE_SEED`` repeats them, apart from differences in the machine's load.
"""

import asyncio
import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pytest

from flowrun.spec.model import JSON
from tests.torture.budget import SEED, kills_of
from tests.torture.judge import Judge, Moment, Nursery, copy_journal, done, stored_events, tear
from tests.torture.worker import FINISHED, HALTED, End, Order
from tests.torture.world import RUNS, Ledger, World, graph, read_ledger

KILLED: Final = -9


class Undisturbed(NamedTuple):
    """The outputs and the effects of undisturbed runs."""

    outputs: dict[str, JSON]
    done: set[tuple[Any, ...]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Run all runs without a journal."""
    path = tmp_path_factory.mktemp("undisturbed") / "ledger"
    runner = World(Ledger(path, life=0)).runner(None)

    async def run_all() -> dict[str, JSON]:
        results = await asyncio.gather(*(runner.run(graph(), {"n": n}, run_id=run) for run, n in RUNS.items()))
        return {result.run.id: result.run.outcome.output for result in results if result.run.outcome is not None}

    return Undisturbed(asyncio.run(run_all()), done(read_ledger(path)))


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(scope="module")
def other_nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    print(f"FLOWRUN_TORTURE_SEED={SEED}")
    return random.Random(f"{SEED} {request.node.name}")


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    return empty_folders(tmp_path)


def empty_folders(within: Path) -> Iterator[Path]:
    """Yield new empty folders, without end."""
    for number in count():
        folder = within / str(number)
        folder.mkdir()
        yield folder


def live(nursery: Nursery, order: Order) -> End:
    nursery.order(order)
    return nursery.end()


def assert_as_undisturbed(judge: Judge, undisturbed: Undisturbed) -> None:
    assert judge.outputs() == undisturbed.outputs
    assert done(judge.lines) == undisturbed.done
    judge.judge_calls()


@pytest.mark.slow
def test_killed_runs_do_nothing_again_and_end_as_undisturbed(
    nursery: Nursery, folders: Iterator[Path], chance: random.Random, undisturbed: Undisturbed
) -> None:
    kills = 0
    decisions: Counter[str] = Counter()
    while kills < kills_of("api"):
        judge, moment = Judge(next(folders)), Moment(chance)
        status = KILLED
        while status == KILLED:
            status = live(nursery, moment.order(judge.folder, judge.life, shrug=0.2)).status
            moment.learn(judge.judge())
            kills += status == KILLED
        assert status == FINISHED
        last = live(nursery, Order(folder=str(judge.folder), life=judge.life, seed=0))  # for what was left in doubt
        judge.judge()
        assert last == End(status=FINISHED)
        assert_as_undisturbed(judge, undisturbed)
        decisions += Counter(line.what for line in judge.lines if line.what in ("done", "again"))
    assert set(decisions) == {"done", "again"}
    print(f"{kills} kills; calls in doubt: {dict(decisions)}")


@pytest.mark.parametrize(
    ("space", "message"),
    [
        pytest.param(
            "more_bytes",
            "disk I/O error; look after the disk and its free space, and resume the runs; "
            "what was written before is kept",
            id="files_cannot_grow",
        ),
        pytest.param(
            "more_pages",
            "database or disk is full; free some space and resume the runs; what was written before is kept",
            id="no_page_left",
        ),
    ],
)
@pytest.mark.slow
def test_a_full_disk_stops_all_runs_and_they_resume_when_there_is_space(
    nursery: Nursery,
    folders: Iterator[Path],
    chance: random.Random,
    undisturbed: Undisturbed,
    space: str,
    message: str,
) -> None:
    judge = Judge(next(folders))
    folder = str(judge.folder)
    live(nursery, Order(folder=folder, life=0, seed=chance.randrange(2**32), die_at=600))
    judge.judge()
    halts = 0
    for _ in range(5):
        size = chance.randrange(50, 100) * (4096 if space == "more_bytes" else 1)
        order = Order(folder=folder, life=judge.life, seed=chance.randrange(2**32))
        end = live(nursery, msgspec.structs.replace(order, **{space: size}))
        judge.judge()
        if end.status != FINISHED:
            path = judge.folder / "journal.db"
            assert end == End(status=HALTED, errors=(f"the journal {path} cannot be used: {message}",))
            halts += 1
    assert halts > 0
    assert live(nursery, Order(folder=folder, life=judge.life, seed=0)) == End(status=FINISHED)
    judge.judge()
    assert_as_undisturbed(judge, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(4))
def test_a_torn_journal_is_the_beginning_of_the_whole_one(
    nursery: Nursery, folders: Iterator[Path], chance: random.Random, undisturbed: Undisturbed, number: int
) -> None:
    """Calls that the torn journal has lost are made again, with the same idempotency keys."""
    folder = next(folders)
    killed = Order(folder=str(folder), life=0, seed=chance.randrange(2**32), all_idempotent=True)
    killed = msgspec.structs.replace(killed, die_at=chance.randrange(300, 5000))
    assert live(nursery, killed).status == KILLED
    all_events, _ = stored_events(folder)
    for _ in range(3):
        torn = Judge(next(folders), all_idempotent=True)
        copy_journal(folder, torn.folder)
        shutil.copyfile(folder / "ledger", torn.folder / "ledger")
        tear(folder, torn.folder, chance)
        events, _ = stored_events(torn.folder)
        assert events == all_events[: len(events)]
        order = Order(folder=str(torn.folder), life=1, seed=chance.randrange(2**32), all_idempotent=True)
        assert live(nursery, order) == End(status=FINISHED)
        torn.judge()
        assert_as_undisturbed(torn, undisturbed)


@pytest.mark.slow
def test_two_processes_that_resume_all_runs_drive_each_once(
    nursery: Nursery,
    other_nursery: Nursery,
    folders: Iterator[Path],
    chance: random.Random,
    undisturbed: Undisturbed,
) -> None:
    both = 0
    while both < 3:
        judge = Judge(next(folders))
        folder = str(judge.folder)
        live(nursery, Order(folder=folder, life=0, seed=chance.randrange(2**32), die_at=chance.randrange(300, 2000)))
        judge.judge()
        ends = (KILLED, KILLED)
        while ends != (FINISHED, FINISHED):
            gates = [judge.folder / f"gate{number}" for number in range(2)]
            dies = (chance.choice((None, chance.randrange(100, 2000))), None)
            for each, gate, die_at in zip((nursery, other_nursery), gates, dies, strict=True):
                gate.unlink(missing_ok=True)
                os.mkfifo(gate)
                seed = chance.randrange(2**32)
                each.order(Order(folder=folder, life=judge.life, seed=seed, die_at=die_at, gate=str(gate)))
            for pipe in [gate.open("wb") for gate in gates]:
                pipe.close()
            ends = (nursery.end().status, other_nursery.end().status)
            judge.judge()
            both += judge.drivers == 2
        assert_as_undisturbed(judge, undisturbed)
