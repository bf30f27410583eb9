"""The pages of a journal, served in this process, and a client that sends what a test says."""

import asyncio
import http.client
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import urlencode, urlsplit

import uvicorn
from starlette.applications import Starlette

from flowrun.runtime.session import Session
from flowrun.serving.gate import Access, Gate
from flowrun.serving.pages.routes import page_routes
from flowrun.serving.served_runs import ServedRuns
from flowrun.serving.server import address_of, listen
from flowrun.serving.shown_flows import ShownFlows

T = TypeVar("T")


class Answer(NamedTuple):
    """What a server responded."""

    status: int
    headers: Mapping[str, str]
    text: str


class Pages(NamedTuple):
    """A server of pages. ``drain`` has it begin its end."""

    address: str
    drain: Callable[[], None]

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, **headers)

    def post(self, path: str, fields: Mapping[str, str] | Sequence[tuple[str, str]] = (), **headers: str) -> Answer:
        """Send a form as a browser does for a page of the server itself; ``headers`` may say otherwise."""
        given = {"Origin": self.address, "Content-Type": "application/x-www-form-urlencoded", **headers}
        return self.ask("POST", path, urlencode(fields), **given)

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> Answer:
        with self.open(method, path, body, **headers) as response:
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read().decode())

    @contextmanager
    def open(
        self, method: str, path: str, body: str | None = None, **headers: str
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(urlsplit(self.address).netloc, timeout=30)
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            yield connection.getresponse()
        finally:
            connection.close()

    def wait_for(self, path: str, text: str, *, seconds: float = 20) -> str:
        """Return a page once it has a text."""

        def look() -> str | None:
            page = self.get(path).text
            return page if text in page else None

        return until(look, seconds)


def until(look: Callable[[], T | None], seconds: float = 20) -> T:
    """Return what a function finds, once it finds something."""
    deadline = time.monotonic() + seconds
    while (found := look()) is None:
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


@contextmanager
def served_pages(
    journal: Path, access: Access | None = None, *, environ: Mapping[str, str] | None = None
) -> Iterator[Pages]:
    """Serve the pages of a journal in a thread, as ``flowrun ui`` does, until the block ends."""
    access = Access() if access is None else access
    listener = listen("127.0.0.1", 0)
    ready, stops = threading.Event(), list[Callable[[], None]]()

    async def serve() -> None:
        async with Session(journal=journal, environ=environ, drain=0.5) as session:
            flows = ShownFlows(os.environ if environ is None else environ)
            runs = ServedRuns(session, flows, max_live=8, outlives_requests=True)
            app = Gate(Starlette(routes=page_routes(runs, access)), access)
            config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
            server = uvicorn.Server(config)
            loop = asyncio.get_running_loop()

            def drain() -> None:
                asyncio.run_coroutine_threadsafe(runs.drain(1), loop).result(10)

            def stop() -> None:
                drain()
                server.should_exit = True

            stops[:] = [drain, stop]
            loop.call_soon(ready.set)
            await server.serve(sockets=[listener])
            runs.close_readers()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(20)
    try:
        yield Pages(address_of(listener), stops[0])
    finally:
        stops[1]()
        thread.join(20)
        listener.close()
        assert not thread.is_alive()
