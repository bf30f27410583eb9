"""The process that watches flowrun: it ends a process whose event loop stands still while a call is past its time.

It is run as a file, by a Python without site-packages, and shares a table with the process that it watches, which may
be unable to run a single line of Python. It counts its own ticks rather than time: when the machine was asleep, or both
processes were stopped, nothing is late.
"""

import mmap
import os
import select
import signal
import sys
import time

SLOTS = 1024
"""Calls that can be watched at once."""

NAME = 160
"""Bytes of the text that describes a call."""

HEAD = 16
"""Bytes before the deadlines: whether the loop runs, and its count of beats, 8 bytes each."""

SIZE = HEAD + SLOTS * (8 + NAME)

TICK = 0.5
"""Seconds between two looks at the table, and between two beats of the loop."""

TICKS = 10
"""Looks without a beat after which the loop stands still."""


def main(parent: int, descriptor: int) -> None:
    """Watch a process until it ends.

    Args:
        descriptor: that of the table.
    """
    table = memoryview(mmap.mmap(descriptor, SIZE, prot=mmap.PROT_READ))
    head, deadlines = table[:HEAD].cast("Q"), table[HEAD : HEAD + 8 * SLOTS].cast("d")
    still, last = 0, -1
    while not select.select([0], [], [], TICK)[0]:  # stdin ends with the process
        beat, now = head[1], time.monotonic()
        overdue = [slot for slot, deadline in enumerate(deadlines) if 0 < deadline < now] if head[0] else []
        if beat != last or not overdue or _is_stopped(parent):
            still, last = 0, beat
            continue
        still += 1
        if still > TICKS:
            _end(parent, [_name(table, slot) for slot in overdue])


def _name(table: memoryview, slot: int) -> str:
    start = HEAD + 8 * SLOTS + slot * NAME
    return bytes(table[start : start + NAME]).rstrip(b"\0").decode(errors="replace")


def _is_stopped(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] in (b"T", b"t")
    except OSError:
        return False


def _end(pid: int, names: list[str]) -> None:
    names = sorted(set(names))
    message = (
        f"flowrun: {', '.join(names)} keeps all of flowrun from running, and is past its time, so flowrun ends here. "
        "Set `isolation: process` there: then only the call ends. A durable run can be resumed.\n"
    )
    os.write(2, message.encode())
    sys.path.append(os.path.dirname(__file__))
    from process_tree import kill_all  # type: ignore[import-not-found]  # this Python knows no packages

    os.kill(pid, signal.SIGSTOP)
    kill_all(pid, besides={os.getpid()})
    os.kill(pid, signal.SIGKILL)
    sys.exit()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
