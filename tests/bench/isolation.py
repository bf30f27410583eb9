"""What a call costs in a thread and in a worker process, and what tools that compute gain on several cores.

The functions alone: no machine, no model.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import Any

from flowrun.core.events import CallFunction
from flowrun.functions.python import CallPool, PythonFunctions
from flowrun.spec.model import Isolation
from tests import harmful

_CALLS = 2000
_PASSES = 3
_COMPUTING = 8
_SIZE = 2_000_000


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "tests.harmful:add": harmful.add,
    "tests.harmful:compute": harmful.compute,
    "tests.harmful:add_later": harmful.add_later,
}


def main() -> None:
    """Print the table."""
    print(f"\nA call of a function (least of {_PASSES} passes), {os.cpu_count()} cores\n")
    print(f"{'':44}{'thread':>12}{'process':>12}")
    for label, measure in {
        "def, warm, one after another, µs": _calls("tests.harmful:add"),
        "async def, warm, one after another, µs": _calls("tests.harmful:add_later"),
        "the first call, ms": _first,
        f"{_COMPUTING} calls at once that compute, s": _computing,
    }.items():
        figures = [asyncio.run(_least(measure, isolation)) for isolation in ("thread", "process")]
        print(f"{label:44}" + "".join(f"{figure:12.2f}" for figure in figures))


def _call(entrypoint: str, isolation: Isolation, **arguments: int) -> CallFunction:
    return CallFunction(
        step=1, state="s", run="r", entrypoint=entrypoint, arguments=arguments, timeout=60.0, isolation=isolation
    )


async def _least(measure: Callable[[PythonFunctions, Isolation], Awaitable[float]], isolation: Isolation) -> float:
    seconds = []
    for _ in range(_PASSES):
        pool = CallPool()
        seconds.append(await measure(PythonFunctions(_FUNCTIONS, pool), isolation))
        pool.close()
    return min(seconds)


def _calls(entrypoint: str) -> Callable[[PythonFunctions, Isolation], Awaitable[float]]:
    async def measure(functions: PythonFunctions, isolation: Isolation) -> float:
        call = _call(entrypoint, isolation, a=1, b=2)
        await functions.call(call)
        started = time.perf_counter()
        for _ in range(_CALLS):
            await functions.call(call)
        return (time.perf_counter() - started) / _CALLS * 1e6

    return measure


async def _first(functions: PythonFunctions, isolation: Isolation) -> float:
    started = time.perf_counter()
    await functions.call(_call("tests.harmful:add", isolation, a=1, b=2))
    return (time.perf_counter() - started) * 1e3


async def _computing(functions: PythonFunctions, isolation: Isolation) -> float:
    call = _call("tests.harmful:compute", isolation, n=_SIZE)
    small = _call("tests.harmful:compute", isolation, n=1)
    await asyncio.gather(*(functions.call(small) for _ in range(_COMPUTING)))
    started = time.perf_counter()
    await asyncio.gather(*(functions.call(call) for _ in range(_COMPUTING)))
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
