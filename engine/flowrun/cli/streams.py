"""stdout belongs to the answer. Whatever else writes there while a run is on writes to stderr instead.

Replacing ``sys.stdout`` alone would not do: C libraries, child processes and whoever kept the old object write to the
file descriptor. So the descriptor itself is pointed to stderr, and the answer gets a copy of what it was.
"""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Final, TextIO

STDOUT: Final = 1
STDERR: Final = 2


@contextmanager
def answer_stream() -> Iterator[TextIO]:
    """Give a text stream to the real stdout, and point everything else that is written to stdout to stderr.

    Where ``sys.stdout`` is an object of a test or a notebook rather than the descriptor, the answer goes to the object.
    On leaving, everything is as it was before.

    Raises:
        BrokenPipeError: on leaving, if the reader of the answer has gone.
    """
    _open_if_closed(STDOUT)
    _open_if_closed(STDERR)
    original = sys.stdout
    _flush(original)
    kept = os.dup(STDOUT)
    answers = _stream_like(original, os.dup(kept)) if _is_descriptor(original) else original
    os.dup2(STDERR, STDOUT)
    try:
        with redirect_stdout(sys.stderr):
            yield answers
    finally:
        _flush(original)
        os.dup2(kept, STDOUT)
        os.close(kept)
        if answers is not original:
            answers.close()


def _open_if_closed(descriptor: int) -> None:
    """Point a closed descriptor to nowhere; else the next file that is opened would take its number."""
    try:
        os.fstat(descriptor)
    except OSError:
        nowhere = os.open(os.devnull, os.O_RDWR)
        if nowhere != descriptor:
            os.dup2(nowhere, descriptor)
            os.close(nowhere)


def _is_descriptor(stream: TextIO | None) -> bool:
    if stream is None:  # Python starts like this if stdout is closed
        return True
    try:
        return stream.fileno() == STDOUT
    except (OSError, AttributeError):
        return False


def _stream_like(stream: TextIO | None, descriptor: int) -> TextIO:
    if stream is None:
        return open(descriptor, "w", encoding="utf-8")
    errors = "backslashreplace" if stream.errors == "strict" else stream.errors  # an encoding may lack characters
    return open(descriptor, "w", encoding=stream.encoding, errors=errors)


def _flush(stream: TextIO | None) -> None:
    """Write out what Python and C hold back for stdout, while the descriptor still leads where it was meant to go."""
    if stream is not None:
        stream.flush()
    ctypes.CDLL(None).fflush(None)
