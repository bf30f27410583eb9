"""256 clients at once on this machine, each of which gets the answer to its own request, whole."""

import asyncio
import secrets
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest

from tests.model_server import model_server
from tests.served_flows import paths, write_flows
from tests.serving import Server, serving

pytestmark = pytest.mark.slow

CLIENTS = 256


def live(server: Server) -> int:
    found: int = httpx2.get(f"{server.url}/health").json()["live"]
    return found


async def follow(server: Server, nonce: str, begun: asyncio.Semaphore) -> str:
    """Ask with a client and a connection of its own, and return the text of the stream."""
    messages: Any = [{"role": "user", "content": nonce}]
    async with openai.AsyncOpenAI(base_url=server.api, api_key="none", max_retries=0, timeout=120) as client:
        stream = await client.chat.completions.create(model="parrot", messages=messages, stream=True)
        begun.release()
        chunks = [chunk async for chunk in stream]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert chunks[-1].model_extra is not None
    assert chunks[-1].model_extra["flowrun"]["output"] == f"You said {nonce}"
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


@pytest.mark.parametrize("durable", [False, True], ids=["memory", "durable"])
def test_each_client_gets_its_own_answer(tmp_path: Path, durable: bool) -> None:
    write_flows(tmp_path, "parrot")
    nonces = [f"hold {secrets.token_hex(8)}" for _ in range(CLIENTS)]
    words = ["--durable", "--journal", "journal.sqlite"] if durable else []

    async def follow_all(server: Server) -> list[str]:
        begun = asyncio.Semaphore(0)
        async with asyncio.TaskGroup() as group:
            streams = [group.create_task(follow(server, nonce, begun)) for nonce in nonces]
            for _ in streams:
                await begun.acquire()
            # Each has its first word, and all are open: the model holds them until now.
            assert await asyncio.to_thread(live, server) == CLIENTS
            model.released.set()
        return [stream.result() for stream in streams]

    with model_server() as model, serving(tmp_path, *paths("parrot"), *words, MODEL_URL=model.url) as server:
        answers = asyncio.run(follow_all(server))
        assert live(server) == 0
    assert answers == [f"You said {nonce}" for nonce in nonces]
    assert len(model.asked) == CLIENTS
