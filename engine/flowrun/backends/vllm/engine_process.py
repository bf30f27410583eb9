"""The engine's process: it writes nowhere, hears no Ctrl-C, and ends with us, even if we are killed.

vLLM's own shares our standard output and our terminal's signals, and goes on for ever when its parent is killed. So the
process settles itself first thing after its birth: forked, by a hook that runs in the child (``settled_forks``);
spawned, where no hook of ours can run, by vLLM's plugin mechanism (``settle_spawned``, an entry point of the group
``vllm.general_plugins``).
"""

import contextlib
import functools
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterator, Mapping

ORDERS = "FLOWRUN_ENGINE_PROCESS"
"""The environment variable that tells a spawned process what a forked one inherits: ``<parent's pid>:<log>``."""
_GIVEN_BACK = (
    "LD_PRELOAD",
    "VLLM_WORKER_MULTIPROC_METHOD",
)  # vLLM sets them; the tools' subprocesses need not see them
_PULSE = 0.5  # seconds between two looks at the parent

_awaited: tuple[int, int, str] | None = None  # the thread that is about to fork, our pid, the log


class EngineLog:
    """What an engine's process writes. The file has a name only while processes start, so that none is left behind."""

    def __init__(self) -> None:
        handle, self.name = tempfile.mkstemp(prefix="flowrun-engine-", suffix=".log")
        self._file = os.fdopen(handle, "rb")

    def read(self) -> str:
        """Give all that was written so far."""
        if self._file.closed:
            return ""
        self._file.seek(0)
        return self._file.read().decode(errors="replace")

    def take_name(self) -> None:
        """Remove the file's name; those who have it open go on writing."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.name)

    def close(self) -> None:
        """Give the file up."""
        self.take_name()
        self._file.close()


def settle(parent: int, log: str) -> None:
    """Make this process, the engine's, quiet and mortal.

    Its output goes to the file ``log``, or to its stderr if ``log`` is empty; never to its stdout.
    """
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)  # out of the terminal's foreground group, to which Ctrl-C goes
    signal.set_wakeup_fd(-1)  # inherited: signals sent to us would arrive in the parent's event loop
    if log:
        file = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, 2)
        os.close(file)
    os.dup2(2, 1)
    # Whatever stood in for them in the parent (pytest, a notebook) leads back there.
    sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
    for handler in logging.getLogger("vllm").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
    threading.Thread(target=_end_with, args=(parent,), daemon=True, name="flowrun-end-with-parent").start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PULSE)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)  # with the workers that it may have
    os._exit(1)


@contextlib.contextmanager
def settled_forks(log: str) -> Iterator[None]:
    """Settle the processes that this thread starts meanwhile."""
    global _awaited
    _watch_forks()
    _awaited = (threading.get_ident(), os.getpid(), log)
    try:
        with environment({ORDERS: f"{os.getpid()}:{log}"}, {}):
            yield
    finally:
        _awaited = None


@functools.cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_settle_if_awaited)


def _settle_if_awaited() -> None:
    global _awaited
    if _awaited is None or _awaited[0] != threading.get_ident():  # a fork of somebody else's
        return
    _, parent, log = _awaited
    _awaited = None
    os.environ.pop(ORDERS, None)
    settle(parent, log)


def settle_spawned() -> None:
    """Settle this process if it was spawned as an engine of ours; vLLM calls this in each of its processes."""
    parent, _, log = os.environ.get(ORDERS, "").partition(":")
    if multiprocessing.parent_process() is not None and parent == str(os.getppid()):
        del os.environ[ORDERS]
        settle(int(parent), log)


@contextlib.contextmanager
def environment(settings: Mapping[str, str], defaults: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a while; ``defaults`` only where the user has not set them."""
    kept = {name: os.environ.get(name) for name in (*settings, *defaults, *_GIVEN_BACK)}
    os.environ.update({**{name: value for name, value in defaults.items() if name not in os.environ}, **settings})
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def silence(*, verbose: bool) -> Iterator[None]:
    """Keep Python's warnings and all loggers' warnings quiet for a while, unless ``verbose``."""
    if verbose:
        yield
        return
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # a level of their own would not do: torch sets its loggers' while it is imported
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(disabled)


def engine_processes() -> list[multiprocessing.process.BaseProcess]:
    """Give the living engine processes among our children."""
    return [child for child in multiprocessing.active_children() if child.name.startswith("EngineCore")]


def kill_group(process: multiprocessing.process.BaseProcess) -> None:
    """Kill an engine process and the workers that it started, if any of them still lives."""
    if process.pid is not None:
        with contextlib.suppress(OSError):  # it ended, with all its workers; or is too young to lead a group
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(ValueError):  # it was closed
        process.kill()
