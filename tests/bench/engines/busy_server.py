"""``python busy_server.py PLACES COUNT [RETRY_AFTER]``: a server that takes some requests at once and refuses others.

It has the chat API. A request takes 50 ms; while ``PLACES`` are being worked on, others get HTTP 429. It prints its
port, and after ``COUNT`` replies the seconds from the first tenth of them to the last, and how many it refused.
"""

import asyncio
import json
import sys
import time

SECONDS = 0.05
REPLY = {"choices": [{"message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]}
MODELS = {"object": "list", "data": [{"id": "busy"}]}
REFUSED = {"error": {"message": "slow down"}}


class Server:
    """The server, with what it has counted."""

    def __init__(self, places: int, count: int, retry_after: str) -> None:
        self.places = places
        self.count = count
        self.more = f"retry-after: {retry_after}\r\n" if retry_after else ""
        self.busy = self.replies = self.refused = 0
        self.begun = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            await reader.readexactly(int(head.partition("content-length:")[2].split("\r\n")[0] or 0))
            if head.startswith("get"):
                writer.write(answer(200, MODELS))
            elif self.busy >= self.places:
                self.refused += 1
                writer.write(answer(429, REFUSED, self.more))
            else:
                self.busy += 1
                await asyncio.sleep(SECONDS)
                self.busy -= 1
                self.replied()
                writer.write(answer(200, REPLY))
        writer.close()

    def replied(self) -> None:
        """Count a reply."""
        self.replies += 1
        if self.replies == self.count // 10:
            self.begun = time.monotonic()
        if self.replies == self.count:
            print(time.monotonic() - self.begun, self.refused, flush=True)


def answer(status: int, body: object, more: str = "") -> bytes:
    """Return an HTTP answer."""
    text = json.dumps(body)
    head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n{more}\r\n"
    return (head + text).encode()


async def main(places: str, count: str, retry_after: str = "") -> None:
    """Serve until this process is ended."""
    server = Server(int(places), int(count), retry_after)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=1024)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


asyncio.run(main(*sys.argv[1:]))
