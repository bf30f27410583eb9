"""A worker process: it makes one call after another, until the process that started it ends.

Nothing that a function does here reaches another process: it may exit, crash, hold Python's lock or leave children. The
other end of the socket is ``functions/processes.py``.
"""

import asyncio
import contextvars
import ctypes
import faulthandler
import importlib
import os
import pickle
import signal
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, NoReturn

import msgspec

from flowrun.core.events import CallFunction
from flowrun.core.tool_context import CURRENT_CALL
from flowrun.core.trace_context import INJECT
from flowrun.errors import ToolError
from flowrun.functions.arguments import accept_json
from flowrun.functions.lasting_stream import LastingStream
from flowrun.functions.outcomes import await_outcome, call_failure, call_outcome, is_async
from flowrun.functions.process_tree import adopt_orphans, descendants, kill_all
from flowrun.spec.model import JSON
from flowrun.telemetry import continued

LENGTH: Final = struct.Struct(">Q")
"""The head of each frame: the length of the rest."""

_PR_SET_PDEATHSIG: Final = 1

_OOM_SCORE: Final = "800"
"""When memory runs out, the kernel ends a worker rather than the process with all runs."""


class Target(msgspec.Struct, frozen=True):
    """How a worker finds a function.

    Attributes:
        path: ``sys.path`` of the process that calls it.
        module: the module to import; empty if the function is pickled.
        name: the function's name in the module, with dots.
        pickled: the function as pickle writes it.
    """

    path: tuple[str, ...]
    module: str = ""
    name: str = ""
    pickled: bytes = b""

    def load(self) -> Callable[..., Any]:
        """Import the function. Raises whatever the import raises."""
        if sys.path != list(self.path):
            sys.path[:] = self.path
            importlib.invalidate_caches()
        function: Callable[..., Any]
        if self.pickled:
            function = pickle.loads(self.pickled)  # noqa: S301 - flowrun wrote it
            return function
        found: Any = importlib.import_module(self.module)
        for part in self.name.split("."):
            found = getattr(found, part)
        function = found
        return function


class Load(msgspec.Struct, frozen=True):
    """Order: import a function, which later calls refer to by its number."""

    number: int
    target: Target


class Call(msgspec.Struct, frozen=True):
    """Order: call a function. ``trace`` are the headers of the caller's span."""

    number: int
    effect: CallFunction
    trace: Mapping[str, str] = {}


class Answer(msgspec.Struct, frozen=True):
    """The outcome of an order: a value, or the message, ``name`` and ``types`` of a failure (``errors.Failure``)."""

    value: JSON = None
    failure: str | None = None
    name: str = "tool.failed"
    types: tuple[str, ...] = ()


def main(descriptor: int) -> NoReturn:
    """Perform the orders that come in through a socket, until it is closed.

    Orders are pickled, as only flowrun writes them; answers are not, as a function may write to any descriptor.

    Args:
        descriptor: that of the socket.
    """
    _settle()
    connection = socket.socket(fileno=descriptor)
    worker = _Worker(connection, asyncio.Runner())
    with suppress(OSError):  # a function closed the descriptor
        while (order := _read_frame(connection)) is not None:
            answer = worker.perform(pickle.loads(order))  # noqa: S301 - flowrun wrote it
            frame = msgspec.msgpack.encode(answer)
            connection.sendall(LENGTH.pack(len(frame)) + frame)
    os._exit(0)  # threads that a function left behind would keep the process from ending


class _Worker:
    """The functions of a worker process, by their numbers."""

    def __init__(self, connection: socket.socket, runner: asyncio.Runner) -> None:
        self._connection = connection
        self._runner = runner
        self._pid = os.getpid()
        self._functions: dict[int, Callable[..., Any]] = {}
        self._shared: frozenset[int] = frozenset()
        self._streams = LastingStream(1, "<stdout>", sys.stdout), LastingStream(2, "<stderr>", sys.stderr)
        sys.stdout, sys.stderr = self._streams

    def perform(self, order: Load | Call) -> Answer:
        """Perform an order; never raises."""
        if isinstance(order, Load):
            outcome = self._load(order)
        else:
            context = contextvars.copy_context()
            outcome = context.run(self._call, self._functions[order.number], order)
        if os.getpid() != self._pid:  # the function forked, and its child came back
            os._exit(1)
        sys.stdout, sys.stderr = self._streams  # a function may have replaced them
        for stream in self._streams:
            with suppress(OSError, ValueError):
                stream.flush()
        if isinstance(order, Load):
            self._shared = frozenset(descendants(self._pid))  # what an import starts is for all calls
        else:
            kill_all(self._pid, besides=self._shared)
        if isinstance(outcome, ToolError):
            return Answer(failure=outcome.message, name=outcome.name, types=outcome.types)
        return Answer(value=outcome)

    def _load(self, order: Load) -> JSON | ToolError:
        try:
            self._functions[order.number] = accept_json(order.target.load())
        except BaseException as exc:
            return call_failure(exc)
        return None

    def _call(self, function: Callable[..., Any], order: Call) -> JSON | ToolError:
        CURRENT_CALL.set(order.effect)
        INJECT.set(lambda: order.trace)
        with continued(order.trace):
            return self._call_in_trace(function, order)

    def _call_in_trace(self, function: Callable[..., Any], order: Call) -> JSON | ToolError:
        arguments = order.effect.arguments
        if not is_async(function):
            return call_outcome(function, arguments)
        try:
            return self._runner.run(self._await(function, arguments), context=contextvars.copy_context())
        except BaseException as exc:
            return call_failure(exc)

    async def _await(self, function: Callable[..., Any], arguments: Mapping[str, JSON]) -> JSON | ToolError:
        """Await an async function. What comes in meanwhile, or the end of the socket, cancels it."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        loop.add_reader(self._connection, self._cancel, loop, task)
        try:
            return await await_outcome(function, arguments)
        finally:
            loop.remove_reader(self._connection)

    def _cancel(self, loop: asyncio.AbstractEventLoop, task: "asyncio.Task[Any]") -> None:
        loop.remove_reader(self._connection)
        task.cancel()


def _settle() -> None:
    """Make this process end with its parent, keep the orphans of its children, and die first if memory runs out."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        adopt_orphans()
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write(_OOM_SCORE)
    faulthandler.enable()


def _read_frame(connection: socket.socket) -> bytes | None:
    """Return the next frame; None if the other end is closed."""
    head = _read(connection, LENGTH.size)
    return None if head is None else _read(connection, LENGTH.unpack(head)[0])


def _read(connection: socket.socket, size: int) -> bytes | None:
    chunks = bytearray()
    while len(chunks) < size:
        chunk = connection.recv(min(size - len(chunks), 1 << 20))
        if not chunk:
            return None
        chunks += chunk
    return bytes(chunks)
