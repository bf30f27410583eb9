"""stdout is for the answer only. All else that is written to stdout during a run goes to stderr.

To replace ``sys.stdout`` is not enough: C libraries, child processes and code with a reference to the old object write
to the file descriptor. So the descriptor itself is redirected to stderr, and the answer uses a duplicate of it.
"""

import ctypes
import io
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Final, TextIO

from flowrun.errors import OutputError

STDOUT: Final = 1
STDERR: Final = 2


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
    """Yield a text stream to the real stdout, and redirect all other output from stdout to stderr.

    If ``sys.stdout`` is an object of a test or a notebook instead of the descriptor, the answer goes to this object.
    The end of the context restores everything.

    Raises:
        BrokenPipeError: at the end of the context, if the reader of the answer has gone.
        OutputError: stdout cannot be written.
    """
    _open_if_closed(STDOUT)
    _open_if_closed(STDERR)
    original = sys.stdout
    _flush(original)
    saved = os.dup(STDOUT)
    answers = _stream_like(original, os.dup(saved)) if _is_descriptor(original) else original
    os.dup2(STDERR, STDOUT)
    try:
        with redirect_stdout(sys.stderr):
            yield answers
    finally:
        _flush(original)
        os.dup2(saved, STDOUT)
        os.close(saved)
        if answers is not original:
            answers.close()


def _open_if_closed(descriptor: int) -> None:
    """Open a closed descriptor on the null device; otherwise the next opened file would get its number."""
    try:
        os.fstat(descriptor)
    except OSError:
        null = os.open(os.devnull, os.O_RDWR)
        if null != descriptor:
            os.dup2(null, descriptor)
            os.close(null)


def _is_descriptor(stream: TextIO | None) -> bool:
    if stream is None:  # Python sets it to None if stdout is closed
        return True
    try:
        return stream.fileno() == STDOUT
    except (OSError, AttributeError):
        return False


def _stream_like(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:
        return _Answers(open(descriptor, "wb"), encoding="utf-8")
    errors = "backslashreplace" if stream.errors == "strict" else stream.errors  # the encoding may lack characters
    return _Answers(open(descriptor, "wb"), encoding=stream.encoding, errors=errors)


def _flush(stream: TextIO | None) -> None:
    """Flush the buffers of Python and C for stdout before the descriptor is redirected."""
    if stream is not None:
        stream.flush()
    ctypes.CDLL(None).fflush(None)
