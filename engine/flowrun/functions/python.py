"""Calls the Python functions of a spec. A function that misbehaves harms its own call and nothing else.

It may raise anything, exit, hang, ignore its cancellation, change its arguments or return a value that is no JSON: its
call ends with a ``ToolError``, at its timeout at the latest, and all other calls continue. ``async def`` functions run
in a task that is not the run's (``eager_task``), ``def`` functions in a daemon thread.
"""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

from flowrun.core.events import CallFunction
from flowrun.core.tool_context import CURRENT_CALL
from flowrun.errors import Bug, ToolError
from flowrun.functions.daemon_threads import CallLimit, DaemonThreads
from flowrun.functions.eager_task import WAITS, EagerTask
from flowrun.functions.json_values import copy_json
from flowrun.functions.outcomes import call_outcome, shown
from flowrun.spec.model import JSON

MAX_THREADS: Final = 64
"""``def`` functions that run at once; most of them wait for I/O, so the limit may exceed the number of cores."""

GRACE_SECONDS: Final = 5.0
"""Seconds that an ``async def`` function may clean up after its cancellation; then it is closed by force."""


class _Bound(NamedTuple):
    """A function, and whether its call must be awaited."""

    function: Callable[..., Any]
    is_async: bool


class CallPool:
    """The calls that run at once, of one or several flows.

    Args:
        max_calls: calls of both kinds that run at once; None: no limit. The time in which a call waits for its turn or
            for a thread is not part of its timeout, and a call that timed out does not count.
        max_threads: ``def`` functions that run at once; at least ``max_calls``.
    """

    def __init__(self, max_calls: int | None = None, *, max_threads: int = MAX_THREADS) -> None:
        self.slots = None if max_calls is None else CallLimit(max_calls)
        self.threads = DaemonThreads(max(max_threads, max_calls or 0))
        self.draining = False
        self._in_progress = 0
        self._idle = asyncio.Event()

    async def drain(self, seconds: float) -> None:
        """Begin no further call, and wait until no call is in progress, at most for ``seconds``."""
        self.draining = True
        if self._in_progress:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._idle.wait()

    def began(self) -> None:
        """Count a call that begins."""
        self._in_progress += 1

    def ended(self) -> None:
        """Count a call that has ended."""
        self._in_progress -= 1
        if self.draining and not self._in_progress:
            self._idle.set()


class PythonFunctions:
    """The port ``Functions`` over functions of this process, keyed by their entrypoints.

    Args:
        pool: the calls that run at once, with those of other flows; a new pool without a limit if None.
        grace: seconds that a cancelled ``async def`` function may clean up.
        mask: replaces the secrets in the messages of failures.
    """

    def __init__(
        self,
        functions: Mapping[str, Callable[..., Any]],
        pool: CallPool | None = None,
        *,
        grace: float = GRACE_SECONDS,
        mask: Callable[[str], str] = str,
    ) -> None:
        self._bound = {name: _Bound(function, _is_async(function)) for name, function in functions.items()}
        self._pool = CallPool() if pool is None else pool
        self._eager_task: EagerTask | None = None
        self._grace = grace
        self._mask = mask

    def call(self, effect: CallFunction) -> Coroutine[Any, Any, JSON]:
        """Call a function under its timeout and return its value as JSON; see ``ports.Functions``."""
        slots = self._pool.slots
        return self._call(effect) if slots is None else self._call_in_turn(effect, slots)

    async def _call_in_turn(self, effect: CallFunction, slots: CallLimit) -> JSON:
        async with slots.here():
            return await self._call(effect)

    async def _call(self, effect: CallFunction) -> JSON:
        bound = self._bound.get(effect.entrypoint)
        if bound is None:
            raise Bug(f"no function is bound to {effect.entrypoint}")
        arguments = copy_json(dict(effect.arguments))
        CURRENT_CALL.set(effect)  # in the caller's context, which is copied for the function
        pool = self._pool
        if pool.draining:
            await asyncio.get_running_loop().create_future()  # its run is about to be cancelled
        pool.began()
        try:
            if bound.is_async:
                outcome = self._first_step(bound.function, arguments)
                if isinstance(outcome, EagerTask):
                    outcome = await self._wait_for(outcome, effect.timeout)
            else:
                outcome = await self._in_thread(bound.function, arguments, effect.timeout)
        except TimeoutError:
            name = effect.tool or effect.entrypoint
            raise ToolError("tool.timeout", f"{name} took longer than {effect.timeout:g} s") from None
        finally:
            pool.ended()
        if isinstance(outcome, ToolError):
            raise shown(outcome, self._mask)
        return outcome

    async def _in_thread(
        self, function: Callable[..., Any], arguments: dict[str, JSON], timeout: float | None
    ) -> "JSON | ToolError":
        try:
            return await self._pool.threads.run(partial(call_outcome, function, arguments), timeout=timeout)
        except RuntimeError as exc:
            raise ToolError("tool.failed", f"the system gives no thread to run it in: {exc}") from exc

    def _first_step(self, function: Callable[..., Any], arguments: dict[str, JSON]) -> "JSON | ToolError | EagerTask":
        """Run the first step of an async function; return its outcome, or its task if it waits."""
        eager, self._eager_task = self._eager_task, None  # a function may call another one in its first step
        if eager is None or not eager.is_free():
            eager = EagerTask()
        first: JSON | ToolError = eager.start(function, arguments)
        if first is WAITS:
            return eager
        self._eager_task = eager
        return first

    async def _wait_for(self, eager: EagerTask, timeout: float | None) -> "JSON | ToolError":
        task = eager.task
        try:
            await asyncio.wait((task,), timeout=timeout)
        finally:
            if not task.done():
                self._abandon(eager)
        if not task.done():
            raise TimeoutError
        return eager.outcome

    def _abandon(self, eager: EagerTask) -> None:
        eager.task.cancel()
        timer = eager.task.get_loop().call_later(self._grace, eager.force)
        eager.task.add_done_callback(lambda _: timer.cancel())


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
