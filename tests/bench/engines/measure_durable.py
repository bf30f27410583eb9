"""Run in an engine's own Python: ``measure_durable.py ENGINE MODE ROUNDS LIVE`` prints the cost of one pass, as JSON.

Microseconds and microseconds of processor time a transition, bytes written a transition, and where the engine knows
them its commits and its rows.
"""

import asyncio
import importlib
import json
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory


async def _measure(engine: str, mode: str, rounds: int, live: int) -> dict[str, float]:
    with TemporaryDirectory() as folder:
        one = importlib.import_module(engine).Engine(mode, rounds, Path(folder) / "database")
        if hasattr(one, "open"):
            await one.open()
        assert await one.converse(0) == (2 * rounds + 2, "done")
        commits, rows, written = one.commits, one.events, _written()
        begun, processor = time.perf_counter(), time.process_time()
        held = await asyncio.gather(*(one.converse(number) for number in range(1, live + 1)))
        wall, cpu = time.perf_counter() - begun, time.process_time() - processor
        commits, rows = one.commits - commits, one.events - rows
        await one.close()
        written = _written() - written
    assert set(held) == {(2 * rounds + 2, "done")}
    count = live * (2 * rounds + 1)
    figures = {"wall": wall / count * 1e6, "cpu": cpu / count * 1e6, "written": written / count}
    return figures | {"commits": commits, "rows": rows}


def _written() -> int:
    """Return the bytes that this process has written to the file system so far."""
    return int(Path("/proc/self/io").read_text().partition("wchar: ")[2].split()[0])


if __name__ == "__main__":
    name, mode, rounds, live = sys.argv[1:]
    print(json.dumps(asyncio.run(_measure(name, mode, int(rounds), int(live)))))
