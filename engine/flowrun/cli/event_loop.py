"""The event loop of a verb: its end waits for nothing that functions have left behind."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from flowrun.functions.watchdog import watched_process

T = TypeVar("T")


def run_in_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as ``asyncio.run`` does, but do not wait for threads that async functions have left behind."""
    with watched_process(), asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(work)


def _new_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    loop.set_default_executor(_AbandoningExecutor(thread_name_prefix="asyncio"))
    return loop


class _AbandoningExecutor(ThreadPoolExecutor):
    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no further work, and wait for none."""
        super().shutdown(wait=False, cancel_futures=True)
