"""A server with OpenAI's chat API whose model repeats what it is told, word by word: what flows under test ask."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.serving import wait_for

USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


class ModelServer:
    """A model that answers ``TEXT`` with ``You said TEXT``.

    If the text begins with ``hold``, it writes its first word at once, and the others when it is released.

    Attributes:
        asked: the messages of each request.
        gone: how many clients left before the end of a stream.
    """

    def __init__(self) -> None:
        self.url = ""
        self.asked: list[list[dict[str, Any]]] = []
        self.gone = 0
        self.released = threading.Event()

    def app(self) -> Starlette:
        """Return the application."""
        return Starlette(
            routes=[
                Route("/v1/models", self._models),
                Route("/v1/chat/completions", self._complete, methods=["POST"]),
            ]
        )

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [{"id": "parrot", "object": "model"}]})

    async def _complete(self, request: Request) -> Response:
        asked = await request.json()
        self.asked.append(asked["messages"])
        text = asked["messages"][-1]["content"]
        words = [f"{word} " for word in ("You", "said")] + [text]
        if asked.get("stream"):
            return StreamingResponse(self._pieces(words, holds=text.startswith("hold")), media_type="text/event-stream")
        if text.startswith("hold"):
            await self._until_released()
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "".join(words)}}
        return JSONResponse({**_head("chat.completion"), "choices": [choice], "usage": USAGE})

    async def _pieces(self, words: list[str], *, holds: bool) -> AsyncIterator[str]:
        try:
            for number, word in enumerate(words):
                if holds and number == 1:
                    await self._until_released()
                yield _event([{"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}])
                await asyncio.sleep(0)
            yield _event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
            yield _event([], usage=USAGE)
            yield "data: [DONE]\n\n"
        except asyncio.CancelledError:
            self.gone += 1
            raise

    async def _until_released(self) -> None:
        while not self.released.is_set():  # noqa: ASYNC110 - it is set in another thread
            await asyncio.sleep(0.01)


def _head(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": "parrot"}


def _event(choices: list[dict[str, Any]], **more: Any) -> str:
    return f"data: {json.dumps({**_head('chat.completion.chunk'), 'choices': choices, **more})}\n\n"


@contextmanager
def model_server() -> Iterator[ModelServer]:
    """Serve the model in the block, in a thread of this process."""
    model = ModelServer()
    config = uvicorn.Config(model.app(), port=0, log_config=None, lifespan="off", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    model.url = f"http://127.0.0.1:{port}/v1"
    try:
        yield model
    finally:
        model.released.set()
        server.should_exit = True
        thread.join()
