"""``python -m flowrun.backends.warm``: holds an engine. Its order is JSON on stdin; what it has to say of its start is
JSON on stdout, a line each.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

import msgspec

from flowrun.backends.vllm.backend import VllmBackend
from flowrun.backends.warm.host import Host
from flowrun.backends.warm.orders import Order, Said
from flowrun.errors import FlowrunError


def main() -> None:
    """Start an engine, and hold it until it is to end."""
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    if os.fork():  # a child of nobody: what ends with a command does not end it
        os._exit(0)
    _say(Said(pid=os.getpid()))
    try:
        asyncio.run(_hold(order))
    except FlowrunError as exc:
        _say(Said(error=str(exc)))
        sys.exit(1)


async def _hold(order: Order) -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    backend = VllmBackend(
        order.model,
        base_dir=Path(order.folder),
        progress=lambda text: _say(Said(stage=text)),
        note=lambda text: _say(Said(note=text)),
        adapters=order.adapters,
    )
    await backend.start()
    try:
        host = Host(backend, order.held, idle=order.idle)
        loop.add_signal_handler(signal.SIGTERM, host.stop)
        await host.run(_announce)
    finally:
        await backend.stop()


def _announce() -> None:
    """Say that the engine is ready; from then on nobody reads."""
    _say(Said(ready=True))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)


def _say(said: Said) -> None:
    os.write(1, msgspec.json.encode(said) + b"\n")


if __name__ == "__main__":
    main()
