"""The socket of a server."""

import asyncio
import socket

import pytest

pytest.importorskip("uvicorn", reason="the packages of servers are not installed")

from flowrun.errors import UsageError
from flowrun.serving.server import address_of, listen


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
