"""Decides whether a process lives: by ``/proc`` on the process's own machine, by its heartbeat elsewhere."""

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from flowrun.journal.rows import Holder
from flowrun.process_starts import started_at

HEARTBEAT_SECONDS: Final = 5.0
"""Seconds between two heartbeats of a process."""

LEASE_SECONDS: Final = 30.0
"""A process that cannot be looked up counts as dead once its last heartbeat is this old."""


HOLDERS: Final = "SELECT id, host, pid, pid_space, started, beat FROM holders ORDER BY id"


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process on its machine. ``pid_space`` is empty where the system has no ``/proc``."""

    host: str
    pid: int
    pid_space: str
    started: int


def this_process() -> Process:
    """Return the description of the current process."""
    pid = os.getpid()
    return Process(host=socket.gethostname(), pid=pid, pid_space=_pid_space(), started=started_at(pid) or 0)


def is_alive(holder: Holder, *, here: Process, now: float) -> bool:
    """Return whether a holder lives. A stopped process (SIGSTOP, a sleeping laptop) lives."""
    if holder.pid_space and holder.pid_space == here.pid_space:
        return started_at(holder.pid) == holder.started
    return now - holder.heartbeat < LEASE_SECONDS


def living(rows: Iterable[tuple[Any, ...]], *, here: Process, now: float) -> list[Holder]:
    """Return the holders among the rows of ``HOLDERS`` whose processes live."""
    holders = (Holder(**dict(zip(Holder.__struct_fields__, row, strict=True))) for row in rows)
    return [holder for holder in holders if is_alive(holder, here=here, now=now)]


def _pid_space() -> str:
    """Return the boot and the pid namespace: within both, a pid and a start identify a process."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
