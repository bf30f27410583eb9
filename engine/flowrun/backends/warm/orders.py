"""Starts the process of a warm engine, and passes on what it says of its start."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Final

import msgspec

from flowrun.backends.warm.locks import EngineLock
from flowrun.backends.warm.records import (
    EngineRecord,
    HeldModel,
    check_socket,
    engine_folder,
    engine_records,
    take_lock,
)
from flowrun.errors import BackendError
from flowrun.spec.model import Model

_LOOK_SECONDS: Final = 0.2
"""How often it is looked whether another command has started an engine."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The engine that a process is to hold.

    Attributes:
        folder: the one that relative paths of the model start from.
        idle: the seconds without a client after which it ends.
        lock, reports: descriptors that the process has: of the lock of its engine, and of what it reports to.
    """

    model: Model
    folder: str
    adapters: tuple[str, ...]
    held: HeldModel
    idle: float
    lock: int = -1
    reports: int = -1


class Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the process says of its start: its id, a stage that begins, a note, that it is ready, or why it is not."""

    pid: int = 0
    stage: str = ""
    note: str = ""
    ready: bool = False
    error: str = ""


def find_or_lock(held: HeldModel, *, note: Callable[[str], None]) -> EngineRecord | EngineLock:
    """Return the record of the engine of a model that is warm, or else the lock under which one can start. Blocks.

    Args:
        note: receives that another process starts it, or ends it.

    Raises:
        BackendError: the folder of warm engines cannot be used.
    """
    check_socket(held)
    waits = False
    while True:
        lock = take_lock(held.digest)
        for record in engine_records():
            if record.digest == held.digest:
                if lock is not None:  # it is of a version without locks
                    lock.release()
                return record
        if lock is not None:
            return lock
        if not waits:
            note(f"an engine of {held.name} is being started or ended by another command")
        waits = True
        time.sleep(_LOOK_SECONDS)


def start_process(
    order: Order, lock: EngineLock, *, progress: Callable[[str], None], note: Callable[[str], None]
) -> int:
    """Start the process of an engine, and return its id when it is ready. Blocks; the process outlives this one.

    Args:
        lock: that of the engine, which the process keeps for its life.

    Raises:
        BackendError: the engine cannot start; nothing is left running.
    """
    log = engine_folder() / f"{order.held.digest}.log"
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    reports, reported = os.pipe()
    try:
        process = subprocess.Popen(
            (sys.executable, "-m", __package__),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            pass_fds=(lock.fileno(), reported),
            start_new_session=True,  # neither Ctrl-C nor the end of the terminal is for it
        )
    except BaseException:
        os.close(reports)
        raise
    finally:
        os.close(output)
        os.close(reported)
    order = msgspec.structs.replace(order, lock=lock.fileno(), reports=reported)
    assert process.stdin is not None
    pid = 0
    try:
        with contextlib.suppress(BrokenPipeError), process.stdin:  # it has ended: the log says why
            process.stdin.write(msgspec.json.encode(order))
        with open(reports, "rb") as lines:
            for line in lines:
                said = msgspec.json.decode(line, type=Said)
                pid = said.pid or pid
                if said.ready:
                    return pid
                if said.error:
                    raise BackendError(said.error)
                if said.stage:
                    progress(said.stage)
                if said.note:
                    note(said.note)
        raise BackendError(f"the process of the engine ended; {log} has its output")
    except BaseException:
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        raise
    finally:
        process.wait()
