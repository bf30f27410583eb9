"""What a request to ``flowrun serve`` costs over the run alone: milliseconds, by a client on the same machine.

The same flow with a scripted model runs in a session of this process, and in a server of another one for a client that
keeps its connection. With many clients at once, what is counted is that each reply has its own request's word.
"""

import asyncio
import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from uuid import uuid4

import aiohttp

import flowrun

_REQUESTS = 2_000
_CLIENTS = 256
_FLOW = """\
flowrun: v1
name: bench
version: 1.0.0
inputs: {question: {type: string}}
model: {backend: scripted, name: replies.yaml}
messages:
  - {role: user, content: "{{ inputs.question }}"}
states:
  ask: {type: chat, next: done}
  done: {type: end, output: "{{ reply.content }} {{ inputs.question }}"}
"""
_REPLIES = "replies:\n  - {content: It is so., repeat: true}\n"


def main() -> None:
    """Print the table."""
    with TemporaryDirectory() as folder:
        spec = Path(folder) / "bench.yaml"
        spec.write_text(_FLOW)
        (Path(folder) / "replies.yaml").write_text(_REPLIES)
        alone = asyncio.run(_alone(spec))
        whole, streamed, at_once, lost = asyncio.run(_served(spec))
    print(f"\nA request to `flowrun serve`, milliseconds ({_REQUESTS} one after the other)\n")
    print(f"{'':28} {'median':>8} {'p99':>8} {'p99 over the run alone':>24}")
    base = _p99(alone)
    for name, seconds in (("the run alone", alone), ("a request", whole), ("a stream", streamed)):
        over = "" if seconds is alone else f"{_p99(seconds) - base:24.2f}"
        print(f"{name:28} {quantiles(seconds, n=2)[0] * 1e3:8.2f} {_p99(seconds):8.2f} {over}")
    print(f"\n{_CLIENTS} streams at once, ten times: {at_once * 1e3:.2f} ms a stream, {lost} lost or mixed up")


def _p99(seconds: list[float]) -> float:
    return quantiles(seconds, n=100)[98] * 1e3


async def _alone(spec: Path) -> list[float]:
    flow = flowrun.load(spec)
    seconds = []
    async with flowrun.Session() as session:
        for _ in range(_REQUESTS):
            begun = time.perf_counter()
            (await session.run(flow, {"question": "Is it so?"})).raise_for_status()
            seconds.append(time.perf_counter() - begun)
    return seconds


async def _served(spec: Path) -> tuple[list[float], list[float], float, int]:
    command = (sys.executable, "-m", "flowrun", "serve", str(spec), "--port", "0")
    server = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE, env={**os.environ})
    assert server.stderr is not None
    said = (await server.stderr.readline()).decode()
    found = re.search(r"http://\S+", said)
    assert found is not None, said
    try:
        connector = aiohttp.TCPConnector(limit=_CLIENTS)
        async with aiohttp.ClientSession(found[0], connector=connector) as client:
            whole = [await _ask(client, "Is it so?", stream=False) for _ in range(_REQUESTS)]
            streamed = [await _ask(client, "Is it so?", stream=True) for _ in range(_REQUESTS)]
            begun, lost = time.perf_counter(), 0
            for _ in range(10):
                words = [uuid4().hex for _ in range(_CLIENTS)]
                came = await asyncio.gather(
                    *(_ask(client, word, stream=True) for word in words), return_exceptions=True
                )
                lost += sum(isinstance(one, BaseException) for one in came)
            at_once = (time.perf_counter() - begun) / (10 * _CLIENTS)
    finally:
        server.send_signal(signal.SIGTERM)
        await server.communicate()
    return whole, streamed, at_once, lost


async def _ask(client: aiohttp.ClientSession, question: str, *, stream: bool) -> float:
    """Return the seconds that a reply takes.

    Raises:
        ValueError: it is not the reply to this question.
    """
    begun = time.perf_counter()
    asked = {"model": "bench", "stream": stream, "messages": [{"role": "user", "content": question}]}
    async with client.post("/v1/chat/completions", json=asked) as response:
        body = await response.text()
    if stream:
        chunks = [json.loads(line[6:]) for line in body.split("\n") if line.startswith("data: {")]
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    else:
        text = json.loads(body)["choices"][0]["message"]["content"]
    if text != f"It is so. {question}":
        raise ValueError(f"{text!r} is no reply to {question!r}")
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
