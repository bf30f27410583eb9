"""Eager tasks: an async function's first step runs at once, in a task that is not the caller's.

The main cost of a task per call is the pass of the event loop that it waits for. So the first step runs within the
call, with the eager task as the current task (``asyncio.timeout``, task groups and anyio need one) and in a context of
its own. A function that returns in its first step leaves the task unused: the next call can start in it, until the
loop's next pass ends it. A function that waits has the task to itself from then on.

``_enter_task`` and ``_leave_task`` are documented for this purpose (docs.python.org/3/library/asyncio-extending.html).
Python 3.12 has ``asyncio.eager_task_factory``; this does the same in 3.11.
"""

import asyncio
import contextvars
import types
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

import msgspec

from flowrun.errors import ToolError
from flowrun.functions.json_values import to_json
from flowrun.functions.outcomes import failure_of
from flowrun.spec.model import JSON

WAITS: Final = msgspec.UNSET
"""The result of ``EagerTask.start`` for a function that waits."""


class EagerTask:
    """A task for calls that return in their first step, or for one that waits, whose result is ``outcome``.

    The task itself raises and returns nothing: a call that cancels its own task in its last step would lose the result.
    """

    __slots__ = ("_awaited", "_context", "_coroutine", "_forced", "_loop", "_name", "outcome", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.outcome: JSON | ToolError = None
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self._context: contextvars.Context
        self._awaited: Any = None
        self._forced = False
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
            return failure_of(exc)
        finally:
            _leave_task(loop, task)
            _enter_task(loop, caller)

    def _begin(self, context: contextvars.Context, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
        coroutine = function(**arguments)
        try:
            awaited = coroutine.send(None)
        except StopIteration as stop:
            return to_json(stop.value)
        self._coroutine, self._context, self._awaited = coroutine, context, awaited
        return WAITS

    def force(self) -> None:
        """End the task of a function that ignored its cancellation."""
        self._forced = True
        self.task.cancel()

    async def _run(self) -> None:
        """Run the rest of the waiting call, if there is one when the loop runs this task."""
        try:
            self.outcome = await self._resume()
        except BaseException as exc:
            self.outcome = failure_of(exc)

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
