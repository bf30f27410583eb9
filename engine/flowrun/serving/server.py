"""The server process: listens, serves an application until a signal ends it, and lets runs end before that."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from flowrun.errors import UsageError
from flowrun.serving.served_runs import ServedRuns

_CLOSE_SECONDS: Final = 2
"""How long responses under way may take to end, once the runs have ended."""

_BACKLOG: Final = 2048


class _Server(uvicorn.Server):
    """uvicorn without its handling of signals: what they mean is decided here."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address. The port 0 is any free one.

    Raises:
        UsageError: the address is taken, or is not of this machine.
    """
    try:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, kind, protocol)  # asyncio sends at once only where it is told that it is TCP
    except OSError as exc:
        raise UsageError(f"--host {host}: {exc.strerror}") from exc
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as exc:
        listener.close()
        raise UsageError(f"cannot listen on {host}, port {port}: {exc.strerror}; choose another one by --port") from exc
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the URL of a server that listens there."""
    host, port = listener.getsockname()[:2]
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{name}:{port}"


async def serve(app: ASGIApp, listener: socket.socket, runs: ServedRuns, *, drain: float) -> None:
    """Serve an application until SIGTERM or SIGINT; then begin no further run, and give those in progress time.

    A second signal ends the server at once.

    Args:
        drain: the seconds that runs in progress get to end, or to wait.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=_CLOSE_SECONDS,
    )
    server = _Server(config)
    loop = asyncio.get_running_loop()
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stopping: asyncio.Task[None] | None = None

    async def stop() -> None:
        await runs.drain(drain)
        server.should_exit = True

    def on_signal() -> None:
        nonlocal stopping
        if stopping is None:
            stopping = asyncio.create_task(stop())
        else:
            server.should_exit = server.force_exit = True

    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in signals]
    for number in signals:
        loop.add_signal_handler(number, on_signal)
    try:
        await serving
    finally:
        for number, handler in zip(signals, before, strict=True):
            loop.remove_signal_handler(number)
            signal.signal(number, handler)
        if stopping is not None:
            stopping.cancel()
        runs.close()
