"""The socket of a server."""

import asyncio
import socket

import pytest
import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

pytest.importorskip("uvicorn", reason="the packages of servers are not installed")

from flowrun.errors import UsageError
from flowrun.serving.server import ABORT, _connections, address_of, listen


def test_what_is_written_is_sent_at_once() -> None:
    """Else the end of each response waits 40 ms for the client's acknowledgement of its beginning."""

    async def accepted() -> int:
        found: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        with listen("127.0.0.1", 0) as listener:
            async with await asyncio.start_server(note, sock=listener):
                _, writer = await asyncio.open_connection(*listener.getsockname())
                writer.close()
                return await found

    assert asyncio.run(accepted()) != 0


async def left_over(app: ASGIApp, *, seconds: float) -> int:
    """Return the connections that a server still has a second after a client has asked that reads nothing."""
    asked = asyncio.Event()

    async def note(scope: Scope, receive: Receive, send: Send) -> None:
        asked.set()
        await app(scope, receive, send)

    config = uvicorn.Config(note, http=_connections(seconds), lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    connections = server.server_state.connections
    with listen("127.0.0.1", 0) as listener, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        client.connect(listener.getsockname())
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(20):
            await asked.wait()
            for _ in range(100):
                await asyncio.sleep(0.01)
            left = len(connections)
            for connection in connections:
                assert connection.transport is not None
                connection.transport.abort()
            server.should_exit = True
            await serving
    return left


async def writes_much(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(b"x" * 30_000_000)(scope, receive, send)


async def aborts(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    scope["state"][ABORT]()
    await receive()


@pytest.mark.parametrize(
    ("app", "seconds", "left"),
    [
        pytest.param(writes_much, 0.1, 0, id="its time is over"),
        pytest.param(writes_much, 60, 1, id="it still has time"),
        pytest.param(aborts, 60, 0, id="the application ends it"),
    ],
)
def test_a_client_that_does_not_read_loses_its_connection(app: ASGIApp, seconds: float, left: int) -> None:
    assert asyncio.run(left_over(app, seconds=seconds)) == left


@pytest.mark.parametrize("host", ["..", "a" * 64])
def test_a_host_that_is_none(host: str) -> None:
    with pytest.raises(UsageError, match=f"--host {host}: this is no name of a host"):
        listen(host, 0)


def test_an_address_that_is_taken() -> None:
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        assert address_of(listener) == f"http://127.0.0.1:{port}"
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1, port {port}: .*; choose another one"):
            listen("127.0.0.1", port)
