"""When a process started: with its id that names it, for the id alone may be that of a later one."""

from pathlib import Path


def started_at(pid: int) -> int | None:
    """Return a process's start in clock ticks since boot (proc(5), ``starttime``); None if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
