"""SIGTERM ends durable runs in order: calls under way get time to return, so that no one is left in doubt.

systemd, Slurm and Kubernetes send it, and kill the process some time later.
"""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from flowrun.runtime.session import Session

T = TypeVar("T")


async def drain_on_sigterm(session: Session, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of work on a session. SIGTERM drains the session first; a second one ends it at once.

    Raises:
        KeyboardInterrupt: the work was ended by SIGTERM.
    """
    loop, before = asyncio.get_running_loop(), signal.getsignal(signal.SIGTERM)
    working = asyncio.ensure_future(work)
    draining: asyncio.Future[None] | None = None

    def terminate() -> None:
        nonlocal draining
        if draining is None:
            draining = asyncio.ensure_future(session.drain())
            draining.add_done_callback(lambda _: working.cancel())
        else:
            draining.cancel()

    try:
        loop.add_signal_handler(signal.SIGTERM, terminate)
    except (ValueError, RuntimeError):  # not in the main thread, which alone gets signals
        return await working
    try:
        return await working
    except asyncio.CancelledError:
        if draining is not None and draining.done():
            raise KeyboardInterrupt from None
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)
