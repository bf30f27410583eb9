"""The server process: listens, serves an application until a signal ends it, and lets runs end before that."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from flowrun.errors import UsageError
from flowrun.serving.served_runs import ServedRuns

_CLOSE_SECONDS: Final = 2
"""How long responses under way may take to end, once the runs have ended."""

_BACKLOG: Final = 2048


ABORT: Final = "flowrun.abort"
"""The member of the ``state`` of a request's scope that ends its connection at once, whatever is still to be sent."""

_LEAST_SECONDS: Final = 10.0
"""The least time that a client has to read what was sent."""


class _Server(uvicorn.Server):
    """uvicorn without its handling of signals: what they mean is decided here."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _connections(seconds: float) -> type[asyncio.Protocol]:
    """Return uvicorn's class of connections, of which each ends if its client does not read for some seconds.

    Closing such a connection would wait for its client. What is meant is the time in which the client does not read
    what was sent down to a few kilobytes.
    """

    class Connection(AutoHTTPProtocol):  # type: ignore[valid-type, misc]
        app_state: dict[str, Any]
        _stuck: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self.app_state = {**self.app_state, ABORT: transport.abort}

        def pause_writing(self) -> None:
            super().pause_writing()
            self._stuck = asyncio.get_running_loop().call_later(seconds, self.transport.abort)

        def resume_writing(self) -> None:
            super().resume_writing()
            self._reads()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self._reads()

        def _reads(self) -> None:
            if self._stuck is not None:
                self._stuck.cancel()

    return Connection


class _EndsEventStreams:
    """ASGI middleware for responses to GET that are still open when the server stops: a stream of events has no end.

    The application sees that its client has gone, and the client a response that is complete.
    """

    def __init__(self, app: ASGIApp, stopping: asyncio.Event) -> None:
        self._app = app
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "GET":
            await self._app(scope, receive, send)
            return
        open_ = False

        async def send_on(message: Message) -> None:
            nonlocal open_
            open_ = message["type"] == "http.response.start" or message.get("more_body", False)
            await send(message)

        async def receive_until_stopped() -> Message:
            received, stopped = asyncio.create_task(_received(receive)), asyncio.create_task(self._stopping.wait())
            try:
                await asyncio.wait({received, stopped}, return_when=asyncio.FIRST_COMPLETED)
                return received.result() if received.done() else {"type": "http.disconnect"}
            finally:
                received.cancel()
                stopped.cancel()

        await self._app(scope, receive_until_stopped, send_on)
        if open_ and self._stopping.is_set():
            await send({"type": "http.response.body", "body": b""})


async def _received(receive: Receive) -> Message:
    return await receive()


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens on an address. The port 0 is any free one.

    Raises:
        UsageError: the address is taken, or is not of this machine.
    """
    try:
        [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, kind, protocol)  # without TCP's number asyncio does not set TCP_NODELAY
    except UnicodeError as exc:  # Python encodes a name by itself, and not every one can be (RFC 5890)
        raise UsageError(f"--host {host}: this is no name of a host") from exc
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


async def serve(
    app: ASGIApp, listener: socket.socket, runs: ServedRuns, *, drain: float, timeout: float = 600.0
) -> None:
    """Serve an application until SIGTERM or SIGINT; then begin no further run, and give those in progress time.

    A second signal ends the server at once.

    Args:
        drain: the seconds that runs in progress get to end, or to wait.
        timeout: the seconds after which a client loses its connection that does not read what is sent; at least 10.
    """
    stopping_streams = asyncio.Event()
    config = uvicorn.Config(
        _EndsEventStreams(app, stopping_streams),
        http=_connections(max(timeout, _LEAST_SECONDS)),
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
        stopping_streams.set()
        server.should_exit = True

    def on_signal() -> None:
        nonlocal stopping
        if stopping is None:
            stopping = asyncio.create_task(stop())
        else:
            runs.stop_waiting()
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
        runs.close_readers()  # in no thread: functions may have left none free
