"""A warm engine whose backend is a fake, with a client of it, in one event loop."""

import asyncio
from collections.abc import Callable
from typing import Any

from flowrun.backends.scripted import ScriptedBackend
from flowrun.backends.warm.client import WarmBackend
from flowrun.backends.warm.host import Host
from flowrun.backends.warm.locks import EngineLock
from flowrun.backends.warm.records import EngineRecord, HeldModel, engine_records
from flowrun.backends.wrapper import PromptSize
from flowrun.core.events import AskModel
from flowrun.core.messages import Reply
from flowrun.core.ports import OnText
from flowrun.errors import BackendError

HELD = HeldModel(
    name="tiny",
    revision=None,
    engine={"max_model_len": 4096},
    tool_call_parser="hermes",
    reasoning_parser=None,
    chat_template="",
    chat_template_kwargs={},
    adapters=("lora",),
    files={"tiny": {"model.safetensors": "9 1", "config.json": "5 1"}},
)


class FakeHeld:
    """A backend that an engine may hold. ``asked`` has the requests, with the adapter and whether tokens are kept."""

    concurrency = 16

    def __init__(self, answer: Callable[[AskModel], Any], *, tokens: str = "", decisions: str = "") -> None:
        self._backend = ScriptedBackend.from_function(answer)
        self._tokens = tokens
        self._decisions = decisions
        self.failure: str | None = None
        self.asked: list[tuple[AskModel, str | None, bool]] = []
        self.cancelled = 0
        self.stops = 0

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Count that it was stopped."""
        self.stops += 1

    async def reply(
        self,
        request: AskModel,
        *,
        keeps_tokens: bool = False,
        on_text: OnText | None = None,
        adapter: str | None = None,
    ) -> Reply:
        """Return the scripted reply."""
        self.asked.append((request, adapter, keeps_tokens))
        try:
            return await self._backend.reply(request, on_text=on_text)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    async def measure_prompt(self, request: AskModel) -> PromptSize:
        """Return the number of its messages."""
        return PromptSize(len(request.messages), 4096)

    def check_decisions(self) -> None:
        """Raise what was set."""
        if self._decisions:
            raise BackendError(self._decisions)

    def check_tokens(self) -> None:
        """Raise what was set."""
        if self._tokens:
            raise BackendError(self._tokens)


class WarmPair(WarmBackend):
    """A client that starts the engine which it asks, and ends it."""

    def __init__(self, held: FakeHeld) -> None:
        self.held = held
        self._hosting: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the engine, and connect to it."""
        self._hosting = asyncio.create_task(host(self.held, idle=60.0))
        super().__init__(await record_of_host(), timeout=None)
        await super().start()

    async def stop(self) -> None:
        """Close the connection, and end the engine."""
        if self._hosting is not None:
            await super().stop()
            self._hosting.cancel()
            await asyncio.wait({self._hosting})


async def host(held: FakeHeld, *, idle: float = 60.0, model: HeldModel = HELD, lock: EngineLock | None = None) -> None:
    """Hold an engine until it is to end."""
    await Host(held, model, idle=idle, lock=lock).run(lambda: None)


async def record_of_host() -> EngineRecord:
    """Return the record of the engine, once there is one."""
    while True:
        for record in engine_records():
            return record
        await asyncio.sleep(0)
