"""stdout is for the answer only, stdin for the user's. What functions write to stdout during a run goes to stderr.

To replace ``sys.stdout`` is not enough: C libraries, child processes and code with a reference to the old object write
to the file descriptor. So the descriptors themselves are redirected, stdin to the null device, and flowrun uses
duplicates of them: a function that closes or replaces what everybody has takes neither the answer nor a message along.
"""

import ctypes
import io
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from flowrun.errors import OutputError
from flowrun.functions.lasting_stream import LastingStream

STDIN: Final = 0
STDOUT: Final = 1
STDERR: Final = 2


class _Own(NamedTuple):
    """flowrun's own stdin and stderr while functions may run."""

    stdin: int
    stderr: TextIO


_own: list[_Own] = []


@contextmanager
def output_errors() -> Iterator[None]:
    """Raise an error of writing to stdout as an ``OutputError``; that its reader has gone stays what it is."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        raise OutputError(f"stdout cannot be written: {exc.strerror or exc}") from exc


class _Answers(io.TextIOWrapper):
    """A stream to the real stdout. What it cannot write is an ``OutputError``, once."""

    _failed = False

    def write(self, text: str) -> int:
        with output_errors():
            return super().write(text)

    def flush(self) -> None:
        if self._failed:
            return
        try:
            with output_errors():
                super().flush()
        except OutputError:
            self._failed = True
            raise

    def close(self) -> None:
        try:
            self.flush()
        finally:
            try:
                super().close()
            except OSError:
                if not self._failed:
                    raise


def refuse_closed_stdout() -> None:
    """Make a closed stdout one that cannot be written, so that an answer to it is an error and not lost silently."""
    null = os.open(os.devnull, os.O_RDONLY)
    if null != STDOUT:
        os.dup2(null, STDOUT)
        os.close(null)
    sys.stdout = open(STDOUT, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def is_of_click(exc: OSError) -> bool:
    """Return whether click itself raised an error: it could not print a help text."""
    *_, (frame, _) = traceback.walk_tb(exc.__traceback__)
    return str(frame.f_globals["__name__"]) == "click.utils" and not isinstance(exc, BrokenPipeError)


def forget_output() -> None:
    """Drop what stdout could not take: Python would try to write it again at its end, and complain."""
    with suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, STDOUT)
        os.close(null)


@contextmanager
def answer_stream() -> Iterator[TextIO]:
    """Yield a text stream to the real stdout. All else that is written there goes to stderr; stdin is empty.

    If ``sys.stdout`` is an object of a test or a notebook instead of the descriptor, the answer goes to this object.
    The end of the context restores everything.

    Raises:
        BrokenPipeError: at the end of the context, if the reader of the answer has gone.
        OutputError: stdout cannot be written.
    """
    for descriptor in (STDIN, STDOUT, STDERR):
        _open_if_closed(descriptor)
    before = sys.stdin, sys.stdout, sys.stderr
    _flush(*before[1:])
    saved = [os.dup(descriptor) for descriptor in (STDIN, STDOUT, STDERR)]
    answers = _stream_like(sys.stdout, os.dup(saved[STDOUT])) if _is(sys.stdout, STDOUT) else sys.stdout
    shared, own = (_lasting(sys.stderr, saved[STDERR]) for _ in range(2))
    _redirect(shared)
    _own.append(_Own(saved[STDIN], own))
    try:
        yield answers
    finally:
        _own.pop()
        _flush(shared, before[1])
        for descriptor, copy in enumerate(saved):
            os.dup2(copy, descriptor)
        sys.stdin, sys.stdout, sys.stderr = (_usable(stream, number) for number, stream in enumerate(before))
        for copy in saved:
            os.close(copy)
        if answers is not before[1]:
            answers.close()


def _redirect(shared: TextIO) -> None:
    os.dup2(STDERR, STDOUT)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, STDIN)
    os.close(null)
    if _is(sys.stdin, STDIN):
        sys.stdin = open(STDIN, closefd=False)  # noqa: SIM115 - without what the old one has read ahead
    sys.stdout = sys.stderr = shared


def _lasting(stream: TextIO, descriptor: int) -> TextIO:
    return LastingStream(descriptor, "<stderr>", stream) if _is(stream, STDERR) else stream


def message_stream() -> TextIO:
    """Return the stream for flowrun's own messages: stderr, which no function can close or replace."""
    return _own[-1].stderr if _own else sys.stderr


def input_descriptor() -> int | None:
    """Return the descriptor of the user's stdin; None if it is closed, or an object of a test or a notebook."""
    if _own:
        return _own[-1].stdin
    return STDIN if _is(sys.stdin, STDIN) and sys.stdin is not None else None


def real_path(path: Path) -> Path:
    """Return the path of a file; one that names stdin names the user's."""
    return Path(f"/dev/fd/{_own[-1].stdin}") if _own and str(path) in _NAMES_OF_STDIN else path


_NAMES_OF_STDIN: Final = frozenset({"/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"})


def _open_if_closed(descriptor: int) -> None:
    """Open a closed descriptor on the null device; otherwise the next opened file would get its number."""
    try:
        os.fstat(descriptor)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != descriptor:
            os.dup2(null, descriptor)
            os.close(null)


def _is(stream: TextIO | None, descriptor: int) -> bool:
    if stream is None:  # Python sets it to None if the descriptor is closed
        return True
    try:
        return stream.fileno() == descriptor
    except (OSError, ValueError, AttributeError):
        return False


def _usable(stream: TextIO, descriptor: int) -> TextIO:
    """Return a standard stream, or a new one in place of one that a function has closed."""
    if not getattr(stream, "closed", False):  # None if the descriptor is closed
        return stream
    return open(descriptor, "w" if descriptor else "r", closefd=False, errors="backslashreplace")


def _stream_like(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:
        return _Answers(open(descriptor, "wb"), encoding="utf-8")
    errors = "backslashreplace" if stream.errors == "strict" else stream.errors  # the encoding may lack characters
    return _Answers(open(descriptor, "wb"), encoding=stream.encoding, errors=errors)


def _flush(*streams: TextIO | None) -> None:
    """Flush streams, and the buffers of C."""
    for stream in streams:
        if stream is not None:
            with suppress(ValueError):  # a function has closed it
                stream.flush()
    ctypes.CDLL(None).fflush(None)
