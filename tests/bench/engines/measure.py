"""Run in an engine's own Python: ``measure.py ENGINE ROUNDS SECONDS [LIVE]`` prints microseconds a transition.

The least of the passes is printed: what the machine's other work adds is no engine's.
"""

import asyncio
import importlib
import sys
import time


async def _measure(engine: str, rounds: int, seconds: float, live: int) -> float:
    converse = importlib.import_module(engine).converse
    assert await converse(rounds) == "done"
    best = float("inf")
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        begun = time.perf_counter()
        if live == 1:
            await converse(rounds)
        else:
            await asyncio.gather(*(converse(rounds) for _ in range(live)))
        best = min(best, (time.perf_counter() - begun) / live / (2 * rounds + 1))
    return best * 1e6


if __name__ == "__main__":
    name, rounds, seconds, *rest = sys.argv[1:]
    print(asyncio.run(_measure(name, int(rounds), float(seconds), int(rest[0]) if rest else 1)))
