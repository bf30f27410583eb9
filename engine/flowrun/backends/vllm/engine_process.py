"""The engine's process: it writes only to a log, receives no Ctrl-C, and ends with its parent, even if that is killed.

vLLM's own process shares the parent's standard output and the terminal's signals, and survives a killed parent. So the
process changes this as soon as it starts, which is called settling here: after a fork, by a hook in the child
(``settled_forks``); after a spawn, where no such hook runs, by vLLM's plugin mechanism (``settle_spawned``, an entry
point of the group ``vllm.general_plugins``).
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
"""The environment variable that passes to a spawned process what a forked one inherits: ``<parent's pid>:<log>``."""
_RESTORED = (
    "LD_PRELOAD",
    "VLLM_WORKER_MULTIPROC_METHOD",
)  # vLLM sets them; the subprocesses of tools must not inherit them
_POLL_SECONDS = 0.5  # between two checks that the parent lives

_expected_fork: tuple[int, int, str] | None = None  # the thread that is about to fork, its pid, the log


class EngineLog:
    """The output of an engine's process. The file has a name only during a start, so that none is left behind."""

    def __init__(self) -> None:
        handle, self.name = tempfile.mkstemp(prefix="flowrun-engine-", suffix=".log")
        self._file = os.fdopen(handle, "rb")

    def read(self) -> str:
        """Return all output so far; an empty text after ``close``."""
        if self._file.closed:
            return ""
        self._file.seek(0)
        return self._file.read().decode(errors="replace")

    def take_name(self) -> None:
        """Remove the file's name; processes that have it open continue to write to it."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.name)

    def close(self) -> None:
        """Remove and close the file. May be called twice."""
        self.take_name()
        self._file.close()


def settle(parent: int, log: str) -> None:
    """Redirect this process's output, take it out of the terminal's process group, and end it with its parent.

    Args:
        parent: the pid of the parent.
        log: the file for its output; its stderr if empty.
    """
    with contextlib.suppress(OSError):
        os.setpgid(0, 0)  # out of the terminal's foreground group, to which Ctrl-C goes
    signal.set_wakeup_fd(-1)  # inherited: this process's signals would arrive in the parent's event loop
    if log:
        file = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, 2)
        os.close(file)
    os.dup2(2, 1)
    # The parent may have replaced them (pytest, a notebook), and output would arrive there.
    sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False, errors="backslashreplace")  # noqa: SIM115
    for handler in logging.getLogger("vllm").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setStream(sys.stderr)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True, name="flowrun-end-with-parent").start()


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)  # with its workers, if it has any
    os._exit(1)


@contextlib.contextmanager
def settled_forks(log: str) -> Iterator[None]:
    """Settle the processes that this thread starts within the block.

    Args:
        log: as in ``settle``.
    """
    global _expected_fork
    _watch_forks()
    _expected_fork = (threading.get_ident(), os.getpid(), log)
    try:
        with environment({ORDERS: f"{os.getpid()}:{log}"}, {}):
            yield
    finally:
        _expected_fork = None


@functools.cache
def _watch_forks() -> None:
    os.register_at_fork(after_in_child=_settle_if_expected)


def _settle_if_expected() -> None:
    global _expected_fork
    if _expected_fork is None or _expected_fork[0] != threading.get_ident():  # a fork of another thread
        return
    _, parent, log = _expected_fork
    _expected_fork = None
    os.environ.pop(ORDERS, None)
    settle(parent, log)


def settle_spawned() -> None:
    """Settle this process if flowrun spawned it as an engine; vLLM calls this in each of its processes."""
    parent, _, log = os.environ.get(ORDERS, "").partition(":")
    if multiprocessing.parent_process() is not None and parent == str(os.getppid()):
        del os.environ[ORDERS]
        settle(int(parent), log)


@contextlib.contextmanager
def environment(settings: Mapping[str, str], defaults: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables within the block; ``defaults`` only if the user has not set them."""
    before = {name: os.environ.get(name) for name in (*settings, *defaults, *_RESTORED)}
    os.environ.update({**{name: value for name, value in defaults.items() if name not in os.environ}, **settings})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def silence(*, verbose: bool) -> Iterator[None]:
    """Disable Python's and all loggers' warnings within the block, unless ``verbose``."""
    if verbose:
        yield
        return
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # not by a logger's level: torch sets its loggers' levels at import
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(disabled)


def engine_processes() -> list[multiprocessing.process.BaseProcess]:
    """Return the living engine processes among this process's children."""
    return [child for child in multiprocessing.active_children() if child.name.startswith("EngineCore")]


def kill_group(process: multiprocessing.process.BaseProcess) -> None:
    """Kill an engine process and its workers, if any of them still lives."""
    if process.pid is not None:
        with contextlib.suppress(OSError):  # it has ended with all its workers, or does not lead a group yet
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(ValueError):  # it was closed
        process.kill()
