"""Calls the Python functions of a spec. A function that misbehaves harms its own call and nothing else.

It may raise anything, exit, hang, ignore its cancellation, change its arguments or return a value that is no JSON: its
call ends with a ``ToolError``, at its timeout at the latest, and all other calls continue. ``async def`` functions run
in a task that is not the run's (``eager_task``), ``def`` functions in a daemon thread. What harms a whole process, such
as a crash, is kept from others only by ``isolation: process`` (``processes``).
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from functools import partial
from typing import Any, Final

from flowrun.core.events import CallFunction
from flowrun.core.tool_context import CURRENT_CALL
from flowrun.errors import Bug, ToolError
from flowrun.functions.arguments import BoundFunction
from flowrun.functions.daemon_threads import CallLimit, DaemonThreads
from flowrun.functions.eager_task import WAITS, EagerTask
from flowrun.functions.outcomes import InvalidArguments, call_failure, call_outcome, shown
from flowrun.functions.processes import MAX_WORKERS, Unreachable, Workers, find_target
from flowrun.functions.watchdog import watch
from flowrun.functions.worker import Target
from flowrun.spec.model import JSON

MAX_THREADS: Final = 64
"""``def`` functions that run at once; most of them wait for I/O, so the limit may exceed the number of cores."""

GRACE_SECONDS: Final = 5.0
"""Seconds that an ``async def`` function may clean up after its cancellation; then it is closed by force."""


class CallPool:
    """The calls that run at once, of one or several flows, and their worker processes, which ``close`` ends.

    Args:
        max_calls: calls of both kinds that run at once; None: no limit. The time in which a call waits for its turn or
            for a thread is not part of its timeout, and a call that timed out does not count.
        max_threads: ``def`` functions that run at once; at least ``max_calls``.
        max_workers: functions that run at once in worker processes; at most ``max_calls``.
        grace: seconds that a cancelled ``async def`` function in a worker process may clean up.
    """

    def __init__(
        self,
        max_calls: int | None = None,
        *,
        max_threads: int = MAX_THREADS,
        max_workers: int = MAX_WORKERS,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self.slots = None if max_calls is None else CallLimit(max_calls)
        self.threads = DaemonThreads(max(max_threads, max_calls or 0))
        self._of_tools: dict[str, CallLimit] = {}
        self.workers = Workers(min(max_workers, max_calls or max_workers), grace=grace)
        self.draining = False
        self._in_progress = 0
        self._idle = asyncio.Event()

    def slots_of(self, entrypoint: str, limit: int) -> CallLimit:
        """Return the limit of a tool's calls: the least that a flow sets for its function."""
        known = self._of_tools.get(entrypoint)
        if known is None or known.limit > limit:
            known = self._of_tools[entrypoint] = CallLimit(limit)
        return known

    async def drain(self, seconds: float) -> None:
        """Begin no further call, and wait until no call is in progress, at most for ``seconds``."""
        self.draining = True
        if self._in_progress:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._idle.wait()

    def close(self) -> None:
        """Kill the worker processes, with the calls in progress there."""
        self.workers.close()

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
        self._bound = {name: BoundFunction(function) for name, function in functions.items()}
        self._pool = CallPool() if pool is None else pool
        self._targets: dict[str, Target] = {}
        self._eager_task: EagerTask | None = None
        self._grace = grace
        self._mask = mask

    def call(self, effect: CallFunction) -> Coroutine[Any, Any, JSON]:
        """Call a function under its timeout and return its value as JSON; see ``ports.Functions``."""
        if effect.max_concurrency is None and self._pool.slots is None:
            return self._call(effect)
        return self._call_in_turn(effect)

    def check(self, effect: CallFunction) -> None:
        """Raise the ``ToolError`` of a call whose function does not take its arguments; call nothing."""
        try:
            self._bound[effect.entrypoint].check(effect.arguments)
        except InvalidArguments as exc:
            raise call_failure(exc) from exc

    async def _call_in_turn(self, effect: CallFunction) -> JSON:
        slots = self._pool.slots
        of_tool: AbstractAsyncContextManager[None] = nullcontext()
        if effect.max_concurrency is not None:
            of_tool = self._pool.slots_of(effect.entrypoint, effect.max_concurrency).here()
        async with of_tool, nullcontext() if slots is None else slots.here():
            return await self._call(effect)

    async def _call(self, effect: CallFunction) -> JSON:
        bound = self._bound.get(effect.entrypoint)
        if bound is None:
            raise Bug(f"no function is bound to {effect.entrypoint}")
        pool = self._pool
        if pool.draining:
            await asyncio.get_running_loop().create_future()  # its run is about to be cancelled
        pool.began()
        try:
            if effect.isolation == "process":
                outcome = await self._in_process(bound.function, effect)
            elif bound.is_async:
                outcome = self._first_step(bound, effect)
                if isinstance(outcome, EagerTask):
                    outcome = await self._wait_for(outcome, effect.timeout)
            else:
                outcome = await self._in_thread(bound, effect)
        except TimeoutError:
            name = effect.tool or effect.entrypoint
            raise ToolError("tool.timeout", f"{name} took longer than {effect.timeout:g} s") from None
        finally:
            pool.ended()
        if isinstance(outcome, ToolError):
            raise shown(outcome, self._mask)
        return outcome

    async def _in_process(self, function: Callable[..., Any], effect: CallFunction) -> "JSON | ToolError":
        target = self._targets.get(effect.entrypoint)
        if target is None:
            try:
                target = self._targets[effect.entrypoint] = find_target(effect.entrypoint, function)
            except Unreachable as exc:
                raise ToolError("tool.failed", str(exc)) from exc
        return await self._pool.workers.call(effect, target, function)

    async def _in_thread(self, bound: BoundFunction, effect: CallFunction) -> "JSON | ToolError":
        action = partial(call_outcome, bound.call, _prepare(bound, effect))
        watched = watch(effect)
        try:
            return await self._pool.threads.run(
                action if watched is None else partial(watched.run, action), timeout=effect.timeout
            )
        except RuntimeError as exc:
            raise ToolError("tool.failed", f"the system gives no thread to run it in: {exc}") from exc

    def _first_step(self, bound: BoundFunction, effect: CallFunction) -> "JSON | ToolError | EagerTask":
        """Run the first step of an async function; return its outcome, or its task if it waits."""
        eager, self._eager_task = self._eager_task, None  # a function may call another one in its first step
        if eager is None or not eager.is_free():
            eager = EagerTask()
        arguments = _prepare(bound, effect)
        watched = watch(effect)
        if watched is not None:
            watched.begin()
        first: JSON | ToolError = eager.start(bound.call, arguments)
        if first is WAITS:
            if watched is not None:
                eager.task.add_done_callback(watched.end)
            return eager
        if watched is not None:
            watched.end()
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


def _prepare(bound: BoundFunction, effect: CallFunction) -> dict[str, Any]:
    """Set the current call in the caller's context, which is copied for the function; return arguments of its own."""
    try:
        arguments = bound.prepare(effect.arguments)
    except InvalidArguments as exc:
        raise call_failure(exc) from exc
    CURRENT_CALL.set(effect)
    return arguments
