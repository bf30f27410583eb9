"""Batches by the command itself against a server that is busy, or dies."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.batches import batch, environment, results, write_rows

SPEC = """
flowrun: v1
name: busy
version: 1.0.0
model: {backend: openai, name: default, base_url: "${BUSY_URL}"}
inputs: {number: {type: integer}}
messages: [{role: user, content: "{{ inputs.number }}"}]
"""


SLOW_SPEC = """
flowrun: v1
name: slow
version: 1.0.0
model: {backend: openai, name: default, base_url: "${BUSY_URL}", max_requests_per_minute: 3}
inputs: {number: {type: integer}}
messages: [{role: user, content: "{{ inputs.number }}"}]
states:
  one: {type: chat, next: two}
  two: {type: chat, next: three}
  three: {type: chat, next: four}
  four: {type: chat, next: done}
  done: {type: end}
"""


class BusyServer:
    """A server that takes ``places`` requests at once, and answers others with a status; it may die after some.

    ``asked`` counts all requests, those for its models too.
    """

    def __init__(self) -> None:
        self.places = 2
        self.status = 429
        self.headers = {"Retry-After": "1"}
        self.seconds = 0.05
        self.dies_after = 10**9
        self.replies = self.asked = 0
        self.busy = 0
        self.lock = threading.Lock()
        self.url = ""

    def count(self) -> None:
        with self.lock:
            self.asked += 1

    def answer(self) -> tuple[int, Any]:
        with self.lock:
            if self.replies >= self.dies_after:
                return 502, {"error": {"message": "bad gateway"}}
            if self.busy >= self.places:
                return self.status, {"error": {"message": "slow down"}}
            self.busy += 1
        time.sleep(self.seconds)
        with self.lock:
            self.busy -= 1
            self.replies += 1
        return 200, {"choices": [{"message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]}


@pytest.fixture
def server() -> Iterator[BusyServer]:
    busy = BusyServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            busy.count()
            self.send(200, {"object": "list", "data": [{"id": "busy"}]})

        def do_POST(self) -> None:
            busy.count()
            self.rfile.read(int(self.headers["content-length"]))
            self.send(*busy.answer())

        def send(self, status: int, body: Any) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            for name, value in (busy.headers if status == busy.status else {}).items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Show nothing."""

    class Http(ThreadingHTTPServer):
        request_queue_size = 512
        daemon_threads = True

    with Http(("127.0.0.1", 0), Handler) as http:
        busy.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield busy
        finally:
            http.shutdown()
            thread.join()


def run_batch(server: BusyServer, folder: Path, *options: str, rows: int = 60) -> tuple[int, str]:
    (folder / "spec.yaml").write_text(SPEC)
    (folder / "rows.jsonl").write_text("".join(f'{{"number": {number}}}\n' for number in range(rows)))
    done = batch("spec.yaml", "rows.jsonl", "-o", "out.jsonl", "-q", *options, cwd=folder, BUSY_URL=server.url)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        pytest.param(429, {"Retry-After": "1"}, id="429 and seconds"),
        pytest.param(429, {}, id="429 alone"),
        pytest.param(503, {"Retry-After": "Wed, 21 Oct 2015 07:28:01 GMT"}, id="503 and a date"),
        pytest.param(529, {}, id="529"),
    ],
)
def test_no_row_fails_on_a_server_that_takes_two_at_once(
    server: BusyServer, tmp_path: Path, status: int, headers: dict[str, str]
) -> None:
    server.status, server.headers = status, headers
    assert run_batch(server, tmp_path) == (0, "60  succeeded\n")


def test_a_durable_batch_and_its_retries_pass_the_same_gate(server: BusyServer, tmp_path: Path) -> None:
    assert run_batch(server, tmp_path, "--durable", "--journal", "j.sqlite") == (0, "60  succeeded\n")


def test_a_batch_stops_when_nothing_succeeded_for_the_stall(server: BusyServer, tmp_path: Path) -> None:
    server.places = 0
    code, shown = run_batch(server, tmp_path, "--stall", "2s")
    assert code == 1
    assert "16 rows in a row ended in backend.unavailable" in shown
    assert "is asked too much: slow down (HTTP 429)" in shown
    assert results(tmp_path / "out.jsonl") == []


@pytest.mark.slow
def test_a_server_that_dies_stops_the_batch_at_once(server: BusyServer, tmp_path: Path) -> None:
    server.places, server.dies_after = 8, 30
    begun = time.monotonic()
    code, shown = run_batch(server, tmp_path, rows=400)
    assert code == 1
    assert "16 rows in a row ended in backend.unavailable" in shown
    assert "bad gateway (HTTP 502)" in shown
    assert time.monotonic() - begun < 60  # long before --stall


def test_a_stall_that_is_no_duration_is_wrong_usage(server: BusyServer, tmp_path: Path) -> None:
    code, shown = run_batch(server, tmp_path, "--stall", "soon")
    assert code == 2
    assert "--stall soon: 'soon' is no duration" in shown


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(("run", "spec.yaml", "-i", "number=1", "-q"), id="run"),
        pytest.param(("batch", "spec.yaml", "rows.jsonl", "-o", "out.jsonl", "-q"), id="batch"),
    ],
)
def test_a_minute_has_no_more_requests_than_the_model_may_get(
    server: BusyServer, tmp_path: Path, words: tuple[str, ...]
) -> None:
    server.places, server.seconds = 64, 0.0
    (tmp_path / "spec.yaml").write_text(SLOW_SPEC)
    write_rows(tmp_path / "rows.jsonl", range(1, 9))
    process = subprocess.Popen(
        [sys.executable, "-m", "flowrun", *words], cwd=tmp_path, env=environment(BUSY_URL=server.url)
    )
    while server.asked < 3 and process.poll() is None:
        time.sleep(0.01)
    time.sleep(1)  # a slow machine sends even fewer in it
    assert (server.asked, process.poll()) == (3, None)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
