"""Virtual time: the order is preserved, idle time is skipped, and real work takes real time."""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

from flowrun.testing.clock import VirtualLoop

T = TypeVar("T")


def run(loop: VirtualLoop, work: Coroutine[Any, Any, T]) -> T:
    try:
        return loop.run_until_complete(work)
    finally:
        loop.close()


def test_a_year_passes_at_once_and_in_order() -> None:
    """In real time it would not pass before pytest's timeout."""
    seen: list[str] = []

    async def sleep(name: str, days: float) -> None:
        await asyncio.sleep(days * 86_400)
        seen.append(name)

    async def sleep_all() -> float:
        started = asyncio.get_running_loop().time()
        await asyncio.gather(sleep("year", 365), sleep("day", 1), sleep("week", 7))
        return asyncio.get_running_loop().time() - started

    assert run(VirtualLoop(), sleep_all()) == pytest.approx(365 * 86_400, abs=5)
    assert seen == ["day", "week", "year"]


def test_a_timeout_ends_a_sleep_that_is_longer() -> None:
    async def sleep_too_long() -> str:
        try:
            async with asyncio.timeout(60):
                await asyncio.sleep(61)
        except TimeoutError:
            return "too long"
        return "in time"

    assert run(VirtualLoop(), sleep_too_long()) == "too long"


def test_real_work_runs_in_real_time_under_its_own_timeout() -> None:
    loop = VirtualLoop()
    release = threading.Event()

    async def work() -> str:
        with loop.real_time():
            done = asyncio.get_running_loop().run_in_executor(None, release.wait, 30)
            asyncio.get_running_loop().call_later(0.01, release.set)
            async with asyncio.timeout(30):
                return "done" if await done else "given up"

    assert run(loop, work()) == "done"
    assert not loop.at_work


def test_the_threads_of_the_loop_are_joined_in_real_time() -> None:
    """Python's own runner allows them 300 s of the loop's time."""
    release = threading.Event()

    async def leave_a_thread() -> None:
        asyncio.get_running_loop().run_in_executor(None, release.wait)
        threading.Timer(0.1, release.set).start()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(leave_a_thread())
    assert release.is_set()
