"""An async function's first step is done at once, in a task that is not the caller's.

Most of what a task for every call costs is the pass of the loop that it waits for. So the first step is done where the
call is, with the carrier's task as the current one (what ``asyncio.timeout``, task groups and anyio ask for) and in a
context of its own. A function that is over by then never needed the task, which is there for the next call until the
loop's next pass ends it; a function that waits has the task to itself from then on.

``_enter_task`` and ``_leave_task`` are what Python documents for this under "Extending asyncio". From 3.12 on a task
can start so by itself; this does the same in 3.11.
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
"""What ``EagerTask.start`` gives of a function that waits for something."""


class EagerTask:
    """A task for calls that are over in their first step, or for one that waits; ``outcome`` is that one's.

    The task itself raises nothing and gives nothing: a call that cancels its task at its very end would lose that.
    """

    __slots__ = ("_awaited", "_context", "_coroutine", "_forced", "_loop", "_name", "outcome", "task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.outcome: JSON | ToolError = None
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self._context: contextvars.Context
        self._awaited: Any = None
        self._forced = False
        self._loop = loop
        body = self._carry()
        body.send(None)  # into its first wait, where a cancellation reaches it even before the loop's first step
        self.task = asyncio.Task(body, loop=loop)  # no factory's: it might take the first step
        self._name = self.task.get_name()

    def is_free(self) -> bool:
        """Tell whether another call may start here after one that did not wait: the task is as it was made."""
        task = self.task
        return not (
            task.done()
            or task.cancelling()
            or task._callbacks
            or task.get_name() != self._name
            or self._loop is not asyncio.get_running_loop()
        )

    def start(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
        """Do a call's first step, in a copy of the caller's context; give its outcome, or ``WAITS``."""
        loop, task, caller = self._loop, self.task, asyncio.current_task()
        context = contextvars.copy_context()
        assert caller is not None
        _leave_task(loop, caller)
        _enter_task(loop, task)
        try:
            return context.run(self._begin, context, function, arguments)
        except BaseException as exc:  # an exit or interrupt that a task lets through would end the event loop
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
        """End the task of a function that did not heed its cancellation."""
        self._forced = True
        self.task.cancel()

    async def _carry(self) -> None:
        """Go on with the call that waits, if there is one when the loop comes to it."""
        try:
            self.outcome = await self._go_on()
        except BaseException as exc:
            self.outcome = failure_of(exc)

    @types.coroutine
    def _go_on(self) -> Generator[Any, Any, JSON]:
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
        """Wait, and give the function's next step; but once it is to be forced, close it rather than ask again."""
        try:
            sent = yield awaited
        except BaseException as exc:
            if self._forced or isinstance(exc, GeneratorExit):
                with suppress(RuntimeError):  # it does not even heed this: let go of it
                    coroutine.close()
                raise
            return partial(coroutine.throw, exc)
        return partial(coroutine.send, sent)
