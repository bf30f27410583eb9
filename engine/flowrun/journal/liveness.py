"""Whether the process that holds a run still lives: looked up where it can be, told by its heartbeat elsewhere."""

import os
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from flowrun.journal.rows import Holder

HEARTBEAT_SECONDS: Final = 5.0
"""How often a process says that it lives."""

LEASE_SECONDS: Final = 30.0
"""A process that cannot be looked up counts as dead once its last heartbeat is so old."""


HOLDERS: Final = "SELECT id, host, pid, pid_space, started, beat FROM holders ORDER BY id"


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process on its machine. ``pid_space`` is empty where the system has no ``/proc``."""

    host: str
    pid: int
    pid_space: str
    started: int


def this_process() -> Process:
    """Describe the process that runs this."""
    pid = os.getpid()
    return Process(host=socket.gethostname(), pid=pid, pid_space=_pid_space(), started=started_at(pid) or 0)


def is_alive(holder: Holder, *, here: Process, now: float) -> bool:
    """Tell whether a holder lives. One that is only stopped (SIGSTOP, a laptop asleep) lives."""
    if holder.pid_space and holder.pid_space == here.pid_space:
        return started_at(holder.pid) == holder.started
    return now - holder.beat < LEASE_SECONDS


def living(rows: Iterable[tuple[Any, ...]], *, here: Process, now: float) -> list[Holder]:
    """Give those of the rows of ``HOLDERS`` whose processes live."""
    holders = (Holder(**dict(zip(Holder.__struct_fields__, row, strict=True))) for row in rows)
    return [holder for holder in holders if is_alive(holder, here=here, now=now)]


def started_at(pid: int) -> int | None:
    """Give the start of a process in ticks since the boot; None if there is none, or it only waits to be reaped."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _pid_space() -> str:
    """Name the boot and the pid namespace: within one, a pid and a start mean one process."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
