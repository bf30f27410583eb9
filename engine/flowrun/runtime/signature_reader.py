"""Reads the signatures of a spec's functions in a child process, which a module may end or hang without harm."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

import msgspec

from flowrun.spec.entrypoints import EntrypointError, find_project_root, path_of_installed
from flowrun.spec.signatures import Signature

IMPORT_SECONDS: Final = 10
"""Seconds that the import of one module may take."""

_START_SECONDS: Final = 60
_ENDING_SECONDS: Final = 5.0
"""The time that a process which has closed its pipe may take to end, on a busy machine."""

_CHILD: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from flowrun.runtime.signature_worker import main; main()"
)
_REMEDY: Final = "importing a module of tools must do nothing else"


class Request(NamedTuple):
    """An entrypoint, and the spec's file that names it."""

    entrypoint: str
    file: Path


class SignatureReader:
    """One child process at a time; a module that ends or hangs it costs only its own specs.

    Args:
        project_dir: the folder that entrypoints are imported from; None: it is found from each spec's file.
        seconds: the time that each import may take.
    """

    def __init__(self, project_dir: Path | None, *, seconds: int = IMPORT_SECONDS) -> None:
        self._project_dir = project_dir
        self._seconds = seconds
        self._child: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._pending = b""
        self._used = False
        self._harmful: dict[tuple[str, Path], EntrypointError] = {}
        self._known: dict[frozenset[tuple[str, Path]], dict[tuple[str, Path], Signature | EntrypointError]] = {}
        self._roots: dict[tuple[str, Path], Path] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end(seconds=0)  # nobody asks how it ended

    def read(self, requests: Iterable[Request]) -> dict[Request, Signature | EntrypointError]:
        """Return the signatures of all functions of one flow, or the error of each that cannot be imported.

        A flow's functions are imported together, as in a run. If the child has loaded a module of the same name for
        another flow, a new child reads them.
        """
        wanted = list(dict.fromkeys(requests))
        modules = frozenset((request.entrypoint, self._root(request)) for request in wanted)
        if modules not in self._known:
            found = self._read_all(wanted, last=not self._used)
            if found is None:
                self._end(seconds=0)
                found = self._read_all(wanted, last=True)
            assert found is not None
            self._used = True
            self._known[modules] = {(one.entrypoint, self._root(one)): signature for one, signature in found.items()}
        known = self._known[modules]
        return {request: known[request.entrypoint, self._root(request)] for request in wanted}

    def _root(self, request: Request) -> Path:
        """Return the folder that an entrypoint's module lies in; the spec's folder, if it is in none of the project."""
        name = request.entrypoint.partition(".")[0].partition(":")[0]
        place = (name, request.file.parent)
        if place not in self._roots:
            try:
                self._roots[place] = find_project_root(request.entrypoint, request.file, self._project_dir)
            except EntrypointError:
                self._roots[place] = request.file.resolve().parent
        return self._roots[place]

    def _read_all(
        self, requests: list[Request], *, last: bool = False
    ) -> dict[Request, Signature | EntrypointError] | None:
        """Read each request; None if a module of another flow is in the way, unless this is the ``last`` try."""
        found: dict[Request, Signature | EntrypointError] = {}
        for request in requests:
            module = (request.entrypoint.partition(":")[0], self._root(request))
            if module in self._harmful:
                found[request] = self._harmful[module]
                continue
            try:
                answer = self._ask(request)
            except EntrypointError as error:
                found[request] = self._harmful[module] = error
                continue
            if "signature" in answer:
                found[request] = msgspec.convert(answer["signature"], Signature)
                continue
            if answer["elsewhere"] and not last:
                return None
            found[request] = EntrypointError(answer["message"], answer["remedy"])
        return found

    def _ask(self, request: Request) -> dict[str, Any]:
        """Return the child's answer.

        Raises:
            EntrypointError: the import ended the child, or took too long; there is no child any more.
        """
        child = self._running()
        asked = {
            "entrypoint": request.entrypoint,
            "file": str(request.file),
            "project_dir": None if self._project_dir is None else str(self._project_dir),
            "seconds": self._seconds,
        }
        name = request.entrypoint.partition(":")[0]
        try:
            assert child.stdin is not None
            child.stdin.write(json.dumps(asked).encode() + b"\n")
            child.stdin.flush()
            return self._line(self._seconds)
        except TimeoutError:
            self._end()
            message = f"{name} cannot be imported: it takes longer than {self._seconds} seconds"
            raise EntrypointError(message, _REMEDY) from None
        except (EOFError, OSError, ValueError):
            message = f"{name} cannot be imported: it ends the process, {self._end(seconds=_ENDING_SECONDS)}"
            raise EntrypointError(message, _REMEDY) from None

    def start(self) -> None:
        """Start the child, if there is none. It gets ready while something else is done, before ``read``."""
        if self._child is None:
            self._child = subprocess.Popen(
                [sys.executable, "-c", _CHILD, json.dumps(path_of_installed())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # so that what a module starts ends with it
            )
            self._pending = b""
            self._used = self._ready = False

    def _running(self) -> subprocess.Popen[bytes]:
        self.start()
        assert self._child is not None
        if not self._ready:
            try:
                self._line(_START_SECONDS)
            except (TimeoutError, EOFError, ValueError) as error:
                raise EntrypointError(
                    f"Python cannot be started to import it: {self._end()}", "see its output, or use --no-import"
                ) from error
            self._ready = True
        return self._child

    def _line(self, seconds: float) -> dict[str, Any]:
        """Return the next line of the child.

        Raises:
            TimeoutError: there is none in time.
            EOFError: the child has ended.
        """
        assert self._child is not None
        assert self._child.stdout is not None
        pipe, deadline = self._child.stdout.fileno(), time.monotonic() + seconds
        while b"\n" not in self._pending:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise TimeoutError
            if not (part := os.read(pipe, 65536)):
                raise EOFError
            self._pending += part
        line, _, self._pending = self._pending.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _end(self, *, seconds: float = 0.1) -> str:
        """End the child and all that it started; return how it ended, for a message.

        Args:
            seconds: the time in which it may end by itself.
        """
        child, self._child = self._child, None
        if child is None:
            return ""
        ended = _exit_of(child, seconds)
        for stream in (child.stdin, child.stdout):
            assert stream is not None
            try:
                stream.close()
            except OSError:  # what was not yet written to it is lost with it
                pass
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        child.wait()
        return ended


def _exit_of(child: subprocess.Popen[bytes], seconds: float) -> str:
    """Return how a child ended that is ending; an empty text if it has not."""
    try:
        code = child.wait(seconds)
    except subprocess.TimeoutExpired:
        return "which was still running"
    return f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}"
