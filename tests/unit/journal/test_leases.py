"""One process drives a run. A dead one loses its runs; one that was declared dead writes nothing any more."""

import asyncio
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flowrun.core.events import Answered, Cancelled, Event, Failed, Slept, TimedOut
from flowrun.errors import Failure, UsageError
from flowrun.journal import Database, Fenced, Held, History, LeaseLost, RunRow, SqliteJournal
from flowrun.journal.liveness import LEASE_SECONDS, is_alive
from flowrun.journal.rows import Holder
from flowrun.process_starts import started_at
from tests.unit.journal.conftest import Child
from tests.unit.journal.sample_runs import (
    ELSEWHERE,
    HERE,
    NEVER,
    Clock,
    append,
    begin,
    commits,
    count,
    end,
    events,
    new_run,
    started,
)

pytestmark = pytest.mark.anyio


def row(path: Path, run: str, *, now: float = 1000.0) -> RunRow:
    database = Database(path, create=False)
    try:
        return History(database, now=Clock(now)).run(run)
    finally:
        database.close()


async def until(true: Callable[[], bool]) -> None:
    """Wait for an effect of another thread; pytest's own timeout ends an endless wait."""
    while not true():  # noqa: ASYNC110 - a thread has no asyncio.Event
        await asyncio.sleep(0.001)


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


async def test_a_living_process_keeps_its_runs_and_a_killed_one_loses_them(path: Path, child: Child) -> None:
    process = child("hold")
    assert line(process) == f"holding {process.pid}"
    async with SqliteJournal(path) as journal:
        (held,) = await journal.take(["r"])
        assert (held.run, held.holder.pid, held.holder.host) == ("r", process.pid, HERE.host)
        assert row(path, "r").holder == held.holder
        assert not row(path, "r").interrupted
        process.kill()
        process.wait()
        assert row(path, "r").interrupted
        assert await journal.take(["r"]) == ()
        await append(journal, "r", [Slept(step=1)])
        assert not row(path, "r").interrupted
    assert events(path, "r") == [started("r"), Slept(step=1)]


async def test_a_process_that_closes_releases_its_runs(path: Path) -> None:
    async with SqliteJournal(path) as first:
        await begin(first, new_run("r"))
    assert count(path, "holders") == 0
    async with SqliteJournal(path) as second:
        assert await second.take(["r"]) == ()


async def test_only_one_of_two_processes_takes_a_run(path: Path, child: Child) -> None:
    async with SqliteJournal(path) as journal:
        await begin(journal, new_run("r"))
    racers = [child("race"), child("race")]
    assert [line(racer) for racer in racers] == ["ready", "ready"]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    assert sorted(line(racer) for racer in racers) == ["held", "taken"]


async def test_a_process_elsewhere_that_slept_too_long_is_fenced(path: Path) -> None:
    clock = Clock()
    sleeper = SqliteJournal(path, now=clock, process=ELSEWHERE, pause=NEVER)
    await begin(sleeper, new_run("r"))
    await begin(sleeper, new_run("s"))
    clock.now += LEASE_SECONDS - 0.1
    async with SqliteJournal(path, now=clock, pause=NEVER) as heir:
        (held,) = await heir.take(["r"])
        assert held.holder.host == "other"
        clock.now += 0.1
        assert await heir.take(["r"]) == ()
        results = await asyncio.gather(
            append(sleeper, "r", [Slept(step=1)]), append(sleeper, "s", [Slept(step=1)]), return_exceptions=True
        )
        assert [(type(result), str(result)) for result in results] == [
            (
                Fenced,
                "another process took this one for dead, because its heartbeat was late, and may drive its runs now",
            )
        ] * 2
        with pytest.raises(Fenced, match="took this one for dead"):
            await sleeper.take(["s"])
        await append(heir, "r", [Slept(step=2)])
        assert await heir.take(["s"]) == ()
    await sleeper.close()
    assert events(path, "r") == [started("r"), Slept(step=2)]
    assert events(path, "s") == [started("s")]


async def test_a_process_that_slept_notices_at_its_next_heartbeat(path: Path) -> None:
    clock = Clock()
    async with SqliteJournal(path, now=clock, process=ELSEWHERE, pause=0.001) as sleeper:
        await begin(sleeper, new_run("r"))
        database = Database(path)
        database.execute("DELETE FROM holders")
        database.close()
        clock.now += 5
        await until(lambda: sleeper._thread.failed is not None)
        with pytest.raises(Fenced, match="took this one for dead"):
            await append(sleeper, "r", [Slept(step=1)])


async def test_a_process_has_one_heartbeat_for_all_its_runs(path: Path) -> None:
    clock = Clock()
    async with SqliteJournal(path, now=clock, process=ELSEWHERE, pause=0.001) as journal:
        await begin(journal, new_run("r"))
        await begin(journal, new_run("s"))
        assert row(path, "r", now=clock.now + 4 * LEASE_SECONDS).interrupted
        clock.now += 4 * LEASE_SECONDS

        def has_new_heartbeat() -> bool:
            holder = row(path, "r", now=clock.now).holder
            return holder is not None and holder.heartbeat == clock.now

        await until(has_new_heartbeat)
        assert not row(path, "s", now=clock.now).interrupted
        assert count(path, "holders") == 1


async def test_a_released_run_is_free(path: Path) -> None:
    async with SqliteJournal(path) as first, SqliteJournal(path) as second:
        await begin(first, new_run("r"), status="waiting")
        assert [held.run for held in await second.take(["r"])] == ["r"]
        assert await first.release("r")
        with pytest.raises(LeaseLost, match="another process has resumed it"):
            await first.release("r")
        assert await second.take(["r"]) == ()
        await append(second, "r", [Answered(step=1)])
        with pytest.raises(LeaseLost, match="run r cannot continue here: its event 1 is not the next"):
            await append(first, "r", [Slept(step=1)])
        await begin(first, new_run("s"))


async def test_many_runs_are_taken_at_once_except_those_that_are_held(path: Path) -> None:
    async with SqliteJournal(path) as first:
        for run in ("a", "b", "c"):
            await begin(first, new_run(run))
        await first.release("a")
        await first.release("c")
        async with SqliteJournal(path) as second:
            held = await second.take(["a", "b", "c"])
            assert held == (Held(run="b", holder=held[0].holder),)
            assert await second.take(["a"]) == ()
            with pytest.raises(UsageError, match="there is no run 'd' in"):
                await second.take(["d"])


async def test_an_answer_reaches_the_process_that_drives_the_run(path: Path) -> None:
    received: asyncio.Queue[tuple[str, Event]] = asyncio.Queue()
    async with SqliteJournal(path, on_signal=lambda *sent: received.put_nowait(sent), pause=0.001) as driver:
        await begin(driver, new_run("r"), status="waiting")
        async with SqliteJournal(path) as other:
            await other.signal("r", Answered(step=1, value="yes"))
            await other.signal("r", Cancelled(reason="enough"))
            assert not await driver.release("r")
        assert [await received.get(), await received.get()] == [
            ("r", Answered(step=1, value="yes")),
            ("r", Cancelled(reason="enough")),
        ]
        assert count(path, "inbox") == 2
        await driver.append("r", Answered(step=1, value="yes"), seq=1, state="ask", status="running")
        assert count(path, "inbox") == 1
        await end(driver, "r", seq=2)
        assert count(path, "inbox") == 0
        assert received.empty()


async def test_an_answer_waits_for_the_process_that_takes_the_run(path: Path) -> None:
    async with SqliteJournal(path) as first:
        await begin(first, new_run("r"), status="waiting")
        assert await first.release("r")
        await first.signal("r", Answered(step=1, value="yes"))
    for _ in range(2):  # a process that received it and died before it wrote it has changed nothing
        received: asyncio.Queue[tuple[str, Event]] = asyncio.Queue()
        async with SqliteJournal(path, on_signal=lambda *sent, q=received: q.put_nowait(sent), pause=0.001) as next_one:
            assert await next_one.take(["r"]) == ()
            assert await received.get() == ("r", Answered(step=1, value="yes"))


async def test_one_of_two_answers_is_accepted(path: Path) -> None:
    async with SqliteJournal(path) as driver, SqliteJournal(path) as one, SqliteJournal(path) as other:
        await begin(driver, new_run("r"), status="waiting")
        for step in range(1, 20):
            *sent, closed = await asyncio.gather(
                one.signal("r", Answered(step=step, value="one")),
                other.signal("r", Answered(step=step, value="other")),
                driver.close_question("r", TimedOut(step=step)),
                return_exceptions=True,
            )
            accepted = [result for result in sent if result is True]
            refused = [str(result) for result in sent if isinstance(result, UsageError)]
            assert (len(accepted) + isinstance(closed, TimedOut), len(refused)) == (1, 2 - len(accepted))
            assert all(f"the question r/{step}/0 " in text for text in refused)
            assert isinstance(closed, Answered | TimedOut)
            await driver.append("r", closed, seq=step, state="ask", status="waiting")
            assert count(path, "inbox") == 0


OVER = Failure(name="wait.timeout", message="nobody answered")


async def test_each_question_of_a_step_is_closed_by_itself(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await begin(journal, new_run("r"), status="waiting")
        assert await journal.signal("r", Answered(step=2, index=1, value="one"))
        assert await journal.signal("r", Answered(step=2, index=0, value="none"))
        with pytest.raises(UsageError, match='the question r/2/1 was answered already, with "one"'):
            await journal.signal("r", Answered(step=2, index=1))
        over = Failed(step=2, index=3, failure=OVER)
        assert await journal.close_question("r", over) == over
        with pytest.raises(UsageError, match="the question r/2/3 is closed: its time is over"):
            await journal.signal("r", Answered(step=2, index=3))
        assert await journal.close_question("r", Failed(step=2, index=1, failure=OVER)) == Answered(
            step=2, index=1, value="one"
        )
        await append(journal, "r", [over])
        assert count(path, "inbox") == 2


async def test_the_timeout_of_a_step_comes_after_the_answers_that_were_accepted_before(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await begin(journal, new_run("r"), status="waiting")
        answer = Answered(step=2, index=1, value="one")
        await journal.signal("r", answer)
        assert await journal.close_question("r", TimedOut(step=2)) == answer
        await append(journal, "r", [answer])
        assert await journal.close_question("r", TimedOut(step=2)) == TimedOut(step=2)
        with pytest.raises(UsageError, match="the question r/2/0 is closed: its time is over"):
            await journal.signal("r", Answered(step=2, index=0))


async def test_an_answer_to_a_run_that_has_moved_on_is_not_sent(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await begin(journal, new_run("r"), status="waiting")
        await append(journal, "r", [TimedOut(step=1)])
        assert not await journal.signal("r", Answered(step=1), seen=1)
        assert count(path, "inbox") == 0
        assert await journal.signal("r", Answered(step=2), seen=2)
        with pytest.raises(UsageError, match="the question r/2/0 was answered already, with null"):
            await journal.signal("r", Answered(step=2), seen=2)


async def test_nobody_answers_a_run_that_is_about_to_be_cancelled(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await begin(journal, new_run("r"), status="waiting")
        await journal.signal("r", Cancelled())
        with pytest.raises(UsageError, match="run r is about to be cancelled"):
            await journal.signal("r", Answered(step=1))


async def test_a_timeout_that_was_never_written_down_keeps_no_answer_out(path: Path) -> None:
    async with SqliteJournal(path) as crashed:
        await begin(crashed, new_run("r"), status="waiting")
        assert await crashed.close_question("r", TimedOut(step=1)) == TimedOut(step=1)
        with pytest.raises(UsageError, match="the question r/1/0 is closed: its time is over"):
            await crashed.signal("r", Answered(step=1))
    async with SqliteJournal(path) as heir:
        with pytest.raises(LeaseLost):
            await heir.close_question("r", Answered(step=1))
        await heir.take(["r"])
        assert await heir.signal("r", Answered(step=1, value="yes"))
        assert await heir.close_question("r", Answered(step=1, value="no")) == Answered(step=1, value="yes")


async def test_an_ended_run_accepts_no_answer(path: Path) -> None:
    async with SqliteJournal(path) as journal:
        await begin(journal, new_run("r"), status="cancelled")
        with pytest.raises(UsageError, match="run r has ended: cancelled"):
            await journal.signal("r", Answered(step=1))
        with pytest.raises(UsageError, match="there is no run 's' in"):
            await journal.signal("s", Answered(step=1))


HOLDER = Holder(id="h", host=HERE.host, pid=HERE.pid, pid_space=HERE.pid_space, started=HERE.started, heartbeat=0.0)


@pytest.mark.parametrize(
    ("holder", "now", "alive"),
    [
        (HOLDER, 1e9, True),
        (Holder(id="h", host="a", pid=HERE.pid, pid_space=HERE.pid_space, started=1, heartbeat=0.0), 0.0, False),
        (Holder(id="h", host="a", pid=2**22 + 1, pid_space=HERE.pid_space, started=1, heartbeat=0.0), 0.0, False),
        (Holder(id="h", host=HERE.host, pid=HERE.pid, pid_space="x", started=1, heartbeat=0.0), 29.9, True),
        (Holder(id="h", host=HERE.host, pid=HERE.pid, pid_space="x", started=1, heartbeat=0.0), 30.0, False),
        (Holder(id="h", host=HERE.host, pid=HERE.pid, pid_space="", started=0, heartbeat=0.0), 30.0, False),
    ],
    ids=["stopped for long", "another with its pid", "gone", "elsewhere", "elsewhere and late", "no /proc"],
)
def test_a_process_is_looked_up_or_judged_by_its_heartbeat(holder: Holder, now: float, alive: bool) -> None:
    assert is_alive(holder, here=HERE, now=now) is alive


def test_a_zombie_is_dead() -> None:
    process = subprocess.Popen(["/bin/true"])
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE) as living:
        assert started_at(living.pid) is not None
    while (found := started_at(process.pid)) is not None:
        assert found > 0
    process.wait()


async def test_a_taken_run_is_read_and_resumed(path: Path) -> None:
    async with SqliteJournal(path) as first:
        await begin(first, new_run("r"))
        await append(first, "r", [Slept(step=1)])
    async with SqliteJournal(path) as second:
        assert await second.take(["r"]) == ()
        assert await second.take(["r"]) == ()
        assert [row.event for row in await second.events("r")] == [started("r"), Slept(step=1)]
        await asyncio.gather(
            append(second, "r", [Slept(step=2)], first=2), append(second, "r", [Slept(step=3)], first=3)
        )
        assert [row.event for row in await second.events("r")] == [started("r"), *(Slept(step=n) for n in (1, 2, 3))]


async def test_many_runs_of_a_dead_process_are_taken_at_once(path: Path) -> None:
    clock = Clock()
    dead = SqliteJournal(path, now=clock, process=ELSEWHERE, pause=NEVER)
    names = [f"run {number}" for number in range(1000)]
    await asyncio.gather(*(begin(dead, new_run(name)) for name in names))
    clock.now += LEASE_SECONDS
    async with SqliteJournal(path, now=clock, pause=NEVER) as heir:
        assert await heir.take(names) == ()
        before = commits(path)
        await asyncio.gather(*(append(heir, name, [Slept(step=1)]) for name in names))
        assert commits(path) - before == 1
    await dead.close()
    assert events(path, "run 999") == [started("run 999"), Slept(step=1)]


async def test_children_are_taken_and_released_with_their_run(path: Path) -> None:
    async with SqliteJournal(path, pause=NEVER) as journal:
        for run, parent in (("a", None), ("a.1.0", "a"), ("ab", None)):
            journal.register(run, flow="f", parent=parent, spec="s")
            await journal.append(run, started(run), seq=0, state="s", status="waiting")
        await journal.signal("a.1.0", Answered(step=1, value=True))
        assert not await journal.release("a")
        assert row(path, "a.1.0").holder is not None
        await journal.discard([("a", Answered(step=1, value=True)), ("a.1.0", Answered(step=2, value=True))])
        assert not await journal.release("a")
        await journal.discard([("a.1.0", Answered(step=1, value=True))])
        assert await journal.release("a")
        assert [row(path, run).holder is None for run in ("a", "a.1.0", "ab")] == [True, True, False]
        assert await journal.take(["a"]) == ()
        assert [row(path, run).holder is None for run in ("a", "a.1.0")] == [False, False]


async def test_children_end_with_their_run(path: Path) -> None:
    async with SqliteJournal(path, pause=NEVER) as journal:
        for run, parent in (("a", None), ("a.1.0", "a"), ("a.1.0.2.0", "a.1.0"), ("ab", None)):
            journal.register(run, flow="f", parent=parent, spec="s")
            await journal.append(run, started(run), seq=0, state="s", status="waiting")
        await journal.signal("a.1.0", Answered(step=1, value=True))
        await journal.append("a", Cancelled(), seq=1, state="s", status="cancelled")
        assert [row(path, run).status for run in ("a", "a.1.0", "a.1.0.2.0", "ab")] == [*["cancelled"] * 3, "waiting"]
        assert count(path, "inbox") == 0
