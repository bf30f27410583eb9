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
from typing import Any, Final

from flowrun.backends.vllm.cpu_generators import mend_cpu_generators

ORDERS = "FLOWRUN_ENGINE_PROCESS"
"""The environment variable that passes to a spawned process what a forked one inherits: ``<parent's pid>:<log>``."""
_RESTORED = (
    "LD_PRELOAD",
    "VLLM_WORKER_MULTIPROC_METHOD",
)  # vLLM sets them; the subprocesses of tools must not inherit them
_POLL_SECONDS = 0.5  # between two checks that the parent lives

LOADING: Final = "loading the weights"
PROFILING: Final = "profiling the memory and warming up"
_STAGE: Final = "flowrun: stage: "
"""The prefix of a line in the log with which the engine's process announces a stage of its start."""
_CORE: Final = ("vllm.v1.engine.core", "EngineCore", "_initialize_kv_caches")
"""The method that vLLM's engine calls once its weights are loaded. Without it, that stage is not announced."""

_expected_fork: tuple[int, int, str] | None = None  # the thread that is about to fork, its pid, the log


class EngineLog:
    """The output of an engine's process. The file has a name only during a start, so that none is left behind."""

    def __init__(self) -> None:
        handle, self.name = tempfile.mkstemp(prefix="flowrun-engine-", suffix=".log")
        self._file = os.fdopen(handle, "rb")

    def read(self) -> str:
        """Return all output so far, without the announced stages; an empty text after ``close``."""
        return "".join(line for line in self._lines() if not line.startswith(_STAGE))

    def stages(self) -> list[str]:
        """Return the stages of the start that the process has announced so far."""
        return [line.removeprefix(_STAGE).strip() for line in self._lines() if line.startswith(_STAGE)]

    def _lines(self) -> list[str]:
        if self._file.closed:
            return []
        size = os.fstat(self._file.fileno()).st_size
        # Not by the file's position: it is read in the event loop while the start's thread may fork.
        return os.pread(self._file.fileno(), size, 0).decode(errors="replace").splitlines(keepends=True)

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
    if log:
        announce(LOADING)
        with contextlib.suppress(Exception):  # vLLM's internals may change: a stage is no reason to fail
            _announce_profiling(*_CORE)


def announce(stage: str) -> None:
    """Write to the log, which is this process's stderr, that a stage of the start begins."""
    os.write(2, f"{_STAGE}{stage}\n".encode())


def _announce_profiling(module: str, owner: str, name: str) -> None:
    core: Any = getattr(sys.modules[module], owner)
    initialize = getattr(core, name)

    @functools.wraps(initialize)
    def announced(*args: Any, **kwargs: Any) -> Any:
        announce(PROFILING)
        return initialize(*args, **kwargs)

    setattr(core, name, announced)


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
        from vllm.platforms import current_platform

        if current_platform.is_cpu():
            mend_cpu_generators()


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
