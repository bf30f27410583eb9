"""The processes below a process: who they are, and how all of them are ended.

On Linux all descendants are found in ``/proc``, also those with a session of their own. Elsewhere only the members of a
process group are.
"""

import ctypes
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Set
from contextlib import suppress
from pathlib import Path
from typing import Final

_PR_SET_CHILD_SUBREAPER: Final = 36

_ROUNDS: Final = 20
"""Searches for descendants before the rest is left: each search may find what was started since the last one."""


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose own parents end, so that they can be found."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def descendants(pid: int) -> set[int]:
    """Return the processes below a process, without those that have ended; none where there is no ``/proc``."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:2]
            if state not in (b"Z", b"X"):
                children[int(parent)].append(int(entry.name))
    found: set[int] = set()
    open_ = [pid]
    while open_:
        below = [child for child in children[open_.pop()] if child not in found]
        found.update(below)
        open_ += below
    return found


def kill_all(pid: int, *, besides: Set[int] = frozenset()) -> None:
    """Kill the processes below a process.

    Args:
        besides: processes that are left, with all that is below them.
    """
    if sys.platform != "linux" or (pid == os.getpid() and not _has_children()):
        return
    for _ in range(_ROUNDS):
        kept = set(besides).union(*map(descendants, besides))
        if not (found := descendants(pid) - kept):
            return
        for one in found:
            _kill(one)
            with suppress(OSError):
                os.waitpid(one, os.WNOHANG)


def kill_tree(pid: int, mark: str) -> None:
    """Kill a process that leads a process group and has not been waited for, and all that is below it.

    Args:
        mark: a variable of its environment, as ``NAME=VALUE``, by which processes are known that have left the tree.
    """
    with suppress(OSError):
        os.kill(pid, signal.SIGSTOP)  # it starts no more
    kill_all(pid)
    with suppress(OSError):
        os.killpg(pid, signal.SIGKILL)
    kill_marked(mark)
    _kill(pid)


def kill_marked(mark: str) -> None:
    """Kill the processes whose environment has a variable, given as ``NAME=`` and the beginning of its value."""
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            variables = (entry / "environ").read_bytes().split(b"\0")
            if any(variable.startswith(mark.encode()) for variable in variables):
                _kill(int(entry.name))


def _kill(pid: int) -> None:
    with suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def _has_children() -> bool:
    """Return whether this process has a child, also one that has ended; costs a system call."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


if __name__ == "__main__":  # run as a file: kills what is marked once stdin ends, with the process that holds it
    sys.stdin.read()
    kill_marked(sys.argv[1])
