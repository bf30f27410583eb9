"""The cost of durability: flowrun with and without its journal, a bare sqlite3 loop, LangGraph and DBOS.

A transition is counted as in ``transitions``: a state that is left. The floor writes as many rows, of the same size, in
as many synced transactions as flowrun did, and does nothing else.
"""

import json
import os
import sqlite3
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

import msgspec

from flowrun.core.events import Replied, Returned
from flowrun.core.messages import Reply, ToolCall
from tests.bench.peers import python_for

_MEASURE: Final = Path(__file__).parent / "engines" / "measure_durable.py"
_PASSES: Final = 5
_CASES: Final = (("1 run, 100 rounds", 100, 1), ("1,000 runs, 10 rounds", 10, 1000))
_SYNCS: Final = 200
_AIM: Final = 3.0
_AIM_PEERS: Final = 20.0
_CALL: Final = (ToolCall(id="call00001", name="add", arguments='{"a": 1, "b": 2}'),)
_BODIES: Final = [
    msgspec.json.encode(event).decode()
    for event in (Replied(step=1, reply=Reply(tool_calls=_CALL, finish_reason="tool_calls")), Returned(step=2, value=3))
]


class Setup(NamedTuple):
    """An engine in one of its modes, and where it is installed (nothing: here)."""

    label: str
    engine: str
    mode: str
    peer: str = ""
    packages: tuple[str, ...] = ()


class Pass(msgspec.Struct, frozen=True):
    """The cost of one pass per transition: microseconds, and bytes written. ``commits`` and ``rows`` are per pass."""

    wall: float
    cpu: float
    written: float
    commits: int
    rows: int


_MEMORY: Final = Setup("undurable", "flowrun_durable", "memory")
_DURABLE: Final = Setup("durable", "flowrun_durable", "idempotent")
_ONCE: Final = Setup("with intents", "flowrun_durable", "once")
_LANGGRAPH: Final = ("langgraph", ("langgraph==1.2.22", "langgraph-checkpoint-sqlite==3.1.2"))
_DBOS: Final = ("dbos", ("dbos==3.4.0",))
_PEERS: Final = (
    Setup("LangGraph, sync", "langgraph_sqlite", "sync", *_LANGGRAPH),
    Setup("LangGraph, async", "langgraph_sqlite", "async", *_LANGGRAPH),
    Setup("DBOS", "dbos_steps", "shipped", *_DBOS),
    Setup("DBOS, WAL NORMAL", "dbos_steps", "normal", *_DBOS),
)


def main() -> None:
    """Print the tables."""
    print(
        f"\nDurability, microseconds a transition (medians of {_PASSES} interleaved passes, each with its own file)\n"
    )
    print("`durable` has idempotent tools; for others the intent of each call is written and synced before it, too;")
    print("`cost` is durable less undurable, `fsync` what a synced page takes just now, `bytes` are of a transition\n")
    columns = ("undurable", "durable", "with intents", "floor", "cost/floor", "aim", "fsync", "commits", "bytes")
    print(f"{'':23}" + "".join(f"{column:>{len(column) + 3}}" for column in columns))
    for label, rounds, live in _CASES:
        _print_cost(label, rounds, live)
    _print_peers("1 run, 10 rounds", 10, 1, passes=3)
    _print_peers("1 run, 100 rounds", 100, 1, passes=1)
    _print_peers("1,000 runs, 3 rounds", 3, 1000, passes=1)


def _print_cost(label: str, rounds: int, live: int) -> None:
    transitions = live * (2 * rounds + 1)
    plain: list[Pass] = []
    durable: list[Pass] = []
    once: list[Pass] = []
    floors: list[float] = []
    syncs: list[float] = []
    for _ in range(_PASSES):
        plain.append(_measure(_MEMORY, rounds, live))
        durable.append(_measure(_DURABLE, rounds, live))
        floors.append(_floor(durable[-1], live) / transitions)
        once.append(_measure(_ONCE, rounds, live))
        syncs.append(_sync())
    cost = median((ours.wall - bare.wall) / floor for ours, bare, floor in zip(durable, plain, floors, strict=True))
    walls = [median(each.wall for each in passes) for passes in (plain, durable, once)]
    aim = f"{_AIM:.1f}" if live > 1 else ""
    last = durable[-1]
    print(f"{label:23}{walls[0]:12.1f}{walls[1]:10.1f}{walls[2]:15.1f}{median(floors):8.1f}", end="")
    print(f"{cost:13.2f}{aim:>6}{median(syncs):8.0f}{last.commits:10}{last.written:8.0f}")


def _print_peers(label: str, rounds: int, live: int, *, passes: int) -> None:
    often = f"medians of {passes} interleaved passes" if passes > 1 else "one pass"
    print(f"\n{label}, {often}{'':4}{'µs a transition':>20}{'times flowrun':>15}{'aim':>6}{'bytes a transition':>20}\n")
    setups = (_ONCE, *_PEERS)
    measured = [[_measure(setup, rounds, live) for setup in setups] for _ in range(passes)]
    for place, setup in enumerate(setups):
        wall = median(each[place].wall for each in measured)
        times = median(each[place].wall / each[0].wall for each in measured)
        written = median(each[place].written for each in measured)
        name = f"flowrun, {setup.label}" if setup is _ONCE else setup.label
        compared = f"{times:15.1f}{_AIM_PEERS if live > 1 else '':>6}" if setup is not _ONCE else " " * 21
        print(f"{name:40}{wall:16,.1f}{compared}{written:20,.0f}")


def _measure(setup: Setup, rounds: int, live: int) -> Pass:
    python = python_for(setup.peer, *setup.packages) if setup.peer else Path(sys.executable)
    command = [str(python), str(_MEASURE), setup.engine, setup.mode, str(rounds), str(live)]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return msgspec.convert(json.loads(printed.splitlines()[-1]), Pass)


def _floor(like: Pass, live: int) -> float:
    """Return the microseconds in which a bare loop writes the same amount as a pass of flowrun."""
    rows = ((f"{number % live:012x}", number // live, 1.7e9, "ask", _BODIES[number % 2]) for number in range(like.rows))
    size = -(-like.rows // like.commits)
    with TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "database", isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE events (run TEXT, seq INT, at REAL, state TEXT, body, PRIMARY KEY (run, seq))")
        begun = time.perf_counter()
        while part := list(islice(rows, size)):
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", part)
            connection.execute("COMMIT")
        spent = time.perf_counter() - begun
        connection.close()
    return spent * 1e6


def _sync() -> float:
    """Return the microseconds that it takes now to write a page and sync it to the disk."""
    with TemporaryDirectory() as folder:
        file = os.open(Path(folder) / "file", os.O_CREAT | os.O_WRONLY)
        times = [_timed(file) for _ in range(_SYNCS)]
        os.close(file)
    return median(times)


def _timed(file: int) -> float:
    begun = time.perf_counter()
    os.write(file, bytes(4096))
    os.fdatasync(file)
    return (time.perf_counter() - begun) * 1e6


if __name__ == "__main__":
    main()
