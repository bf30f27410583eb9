"""Whether a process still runs; one that only waits to be reaped does not."""

import contextlib
import time
from pathlib import Path


def alive(pid: int) -> bool:
    """Tell whether a process still runs; one that waits to be reaped does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def wait_for_end(pid: int, *, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not alive(pid)


def children(pid: int) -> dict[str, int]:
    """Return the children of a process: the id of each by the name that it shows, and else by its program's."""
    found = {}
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdecimal() and parent(int(folder.name)) == pid:
                shown = (folder / "cmdline").read_bytes().partition(b"\0")[0].decode()
                found[Path(shown).name] = int(folder.name)
    return found


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
