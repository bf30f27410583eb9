"""Orders lives, reads a copy of the journal after each, and checks that no effect was lost or repeated."""

import random
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import msgspec

from flowrun.core.events import CallStarted, Event, Failed, Replied, Returned, Started
from flowrun.core.graph import Graph
from flowrun.core.machine import Run
from flowrun.core.recovery import recover
from flowrun.spec.model import JSON
from tests.torture.worker import End, Order
from tests.torture.world import Line, graph, read_ledger

_ROOT: Final = Path(__file__).parents[2]
_EVENTS: Final = """
    SELECT events.no, runs.id, seq, body, status FROM events JOIN runs ON runs.no = events.run ORDER BY events.no
"""
FILES: Final = ("journal.db", "journal.db-wal")
_DECODE: Final = msgspec.json.Decoder(Event).decode
_FLOW: Final = graph()
Place = tuple[str, int, int]
"""A run, a step, and the index of an effect in it."""


class StoredEvent(NamedTuple):
    """A row of the journal's table of events."""

    no: int
    run: str
    seq: int
    body: str


class Nursery:
    """A process that forks lives."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.torture.worker"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=_ROOT)
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()

    def order(self, order: Order) -> None:
        """Order a life; ``end`` waits for its end."""
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(order) + b"\n")
        self._process.stdin.flush()

    def end(self) -> End:
        """Wait for the end of the ordered life, and return it."""
        assert self._process.stdout is not None
        return msgspec.json.decode(self._process.stdout.readline(), type=End)


class Judge:
    """Checks the lives in one folder, one after the other."""

    def __init__(self, folder: Path, *, all_idempotent: bool = False) -> None:
        self.folder = folder
        self.life = 0
        self.drivers = 0
        self._harmless = ("note", "pay", "stamp", "settle") if all_idempotent else ("note",)
        self.stored: list[StoredEvent] = []
        self.lines: list[Line] = []
        self._answered: set[Place] = set()
        self._replied: set[Place] = set()
        self._began: set[Place] = set()
        self._events: dict[str, list[Event]] = {}

    def judge(self) -> int:
        """Check the effects since the last life, and return the number of new events.

        No stored event is lost or changed; no effect with a stored result was performed again; and every performed
        effect follows from stored events, and from its stored intent if it is a call that may be made only once.
        """
        before = self.stored
        self.stored, statuses = self._read()
        assert self.stored[: len(before)] == before, "what was kept is not any more"
        lines = read_ledger(self.folder / "ledger")
        new_lines, self.lines = lines[len(self.lines) :], lines
        self._judge_repetitions(new_lines)
        for _, run, _, body in self.stored[len(before) :]:
            self._store_event(run, _DECODE(body))
        self._judge_causes(new_lines)
        self._judge_drivers(new_lines)
        self._judge_statuses(statuses)
        self.life += 1
        return len(self.stored) - len(before)

    def _read(self) -> tuple[list[StoredEvent], dict[str, str]]:
        return stored_events(self.folder)

    def _graph_of(self, run: str) -> Graph:
        """Return the flow of a run: that of a child is known by its inputs."""
        if "." not in run:
            return _FLOW
        events = self._events.get(run, ())
        inputs = events[0].inputs if events and isinstance(events[0], Started) else {}
        return _FLOW.flows[next((f"#{name}" for name in ("swift", "slow") if name in inputs), "#part")]

    def _store_event(self, run: str, event: Event) -> None:
        self._events.setdefault(run, []).append(event)
        match event:
            case CallStarted(step=step, index=index):
                self._began.add((run, step, index))
            case Returned(step=step, index=index) | Failed(step=step, index=index):
                place = (run, step, index)
                assert place not in self._answered, f"{place} was answered twice"
                self._answered.add(place)
            case Replied(step=step):
                assert (run, step, 0) not in self._replied, f"round {step} of {run} was answered twice"
                self._replied.add((run, step, 0))

    def _judge_repetitions(self, lines: Sequence[Line]) -> None:
        asked = [line.place for line in lines if line.what == "ask"]
        begun = [line.place for line in lines if line.what == "begin"]
        assert not self._replied & set(asked), "a round was asked again though its reply was kept"
        assert not self._answered & set(begun), "a call was made again though its value was kept"

    def _judge_causes(self, lines: Sequence[Line]) -> None:
        once = {line.place for line in lines if line.what == "begin" and line.tool not in self._harmless}
        assert once <= self._began, f"calls were made whose intent is not kept: {once - self._began}"
        steps = {run: self.run(run).step for run in {line.run for line in lines}}
        early = [line for line in lines if line.what in ("ask", "begin") and line.step > steps[line.run]]
        assert not early, f"done, though what it follows from is not kept: {early}"

    def _judge_drivers(self, lines: Sequence[Line]) -> None:
        """Check that each run was driven by one process at a time."""
        self.drivers = len({line.pid for line in lines})
        for run in {line.run for line in lines}:
            drivers = [pid for pid, _ in groupby(line.pid for line in lines if line.run == run)]
            assert len(drivers) == len(set(drivers)), f"{run} was driven by two processes at once"

    def _judge_statuses(self, statuses: Mapping[str, str]) -> None:
        """Check that lists show the runs that have ended, and no others, as ended."""
        for run, status in statuses.items():
            outcome = self.run(run).outcome
            ended = ("running", "sleeping", "needs_attention") if outcome is None else (outcome.status,)
            assert status in ended, f"{run} is listed as {status}, and not as {ended}"

    def run(self, run: str) -> Run:
        """Return a run, recovered from its stored events."""
        return recover(self._graph_of(run), self._events.get(run, ())).run

    def outputs(self) -> dict[str, JSON]:
        """Return the outputs of all runs without their children; each must have succeeded."""
        outputs: dict[str, JSON] = {}
        for name in (name for name in self._events if "." not in name):
            outcome = self.run(name).outcome
            assert outcome is not None, f"{name} has not ended"
            assert outcome.status == "succeeded", f"{name}: {outcome}"
            outputs[name] = outcome.output
        return outputs

    def judge_calls(self) -> None:
        """Check that only idempotent calls were repeated without a resolution, and at most once for each life."""
        begun = Counter(line.place for line in self.lines if line.what == "begin" and line.tool not in self._harmless)
        allowed = Counter(line.place for line in self.lines if line.what == "again")
        too_often = {place: count for place, count in begun.items() if count > 1 + allowed[place]}
        assert not too_often, f"calls that were made too often: {too_often}"
        for what in ("ask", "begin"):
            each = Counter((line.life, line.pid, line.place) for line in self.lines if line.what == what)
            assert set(each.values()) == {1}, "something was done twice by one process"


def done(lines: Sequence[Line]) -> set[tuple[Any, ...]]:
    """Return all effects, without times and counts: rounds, and calls with their values."""
    rounds = {("ask", line.run, line.step) for line in lines if line.what == "ask"}
    return rounds | {(line.key, line.attempt, line.tool, line.value) for line in lines if line.what == "end"}


def stored_events(folder: Path) -> tuple[list[StoredEvent], dict[str, str]]:
    """Return a journal's events, in the order of writing, and the statuses of its runs.

    A copy is read, so that the next life finds the journal as the last one left it.
    """
    with_copy = folder / "copy"
    copy_journal(folder, with_copy)
    if not (with_copy / "journal.db").exists():
        return [], {}
    connection = sqlite3.connect(with_copy / "journal.db")
    try:
        made = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'events'").fetchone()[0]
        rows = connection.execute(_EVENTS).fetchall() if made else []
        return [StoredEvent(*row[:4]) for row in rows], {run: status for _, run, _, _, status in rows}
    finally:
        connection.close()


def copy_journal(folder: Path, to: Path) -> None:
    """Copy the journal's files while no process writes."""
    shutil.rmtree(to, ignore_errors=True)
    to.mkdir(parents=True)
    for name in FILES:
        if (folder / name).exists():
            shutil.copyfile(folder / name, to / name)


def tear(folder: Path, copy: Path, chance: random.Random) -> None:
    """Damage the end of a copied -wal as a loss of power can: it ends early, or a page of it was not written.

    The frames that SQLite has moved to the main file were synced before, and stay intact; the -shm file of the original
    has their number (https://www.sqlite.org/walformat.html).
    """
    wal = copy / "journal.db-wal"
    data = bytearray(wal.read_bytes())
    moved = int.from_bytes((folder / "journal.db-shm").read_bytes()[96:100], sys.byteorder)
    frame = 24 + int.from_bytes(data[8:12])
    place = chance.randrange(32 + moved * frame, len(data))
    if chance.random() < 0.5:
        del data[place:]
    else:
        data[place : place + frame] = bytes(len(data[place : place + frame]))
    wal.write_bytes(data)


class Moment:
    """Chooses when a life is killed: later than before if the last one wrote no event."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._patience = 1.0

    def order(self, folder: Path, life: int, **more: Any) -> Order:
        """Order a life that is killed from outside, or at a point of its own work."""
        seed = self._chance.randrange(2**32)
        if self._chance.random() < 0.5:
            more["kill_after"] = self._chance.uniform(0.0, 0.3 * self._patience)
        else:
            more["die_at"] = self._chance.randrange(1, int(400 * self._patience))
        return Order(folder=str(folder), life=life, seed=seed, **more)

    def learn(self, progress: int) -> None:
        """Adjust to the number of events that the last life wrote."""
        self._patience = 1.0 if progress else 2.0 * self._patience
