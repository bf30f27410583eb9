"""A process that outlives this one, and then ends the processes that this one has started, by a mark of theirs."""

import os
import secrets
import subprocess
import sys
from typing import Final

from flowrun.functions import process_tree

_MARK: Final = "FLOWRUN_WORKER"


def new_mark() -> str:
    """Return a variable, as ``NAME=VALUE``, for the environment of a process that is to end with this one."""
    return f"{_MARK}={os.getpid()}-{secrets.token_hex(8)}"


class Keeper:
    """The process that ends all that is marked, once this process has ended in whatever way."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, unless it runs.

        Raises:
            OSError: the system starts no process.
        """
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", process_tree.__file__, f"{_MARK}={os.getpid()}-"],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )

    def close(self) -> None:
        """End it: nothing is left that it would have to end."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
