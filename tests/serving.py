"""``flowrun serve`` as a process of its own, for tests whose clients somebody else wrote."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_SECONDS: Final = 30.0
_ADDRESS: Final = re.compile(r"^flowrun serves .* on (\S+)$", re.MULTILINE)


class Server:
    """A server that runs.

    Attributes:
        url: its address, without a path.
        port: by which a later server can have the same address.
        api: the address of its chat API.
        log: the file that has what it writes to its stderr.
    """

    def __init__(self, process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
        self._process = process
        self.url = url
        self.port = url.rpartition(":")[2]
        self.api = f"{url}/v1"
        self.log = log

    def terminate(self) -> None:
        """Send SIGTERM, and return at once."""
        self._process.terminate()

    def wait(self) -> int:
        """Return the exit code of the process, once it has ended."""
        return self._process.wait(_SECONDS)

    def kill(self) -> None:
        """End the process as a crash does."""
        self._process.kill()
        assert self.wait() == -signal.SIGKILL


@contextmanager
def serving(folder: Path, *words: object, **environ: str) -> Iterator[Server]:
    """Serve flows of a folder in the block. A server that nobody has ended then ends by SIGTERM, with the exit code 0.

    None writes a traceback.

    Args:
        words: the specs and the options; without ``--port`` it is a free one.
    """
    log = folder / "serve.log"
    ports = () if "--port" in words else ("--port", "0")
    with log.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "flowrun", "serve", *map(str, words), *ports],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            env={**os.environ, **environ},
        )
    try:
        yield Server(process, _address(process, log), log)
        if process.poll() is None:
            process.terminate()
            assert process.wait(_SECONDS) == 0, log.read_text()
        assert "Traceback" not in log.read_text(), log.read_text()
    finally:
        process.kill()
        process.wait()


def _address(process: "subprocess.Popen[bytes]", log: Path) -> str:
    """Return the address that a server says it has, once it says so."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if found := _ADDRESS.search(log.read_text()):
            return found[1]
        time.sleep(0.01)
    raise AssertionError(f"the server does not say where it is:\n{log.read_text()}")


def write_files(folder: Path, files: Mapping[str, str]) -> Path:
    """Write the files of a project, and return its folder."""
    folder.joinpath("pyproject.toml").touch()
    for name, text in files.items():
        folder.joinpath(name).write_text(text)
    return folder


def wait_until(path: Path, *, lines: int = 1) -> list[str]:
    """Return the lines of a file that something else writes, once it has so many."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        if path.exists() and len(found := path.read_text().splitlines()) >= lines:
            return found
        time.sleep(0.01)
    raise AssertionError(f"{path.name} does not have {lines} lines")


def wait_for(condition: Callable[[], bool], *, seconds: float = _SECONDS) -> None:
    """Return when a condition holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for does not happen"
        time.sleep(0.01)
