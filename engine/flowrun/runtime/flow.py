"""The flow of the Python API: a compiled flow that can run itself, and keeps its engines until it is closed."""

import asyncio
import os
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import msgspec

from flowrun.core.ports import ModelBackend
from flowrun.errors import UsageError
from flowrun.runtime.background import BACKGROUND, at_exit
from flowrun.runtime.project import CompiledFlow
from flowrun.runtime.run_result import RunResult
from flowrun.runtime.session import Session
from flowrun.spec.suggestions import suggest


class _Keeper:
    """The session of a flow in the background loop, opened at the first run."""

    def __init__(self) -> None:
        self._session: Session | None = None
        self._lock = asyncio.Lock()
        self._pid = 0

    async def run(self, flow: CompiledFlow, inputs: Mapping[str, Any]) -> RunResult:
        if self._pid != os.getpid():  # a session of the parent process cannot be used
            self._session, self._lock, self._pid = None, asyncio.Lock(), os.getpid()
        async with self._lock:
            if self._session is None:
                self._session = await Session(keep_waiting=False).__aenter__()
                _OPEN.add(self)
            session = self._session
        return await session.run(flow, inputs)

    async def close(self) -> None:
        if self._pid != os.getpid():
            return
        async with self._lock:  # until it is closed: the exit of the process waits for it
            session, self._session = self._session, None
            try:
                if session is not None:
                    await session.close()
            finally:
                _OPEN.discard(self)


_OPEN: set[_Keeper] = set()
"""The keepers whose sessions are open; at the exit of the process they are closed."""


class Flow(CompiledFlow, frozen=True, kw_only=True, eq=False, weakref=True):
    """A flow that is ready to run. ``issues`` are its warnings.

    ``run`` blocks; the engines that it starts live until ``close``, the end of ``with flow:``, or the exit of the
    process. In async code, and to share engines between flows, use ``flowrun.Session``.
    """

    keeper: _Keeper = msgspec.field(default_factory=_Keeper)

    def __post_init__(self) -> None:
        weakref.finalize(self, _release, self.keeper).atexit = False

    def run(self, inputs: Mapping[str, Any] | None = None, /, **more: Any) -> RunResult:
        """Run the flow until it ends or waits for an answer, and return its result. Ctrl-C cancels the run.

        Args:
            inputs: the inputs by their names; for names that are no Python names, or no valid keywords.
            more: further inputs.

        Raises:
            UsageError: the inputs do not match what the spec declares.
            BackendError: an engine cannot start.
            RuntimeError: called in flowrun's own event loop, such as by an ``async def`` tool.
        """
        if _Exit.began:
            raise RuntimeError("Flow.run: the process is exiting")
        if BACKGROUND.is_current:
            raise RuntimeError("Flow.run blocks, and was called in flowrun's event loop: use `await session.run(flow)`")
        merged = {**(inputs or {}), **more}
        return BACKGROUND.call(lambda: self.keeper.run(self, merged))

    def close(self) -> None:
        """Stop the engines of the flow. It may run again, which starts them anew."""
        if BACKGROUND.is_running:
            BACKGROUND.call(self.keeper.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def with_model(self, name: str, backend: ModelBackend) -> "Flow":
        """Return a copy of the flow in which a backend is used in place of a model, such as a ``ScriptedModel``.

        Args:
            name: the name of the model, ``default`` for the spec's ``model``.

        Raises:
            UsageError: no chat state uses a model of this name.
        """
        if not all(hasattr(backend, method) for method in ("start", "reply", "stop")):
            raise UsageError(f"{backend!r} is no model: it needs the methods start, reply and stop")
        if name not in self.models:
            raise UsageError(
                f"{self.path} has no model {name!r} that a chat uses; {suggest(name, self.models, 'models')}"
            )
        return msgspec.structs.replace(self, backends={**self.backends, name: backend}, keeper=_Keeper())


def as_flow(compiled: CompiledFlow) -> Flow:
    """Return a compiled flow as the flow of the Python API."""
    return Flow(**{name: getattr(compiled, name) for name in CompiledFlow.__struct_fields__})


def _release(keeper: _Keeper) -> None:
    """Close the session of a flow that nobody refers to any more, without waiting for it."""
    if keeper in _OPEN and BACKGROUND.is_running:
        BACKGROUND.begin(keeper.close)


class _Exit:
    """Whether the process is exiting; an engine that started now would not be stopped."""

    began = False


def _close_all() -> None:
    _Exit.began = True
    if _OPEN and BACKGROUND.is_running:
        BACKGROUND.call_at_exit(_close_open)


async def _close_open() -> None:
    await asyncio.gather(*(keeper.close() for keeper in tuple(_OPEN)))


at_exit(_close_all)
