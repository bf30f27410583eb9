"""Eager tasks: an async function's first step runs at once, in a task that is not the caller's.

The main cost of a task per call is the pass of the event loop that it waits for. So the first step runs within the
call, with the eager task as the current task (``asyncio.timeout``, task groups and anyio need one) and in a context of
its own. Python 3.12 has such tasks (``eager_start``). In 3.11, a function that returns in its first step leaves its
task unused: the next call can start in it, until the loop's next pass ends it. A function that waits has the task to
itself from then on. ``_enter_task`` and ``_leave_task`` are documented for this purpose
(docs.python.org/3/library/asyncio-extending.html).
"""

import asyncio
import contextvars
import sys
import types
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

import msgspec

from flowrun.errors import ToolError
from flowrun.functions.json_values import to_json
from flowrun.functions.outcomes import call_failure
from flowrun.spec.model import JSON

WAITS: Final = msgspec.UNSET
"""The result of ``EagerTask.start`` for a function that waits."""


class _EagerTask:
    """What eager tasks of all versions share.

    The task itself raises and returns nothing: a call that cancels its own task in its last step would lose the result.
    """

    __slots__ = ("_forced", "outcome", "task")

    def __init__(self) -> None:
        self.outcome: JSON | ToolError = None
        self.task: asyncio.Task[None]
        self._forced = False

    def force(self) -> None:
        """End the task of a function that ignored its cancellation."""
        self._forced = True
        self.task.cancel()

    def _wait(self, coroutine: Coroutine[Any, Any, Any], awaited: Any) -> Generator[Any, Any, Callable[[], Any]]:
        """Wait, and return the function's next step; after ``force``, close the function instead."""
        try:
            sent = yield awaited
        except BaseException as exc:
            if self._forced or isinstance(exc, GeneratorExit):
                with suppress(RuntimeError):  # it ignores even this, so it is abandoned
                    coroutine.close()
                raise
            return partial(coroutine.throw, exc)
        return partial(coroutine.send, sent)


if sys.version_info >= (3, 12):

    class EagerTask(_EagerTask):
        """The task of the last call, whose result is ``outcome``: each call has a task of its own."""

        __slots__ = ()

        def is_free(self) -> bool:
            """Return True: another call may start after one that did not wait."""
            return True

        def start(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
            """Run a call's first step, in a copy of the caller's context; return its outcome, or ``WAITS``."""
            # not by the loop's task factory: it might not run the first step
            self.task = asyncio.Task(self._run(function, arguments), loop=asyncio.get_running_loop(), eager_start=True)
            return self.outcome if self.task.done() else WAITS

        async def _run(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
            try:
                self.outcome = to_json(await self._steps(function(**arguments)))
            except BaseException as exc:  # an exit or interrupt that leaves a task would end the event loop
                self.outcome = call_failure(exc)

        @types.coroutine
        def _steps(self, coroutine: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
            step: Callable[[], Any] = partial(coroutine.send, None)
            while True:
                try:
                    awaited = step()
                except StopIteration as stop:
                    return stop.value
                step = yield from self._wait(coroutine, awaited)

else:

    class EagerTask(_EagerTask):
        """A task for calls that return in their first step, or for one that waits, whose result is ``outcome``."""

        __slots__ = ("_awaited", "_context", "_coroutine", "_loop", "_name")

        def __init__(self) -> None:
            super().__init__()
            loop = asyncio.get_running_loop()
            self._coroutine: Coroutine[Any, Any, Any] | None = None
            self._context: contextvars.Context
            self._awaited: Any = None
            self._loop = loop
            body = self._run()
            body.send(None)  # to its first wait, where a cancellation reaches it even before the loop runs it
            self.task = asyncio.Task(body, loop=loop)  # not by the loop's task factory: it might run the first step
            self._name = self.task.get_name()

        def is_free(self) -> bool:
            """Return whether another call may start here after one that did not wait: the task is unchanged."""
            task = self.task
            return not (
                task.done()
                or task.cancelling()
                or task._callbacks
                or task.get_name() != self._name
                or self._loop is not asyncio.get_running_loop()
            )

        def start(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
            """Run a call's first step, in a copy of the caller's context; return its outcome, or ``WAITS``."""
            loop, task, caller = self._loop, self.task, asyncio.current_task(self._loop)
            context = contextvars.copy_context()
            assert caller is not None
            _leave_task(loop, caller)
            _enter_task(loop, task)
            try:
                return context.run(self._begin, context, function, arguments)
            except BaseException as exc:  # an exit or interrupt that leaves a task would end the event loop
                return call_failure(exc)
            finally:
                _leave_task(loop, task)
                _enter_task(loop, caller)

        def _begin(
            self, context: contextvars.Context, function: Callable[..., Any], arguments: Mapping[str, Any]
        ) -> Any:
            coroutine = function(**arguments)
            try:
                awaited = coroutine.send(None)
            except StopIteration as stop:
                return to_json(stop.value)
            self._coroutine, self._context, self._awaited = coroutine, context, awaited
            return WAITS

        async def _run(self) -> None:
            """Run the rest of the waiting call, if there is one when the loop runs this task."""
            try:
                self.outcome = await self._resume()
            except BaseException as exc:
                self.outcome = call_failure(exc)

        @types.coroutine
        def _resume(self) -> Generator[Any, Any, JSON]:
            step: Callable[[], Any]
            try:
                yield
            except asyncio.CancelledError as exc:
                if self._coroutine is None:
                    return None
                step = partial(self._coroutine.throw, exc)
            else:
                if self._coroutine is None:
                    return None
                step = yield from self._wait(self._coroutine, self._awaited)
            while True:
                try:
                    awaited = self._context.run(step)
                except StopIteration as stop:
                    return self._context.run(to_json, stop.value)
                step = yield from self._wait(self._coroutine, awaited)
