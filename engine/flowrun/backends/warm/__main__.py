"""``python -m flowrun.backends.warm``: holds an engine. Its order is JSON on stdin.

It reports its start as JSON, a line each, to a descriptor that the order names. What others print goes to its log.
"""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import msgspec

from flowrun.backends.vllm.backend import VllmBackend
from flowrun.backends.warm.host import Host
from flowrun.backends.warm.locks import EngineLock
from flowrun.backends.warm.orders import Order, Said
from flowrun.backends.warm.records import lock_path, stamps_of
from flowrun.collector import calm_collector
from flowrun.errors import FlowrunError


class _Reports:
    """Reports the start to the command that waits for it."""

    def __init__(self, file: int) -> None:
        self._file = file

    def say(self, said: Said) -> None:
        """Report something; nothing happens when nobody reads any more."""
        if self._file != -1:
            os.write(self._file, msgspec.json.encode(said) + b"\n")

    def close(self) -> None:
        """Report nothing from now on."""
        if self._file != -1:
            os.close(self._file)
            self._file = -1


def main() -> None:
    """Start an engine, and hold it until it is to end."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    for file in (order.lock, order.reports):
        os.set_inheritable(file, False)
    if os.fork():  # a child of nobody: what ends with a command does not end it
        os._exit(0)
    lock = EngineLock(lock_path(order.held.digest), order.lock)
    reports = _Reports(order.reports)
    for close in (lock.close, reports.close):  # a process of vLLM that outlives this one holds neither
        os.register_at_fork(after_in_child=close)
    reports.say(Said(pid=os.getpid()))
    try:
        asyncio.run(_hold(order, lock, reports))
    except FlowrunError as exc:
        reports.say(Said(error=str(exc)))
        sys.exit(1)
    finally:
        lock.release()


async def _hold(order: Order, lock: EngineLock, reports: _Reports) -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    backend = VllmBackend(
        order.model,
        base_dir=Path(order.folder),
        progress=lambda text: reports.say(Said(stage=text)),
        note=lambda text: reports.say(Said(note=text)),
        adapters=order.adapters,
    )
    await backend.start()
    calm_collector()
    try:
        held = order.held.with_commits(stamps_of(order.model, order.adapters, folder=Path(order.folder)))
        host = Host(backend, held, idle=order.idle, lock=lock)
        loop.add_signal_handler(signal.SIGTERM, host.stop)

        def announce() -> None:
            reports.say(Said(ready=True))
            reports.close()

        await host.run(announce)
    finally:
        await backend.stop()


if __name__ == "__main__":
    with contextlib.suppress(asyncio.CancelledError):  # told to end while it started
        main()
