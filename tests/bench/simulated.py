"""A simulated engine: continuous batching with a model of its time that is exact, so that the limit is known.

At most ``PLACES`` requests run at once, the others wait in the order in which they came. The engine works in steps. A
step gives each running request one token and takes ``STEP`` seconds, ``SEQUENCE`` more for each of them and ``PREFILL``
for each token of a prompt that was not read before; a request that has a place reads its prompt in its first step. A
thread's earlier rounds are in the prefix cache. The engine keeps its own time, as one in a process of its own does:
whatever the event loop is busy with, no step takes longer for it; but who asks late comes into a later step.

The figures are those of a model of about one billion parameters on one large GPU, to their order of magnitude.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from flowrun.core.events import AskModel
from flowrun.core.messages import Reply, Usage
from flowrun.core.ports import OnText

PLACES: Final = 256
STEP: Final = 0.0025
SEQUENCE: Final = 0.000_006
PREFILL: Final = 0.000_008


class Round(NamedTuple):
    """One round of a conversation: the new tokens to read, and the tokens to write."""

    read: int
    written: int


class _Request(NamedTuple):
    round: Round
    came: float
    done: "asyncio.Future[None]"


class Engine:
    """The engine. ``generate`` returns when the last token is written."""

    def __init__(self) -> None:
        self._waiting: deque[_Request] = deque()
        self._running: dict[_Request, int] = {}  # and how many tokens are left of each
        self._at_work: asyncio.Task[None] | None = None

    async def generate(self, round: Round) -> None:
        """Read a prompt and write a reply."""
        loop = asyncio.get_running_loop()
        request = _Request(round, loop.time(), loop.create_future())
        self._waiting.append(request)
        if self._at_work is None or self._at_work.done():
            self._at_work = loop.create_task(self._work())
        await request.done

    async def _work(self) -> None:
        """Run steps until no request waits. ``now`` is the engine's own time, which may be behind the loop's."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._running or self._waiting:
            if not self._running:
                now = max(now, self._waiting[0].came)
            now += self._begin_step(now)
            await asyncio.sleep(max(0.0, now - loop.time()))
            self._end_step()

    def _begin_step(self, now: float) -> float:
        """Return places to those who came in time, and return the seconds that the step takes."""
        read = 0
        while self._waiting and len(self._running) < PLACES and self._waiting[0].came <= now:
            request = self._waiting.popleft()
            self._running[request] = request.round.written
            read += request.round.read
        return step_seconds(len(self._running), read)

    def _end_step(self) -> None:
        for request in self._running:
            self._running[request] -= 1
        for request in [request for request, left in self._running.items() if left == 0]:
            del self._running[request]
            if not request.done.done():
                request.done.set_result(None)


class SimulatedBackend:
    """The port ``ModelBackend`` over the engine. ``round_of`` returns the round of a request."""

    def __init__(self, round_of: Callable[[AskModel], Round]) -> None:
        self._round_of = round_of
        self._engine = Engine()

    @property
    def concurrency(self) -> int:
        """The number of requests that the engine works on at once."""
        return PLACES

    async def start(self) -> None:
        """Do nothing: there is nothing to load."""

    async def stop(self) -> None:
        """Do nothing: the engine ends when nobody waits."""

    async def reply(self, request: AskModel, *, on_text: OnText | None = None) -> Reply:
        """Return a reply when the engine has written its tokens."""
        round = self._round_of(request)
        await self._engine.generate(round)
        usage = Usage(prompt_tokens=round.read, completion_tokens=round.written)
        return Reply(content=f"Reply to {request.messages.last}", usage=usage)


def step_seconds(running: int, read: int) -> float:
    """Return the seconds that a step takes."""
    return STEP + SEQUENCE * running + PREFILL * read


def least_seconds(conversations: list[list[Round]], tool_seconds: list[float]) -> float:
    """Return the least time in which this engine can hold these conversations.

    It is the greater of the engine's work in steps that are all full, and the longest conversation with the engine for
    itself.
    """
    rounds = [round for conversation in conversations for round in conversation]
    read, written = sum(round.read for round in rounds), sum(round.written for round in rounds)
    work = written / PLACES * step_seconds(PLACES, 0) + PREFILL * read
    alone = (
        sum(round.written * step_seconds(1, 0) + PREFILL * round.read for round in conversation) + tools
        for conversation, tools in zip(conversations, tool_seconds, strict=True)
    )
    return max(work, *alone)
