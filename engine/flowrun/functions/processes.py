"""Functions run in worker processes, one call at a time in each; whatever a call does harms that call only.

A worker is killed with its children when the time of its call is up; else it is used again until the pool is closed. It
is a new Python, not a fork of this process, whose threads and locks a fork would inherit. The other end of the socket
is ``functions/worker.py``.
"""

import asyncio
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import reduce
from json import dumps
from types import MethodType
from typing import Any, Final

import msgspec

from flowrun.core.events import CallFunction
from flowrun.core.trace_context import trace_headers
from flowrun.errors import ToolError
from flowrun.functions.daemon_threads import CallLimit
from flowrun.functions.keeper import Keeper, new_mark
from flowrun.functions.outcomes import is_async
from flowrun.functions.process_tree import kill_tree
from flowrun.functions.worker import LENGTH, Answer, Call, Load, Target
from flowrun.spec.model import JSON

MAX_WORKERS: Final = max(8, 2 * (os.cpu_count() or 1))
"""Worker processes of a pool, if fewer calls are not asked for: such functions compute, or are few."""

IMPORT_SECONDS: Final = 60.0
"""Seconds that a new worker may take to start and to import a function; they are not part of a call's timeout."""

_KILLED_SECONDS: Final = 5.0
"""Seconds in which the system ends a process that was killed."""

_CLOSING_SECONDS: Final = 0.2

_CHUNK: Final = 1 << 18

_BOOT: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); from flowrun.functions.worker import main; "
    "main(int(sys.argv[1]))"
)


class Unreachable(Exception):
    """A function cannot be found by another process. The message says why."""


def find_target(entrypoint: str, function: Callable[..., Any]) -> Target:
    """Return how a worker finds a function.

    Raises:
        Unreachable: it is neither in a module under its own name, nor can it be pickled.
    """
    path = tuple(sys.path)
    module, _, name = entrypoint.partition(":")
    if _is_there(function, module, name):
        return Target(path=path, module=module, name=name)
    try:
        pickled = pickle.dumps(function)
    except Exception as exc:
        raise Unreachable(f"a worker process cannot import it ({exc})") from exc
    if b"__main__" in pickled:
        raise Unreachable("a worker process cannot import what the main script defines")
    return Target(path=path, pickled=pickled)


def _is_there(function: Callable[..., Any], module: str, name: str) -> bool:
    try:
        owner: Any = sys.modules[module]
        found = reduce(getattr, name.split("."), owner)
    except (KeyError, AttributeError):
        return False
    return found is function or (isinstance(found, MethodType) and found == function)


class Workers:
    """A pool of worker processes for one event loop at a time; at most ``limit`` calls run at once.

    Args:
        grace: seconds that an ``async def`` function may clean up after its cancellation.
    """

    def __init__(self, limit: int, *, grace: float) -> None:
        self._slots = CallLimit(limit)
        self._grace = grace
        self._idle: deque[_Worker] = deque()
        self._all: set[_Worker] = set()
        self._keeper = Keeper()
        self._numbers: dict[Target, int] = {}

    async def call(self, effect: CallFunction, target: Target, function: Callable[..., Any]) -> JSON | ToolError:
        """Call a function in a worker and return its outcome.

        Args:
            function: the same function in this process.

        Raises:
            TimeoutError: it took longer than the effect's timeout, not counting the time in which it waits for a slot.
        """
        async with self._slots.here():
            worker: _Worker | None = None
            try:
                worker = self._take()
                number = self._numbers.setdefault(target, len(self._numbers))
                if number not in worker.functions:
                    await _import(worker, Load(number, target))
                answer = await worker.ask(Call(number, effect, trace_headers()), effect.timeout)
            except _Ended as exc:
                return ToolError("tool.failed", str(exc))
            except BaseException:  # its time is up, or its run is cancelled
                if worker is not None:
                    worker.abandon(self._grace if is_async(function) else 0.0)
                raise
            self._idle.append(worker)
        return answer.value if answer.failure is None else ToolError(answer.name, answer.failure, types=answer.types)

    def _take(self) -> "_Worker":
        """Return an idle worker, or start one.

        Raises:
            _Ended: it cannot be started.
        """
        loop = asyncio.get_running_loop()
        while self._idle:
            worker = self._idle.pop()
            if worker.loop is loop and worker.lives:
                return worker
            worker.abandon()
        worker = _Worker(loop, self._all.discard)
        try:
            self._keeper.start()
            worker.start()
        except OSError as exc:
            raise _Ended(f"the system starts no worker process: {exc}") from exc
        self._all.add(worker)
        return worker

    def close(self) -> None:
        """Kill all workers with their children."""
        self._idle.clear()
        for worker in tuple(self._all):
            worker.end()
        self._keeper.close()


async def _import(worker: "_Worker", order: Load) -> None:
    try:
        answer = await worker.ask(order, IMPORT_SECONDS)
    except TimeoutError:
        worker.abandon()
        raise _Ended(f"a worker process took longer than {IMPORT_SECONDS:g} s to import it") from None
    if answer.failure is not None:
        worker.abandon()
        raise _Ended(f"a worker process cannot import it: {answer.failure}")
    worker.functions.add(order.number)


class _Ended(Exception):
    """A worker process has ended, or has not started. The message says how, and what it did."""


class _Worker:
    """A worker process. ``functions`` holds the numbers of those that it has imported."""

    def __init__(self, loop: asyncio.AbstractEventLoop, forget: "Callable[[_Worker], None]") -> None:
        self.loop = loop
        self.functions: set[int] = set()
        self._forget = forget
        self._process: subprocess.Popen[bytes] | None = None
        self._mark = new_mark()
        self._socket: socket.socket
        self._pidfd: int | None = None
        self._buffer = bytearray()
        self._answer: asyncio.Future[Answer] | None = None

    @property
    def lives(self) -> bool:
        """Whether it may be given an order."""
        return self._process is not None

    def start(self) -> None:
        """Start the process, in a session of its own. The thread of the loop does it: the worker ends with this thread.

        Raises:
            OSError: the system starts no more processes.
        """
        self._socket, theirs = socket.socketpair()
        name, _, value = self._mark.partition("=")
        path = dumps(sys.path)
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, *flags, "-c", _BOOT, str(theirs.fileno()), path],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, name: value},
                    start_new_session=True,
                )
            except OSError:
                self._socket.close()
                raise
        self._socket.setblocking(False)
        self.loop.add_reader(self._socket, self._read)
        if hasattr(os, "pidfd_open"):
            with suppress(OSError):
                self._pidfd = os.pidfd_open(self._process.pid)
                self.loop.add_reader(self._pidfd, self.loop.call_soon, self._ended)  # after what it has sent

    async def ask(self, order: Load | Call, timeout: float | None) -> Answer:
        """Return the answer to an order.

        Raises:
            TimeoutError: it took longer than ``timeout`` seconds.
            _Ended: the process ended.
        """
        frame = pickle.dumps(order)
        answer: asyncio.Future[Answer] = self.loop.create_future()
        self._answer = answer
        try:
            async with asyncio.timeout(timeout):
                with suppress(OSError):  # it has ended, which ``answer`` will say
                    await self.loop.sock_sendall(self._socket, LENGTH.pack(len(frame)) + frame)
                return await answer
        finally:
            self._answer = None

    def _read(self) -> None:
        """Take a part of an answer; a function that writes to the socket itself ends its worker."""
        try:
            data = self._socket.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._ended()
            return
        buffer = self._buffer
        buffer += data
        if len(buffer) < LENGTH.size:
            return
        end = LENGTH.size + LENGTH.unpack_from(buffer)[0]
        if len(buffer) < end:
            return
        try:
            answer = _ANSWERS.decode(memoryview(buffer)[LENGTH.size : end])
        except msgspec.MsgspecError:
            self.end()
            return
        if len(buffer) > end or self._answer is None:
            self.end()
        elif not self._answer.done():
            self._answer.set_result(answer)
        self._buffer = bytearray()

    def abandon(self, grace: float = 0.0) -> None:
        """End the process; if ``grace`` is not 0, ask an async function to end first, for so many seconds at most."""
        if grace and self.lives:
            self._socket.shutdown(socket.SHUT_WR)
            self.loop.call_later(grace, self.end)
        else:
            self.end()

    def end(self) -> None:
        """Kill the process with its children. May be called twice, and after its loop was closed."""
        process, self._process = self._process, None
        if process is not None:
            kill_tree(process.pid, self._mark)
            with suppress(subprocess.TimeoutExpired):
                process.wait(_KILLED_SECONDS)
        self._forget(self)
        for descriptor in (self._socket.fileno(), self._pidfd):
            if descriptor is not None and descriptor >= 0 and not self.loop.is_closed():
                self.loop.remove_reader(descriptor)
        self._socket.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def _ended(self) -> None:
        """Tell who waits for an answer how the process ended. If it only closed its connection, it is killed."""
        process = self._process
        if process is None:
            return
        how = "it closed the connection of its worker process"
        if _has_ended(process.pid):
            self.end()
            how = _how_it_ended(process.returncode)
        self.end()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(_Ended(how))


_ANSWERS: Final = msgspec.msgpack.Decoder(Answer)


def _has_ended(pid: int) -> bool:
    """Return whether a child has ended; one that closes its descriptors ends within moments, or never."""
    give_up = time.monotonic() + _CLOSING_SECONDS
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        if time.monotonic() > give_up:
            return False
        time.sleep(0.001)
    return True


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"it ended its worker process, with exit code {code}"
    name = signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"
    why = "; the system does so when memory runs out" if -code == signal.SIGKILL else ""
    return f"its worker process was ended by {name}{why}"
