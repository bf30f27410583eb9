"""What a test puts in place of the world: a model, functions and people that do as the test says."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

from flowrun.backends.scripted import ScriptedBackend, ScriptedReply
from flowrun.core.events import AskModel, CallFunction, RequestInput
from flowrun.core.json_schema import compile_schema
from flowrun.core.messages import Reply
from flowrun.core.ports import Functions
from flowrun.errors import FlowrunError, NoResponderError, ToolError
from flowrun.spec.model import JSON
from flowrun.testing.clock import VirtualLoop
from flowrun.testing.suite import GivenAnswer, Stub

Read = Callable[[AskModel, Reply], Awaitable[Reply]]
"""Reads a reply that is raw text yet."""


class Script(ScriptedBackend):
    """A model that says what a test's ``replies`` say; raw text is read as its family's parser reads it."""

    def __init__(self, replies: Iterable[ScriptedReply], *, read: Read) -> None:
        super().__init__(replies, record=False)
        self._read = read

    async def reply(self, request: AskModel) -> Reply:
        reply = await super().reply(request)
        return reply if reply.text is None else await self._read(request, reply)


class StubbedFunctions:
    """The port ``Functions``: stubs where there are some, the real functions elsewhere.

    ``calls`` holds the tools' calls, in order.
    """

    def __init__(self, real: Functions, stubs: Mapping[str, tuple[Stub, ...]], loop: VirtualLoop) -> None:
        self.calls: list[dict[str, JSON]] = []
        self._real = real
        self._left = {name: list(several) for name, several in stubs.items()}
        self._loop = loop

    async def call(self, effect: CallFunction) -> JSON:
        """Call a function, or play its stub; see ``ports.Functions``."""
        if effect.tool is not None:
            self.calls.append({"name": effect.tool, "arguments": dict(effect.arguments)})
        stubs = self._left.get(effect.tool or effect.entrypoint)
        if not stubs:
            with self._loop.real_time():
                return await self._real.call(effect)
        return await _play_stub(stubs.pop(0) if len(stubs) > 1 else stubs[0], effect)


async def _play_stub(stub: Stub, effect: CallFunction) -> JSON:
    if effect.timeout is not None and stub.delay > effect.timeout:
        await asyncio.sleep(effect.timeout)
        raise ToolError("tool.timeout", f"{effect.tool or effect.entrypoint} took longer than {effect.timeout:g} s")
    await asyncio.sleep(stub.delay)
    if stub.raises is not None:
        raise ToolError("tool.failed", stub.raises)
    return stub.returns


class WrongAnswer(FlowrunError):
    """A test's answer does not match the schema of its wait state."""


class ScriptedPeople:
    """The port ``People`` over a test's ``answers``. ``unused`` are those that nobody asked for yet."""

    def __init__(self, answers: Iterable[GivenAnswer]) -> None:
        self.unused = list(answers)

    async def answer(self, effect: RequestInput) -> JSON:
        """Give the next answer for the state.

        Raises:
            NoResponderError: there is none.
            WrongAnswer: it does not match.
        """
        answer = next((one for one in self.unused if one.state == effect.state), None)
        if answer is None:
            raise NoResponderError(effect.state)
        self.unused.remove(answer)
        await asyncio.sleep(answer.delay)
        if (wrong := compile_schema(effect.schema)(answer.value)) is not None:
            raise WrongAnswer(f"the answer to state {effect.state!r} does not match the state's schema: {wrong}")
        return answer.value
