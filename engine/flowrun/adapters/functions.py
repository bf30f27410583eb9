"""Calls the Python functions of a spec. Whatever a function does harms its own call and nothing else.

It may raise what it likes, exit, hang, swallow its cancellation, change its arguments or give back what is no JSON:
the call ends as a ``ToolError`` or is over when its time is up, and every other call goes on. ``async def`` functions
run in a task of their own, ``def`` functions in a daemon thread.
"""

import asyncio
import inspect
import types
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

from flowrun.adapters.json_values import NotJSON, copy_json, to_json
from flowrun.adapters.threads import DaemonThreads
from flowrun.errors import Bug, ToolError
from flowrun.events import CallFunction
from flowrun.spec import JSON

MAX_THREADS: Final = 64
"""So many ``def`` functions run at once; they mostly wait for others, so it may well exceed the number of cores."""

GRACE_SECONDS: Final = 5.0
"""So long an ``async def`` function may clean up after its cancellation; then it is closed by force."""

MAX_MESSAGE: Final = 4000
"""A failure's message is cut to so many characters: the model reads it, and the journal keeps it."""


class _Bound(NamedTuple):
    """A function, and whether it is to be awaited."""

    function: Callable[..., Any]
    is_async: bool


class PythonFunctions:
    """The port ``Functions`` over functions of this process, keyed by their entrypoints.

    Args:
        max_threads: so many ``def`` functions run at once; those that timed out do not count.
        grace: seconds that a cancelled ``async def`` function has for its cleaning up.
    """

    def __init__(
        self,
        functions: Mapping[str, Callable[..., Any]],
        *,
        max_threads: int = MAX_THREADS,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self._bound = {name: _Bound(function, _is_async(function)) for name, function in functions.items()}
        self._threads = DaemonThreads(max_threads)
        self._grace = grace

    async def call(self, effect: CallFunction) -> JSON:
        """Call a function under its timeout and give its value as JSON; see ``ports.Functions``."""
        bound = self._bound.get(effect.entrypoint)
        if bound is None:
            raise Bug(f"no function is bound to {effect.entrypoint}")
        arguments = {name: copy_json(value) for name, value in effect.arguments.items()}
        perform = self._in_task if bound.is_async else self._in_thread
        try:
            outcome = await perform(bound.function, arguments, effect.timeout)
        except TimeoutError:
            name = effect.tool or effect.entrypoint
            raise ToolError("tool.timeout", f"{name} took longer than {effect.timeout:g} s") from None
        if isinstance(outcome, ToolError):
            raise outcome
        return outcome

    async def _in_thread(
        self, function: Callable[..., Any], arguments: dict[str, JSON], timeout: float | None
    ) -> "JSON | ToolError":
        try:
            return await self._threads.run(partial(_outcome, function, arguments), timeout=timeout)
        except RuntimeError as exc:
            raise ToolError("tool.failed", f"the system gives no thread to run it in: {exc}") from exc

    async def _in_task(
        self, function: Callable[..., Any], arguments: dict[str, JSON], timeout: float | None
    ) -> "JSON | ToolError":
        reins = _Reins()
        task = asyncio.get_running_loop().create_task(_async_outcome(function, arguments, reins))
        try:
            await asyncio.sleep(0)  # a function that never waits is done by now, and needs no timer
            if not task.done():
                await asyncio.wait((task,), timeout=timeout)
        finally:
            if not task.done():
                self._abandon(task, reins)
        if not task.done():
            raise TimeoutError
        return task.result()

    def _abandon(self, task: "asyncio.Task[Any]", reins: "_Reins") -> None:
        task.cancel()
        timer = asyncio.get_running_loop().call_later(self._grace, reins.force, task)
        task.add_done_callback(lambda _: timer.cancel())


class _Reins:
    """What is left in hand of a function that nobody waits for any more."""

    __slots__ = ("forced",)

    def __init__(self) -> None:
        self.forced = False

    def force(self, task: "asyncio.Task[Any]") -> None:
        """End a task whose function did not heed its cancellation."""
        self.forced = True
        task.cancel()


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _outcome(function: Callable[..., Any], arguments: dict[str, JSON]) -> "JSON | ToolError":
    """Call a function; never raises. A ``ToolError`` is no JSON value, so the two cannot be mixed up."""
    try:
        return to_json(function(**arguments))
    except BaseException as exc:
        return _failure(exc)


async def _async_outcome(function: Callable[..., Any], arguments: dict[str, JSON], reins: _Reins) -> "JSON | ToolError":
    try:
        return to_json(await _reined(function(**arguments), reins))
    except BaseException as exc:  # an exit or interrupt that a task lets through would end the event loop
        return _failure(exc)


@types.coroutine
def _reined(function: Coroutine[Any, Any, Any], reins: _Reins) -> Generator[Any, Any, Any]:
    """Await a function's coroutine; but once it is to be forced, close it rather than ask again."""
    step, sent = function.send, None
    while True:
        try:
            awaited = step(sent)
        except StopIteration as stop:
            return stop.value
        try:
            step, sent = function.send, (yield awaited)
        except BaseException as exc:
            if reins.forced or isinstance(exc, GeneratorExit):
                with suppress(RuntimeError):  # it does not even heed this: let go of it
                    function.close()
                raise
            step, sent = function.throw, exc


def _failure(exc: BaseException) -> ToolError:
    said = f"returned {exc}" if isinstance(exc, NotJSON) else f"{type(exc).__name__}: {_message_of(exc)}"
    error = ToolError("tool.failed", said.removesuffix(": "))
    error.__cause__ = exc
    return error


def _message_of(exc: BaseException) -> str:
    try:
        text = str(exc)
    except BaseException:
        return "its message cannot be shown"
    text = text if len(text) <= MAX_MESSAGE else f"{text[:MAX_MESSAGE]} ..."
    return text.encode(errors="replace").decode()
