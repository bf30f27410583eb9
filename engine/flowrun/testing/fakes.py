"""The fakes of a test: a model, functions and human input with scripted results."""

import asyncio
import builtins
from collections.abc import Awaitable, Callable, Iterable, Mapping

from flowrun.backends.scripted import ScriptedBackend, ScriptedReply
from flowrun.backends.text_pieces import in_one_piece
from flowrun.core.events import AskModel, CallFunction, RequestInput
from flowrun.core.json_schema import compile_schema
from flowrun.core.messages import Reply
from flowrun.core.ports import OnText
from flowrun.errors import FlowrunError, NoResponderError, ToolError, UsageError
from flowrun.functions.outcomes import type_names
from flowrun.functions.python import PythonFunctions
from flowrun.spec.model import JSON, MCP
from flowrun.testing.clock import VirtualLoop
from flowrun.testing.suite import GivenAnswer, Stub
from flowrun.testing.trace import CallLog

ParseReply = Callable[[AskModel, Reply], Awaitable[Reply]]
"""Parses a reply that holds raw text."""


class Script(ScriptedBackend):
    """A model that returns a test's ``replies``; raw text is parsed by the parsers of the model's family."""

    def __init__(self, replies: Iterable[ScriptedReply], *, parse: ParseReply) -> None:
        super().__init__(replies, record=False)
        self._parse = parse

    async def reply(self, request: AskModel, *, on_text: OnText | None = None) -> Reply:
        reply = await super().reply(request)
        return in_one_piece(reply if reply.text is None else await self._parse(request, reply), on_text)


class StubbedFunctions:
    """The port ``Functions``: stubs, which accept what the functions do, and the real functions where there is no stub.

    ``log`` holds the calls. The last stub of a function is used for all further calls.
    """

    def __init__(self, real: PythonFunctions, stubs: Mapping[str, tuple[Stub, ...]], loop: VirtualLoop) -> None:
        self.log = CallLog()
        self._real = real
        self._stubs = {name: list(stubs_of_name) for name, stubs_of_name in stubs.items()}
        self._loop = loop

    async def call(self, effect: CallFunction) -> JSON:
        """Call a function, or return the result of its stub; see ``ports.Functions``."""
        self.log.add(effect)
        stubs = self._stubs.get(effect.tool or effect.entrypoint)
        of_server = effect.entrypoint.startswith(MCP)
        if not stubs and of_server:
            what = f"the test calls {effect.tool}, a tool of an MCP server, and no test asks one"
            raise UsageError(f"{what}: give it a stub under 'tools'")
        if not stubs:
            with self._loop.real_time():
                return await self._real.call(effect)
        if not of_server:
            self._real.check(effect)
        return await _run_stub(stubs.pop(0) if len(stubs) > 1 else stubs[0], effect)


async def _run_stub(stub: Stub, effect: CallFunction) -> JSON:
    if effect.timeout is not None and stub.delay > effect.timeout:
        await asyncio.sleep(effect.timeout)
        raise ToolError("tool.timeout", f"{effect.tool or effect.entrypoint} took longer than {effect.timeout:g} s")
    await asyncio.sleep(stub.delay)
    if stub.raises is not None:
        raise ToolError("tool.failed", stub.raises, types=_types_of(stub.raises))
    return stub.returns


def _types_of(message: str) -> tuple[str, ...]:
    """Return the names of the exception that a message begins with, as those of real failures do, and of its bases."""
    name, colon, _ = message.partition(":")
    if not (colon and name.isidentifier()):
        return ()
    kind = getattr(builtins, name, None)
    return type_names(kind) if isinstance(kind, type) and issubclass(kind, BaseException) else (name,)


class WrongAnswer(FlowrunError):
    """A test's answer does not match what is asked."""


class ScriptedHumanInput:
    """The port ``HumanInput`` over a test's ``answers``. ``unused`` holds the answers not requested yet."""

    def __init__(self, answers: Iterable[GivenAnswer]) -> None:
        self.unused = list(answers)

    async def answer(self, effect: RequestInput, /) -> JSON:
        """Return the next answer for the question.

        Raises:
            NoResponderError: the test has no answer for it.
            WrongAnswer: the answer does not match what is asked.
        """
        answer = next((candidate for candidate in self.unused if _is_for(candidate, effect)), None)
        if answer is None:
            raise NoResponderError(effect.state)
        self.unused.remove(answer)
        await asyncio.sleep(answer.delay)
        if (wrong := compile_schema(effect.schema)(answer.value)) is not None:
            what = f"state {effect.state!r}" if effect.call is None else f"the call of {effect.call['name']!r}"
            raise WrongAnswer(f"the answer to {what} does not match what is asked: {wrong}")
        return answer.value


def _is_for(answer: GivenAnswer, effect: RequestInput) -> bool:
    """Return whether an answer is for a question; one that names no tool is for any question of its state."""
    called = None if effect.call is None else effect.call["name"]
    return answer.state == effect.state and answer.call in (None, called)
