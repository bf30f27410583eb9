"""Starts the process of a warm engine, and passes on what it says of its start."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import msgspec

from flowrun.backends.warm.records import HeldModel, engine_folder
from flowrun.errors import BackendError
from flowrun.spec.model import Model


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The engine that a process is to hold.

    Attributes:
        folder: the one that relative paths of the model start from.
        idle: the seconds without a client after which it ends.
    """

    model: Model
    folder: str
    adapters: tuple[str, ...]
    held: HeldModel
    idle: float


class Said(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the process says of its start: its id, a stage that begins, a note, that it is ready, or why it is not."""

    pid: int = 0
    stage: str = ""
    note: str = ""
    ready: bool = False
    error: str = ""


def start_process(order: Order, *, progress: Callable[[str], None], note: Callable[[str], None]) -> int:
    """Start the process of an engine, and return its id when it is ready. Blocks; the process outlives this one.

    Raises:
        BackendError: the engine cannot start; nothing is left running.
    """
    log = engine_folder() / f"{order.held.digest}.log"
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        process = subprocess.Popen(
            (sys.executable, "-m", __package__),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            start_new_session=True,  # neither Ctrl-C nor the end of the terminal is for it
        )
    finally:
        os.close(output)
    assert process.stdin is not None
    assert process.stdout is not None
    pid = 0
    try:
        process.stdin.write(msgspec.json.encode(order))
        process.stdin.close()
        for line in process.stdout:
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
        process.stdout.close()
        process.wait()
