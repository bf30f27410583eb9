"""Text streams that functions cannot close: ``sys.stdout`` is everybody's, and libraries close what they wrap.

What they cannot write is dropped: it is no answer, and a full disk behind a log must not fail a call or a run.
"""

import io
from typing import Any


class _Descriptor(io.FileIO):
    def write(self, data: Any, /) -> int:
        """Write what can be written; drop it if nothing can, because the disk is full or the reader has gone."""
        try:
            return super().write(data)
        except OSError:
            return len(data)

    def close(self) -> None:
        """Stay open."""


class _Buffer(io.BufferedWriter):
    def close(self) -> None:
        """Stay open, such as when a ``TextIOWrapper`` around ``sys.stdout.buffer`` is dropped."""
        self.flush()

    def detach(self) -> Any:
        """Return a new raw stream, and stay attached."""
        self.flush()
        return _Descriptor(self.fileno(), "w", closefd=False)


class LastingStream(io.TextIOWrapper):
    """A text stream to a descriptor, which neither ``close`` nor ``detach`` ends.

    Args:
        name: the name that it shows, such as ``<stderr>``.
        like: the stream whose encoding it has; UTF-8 if None.
    """

    def __init__(self, descriptor: int, name: str, like: Any = None) -> None:
        super().__init__(
            _buffer(descriptor), encoding=getattr(like, "encoding", None) or "utf-8", errors="backslashreplace"
        )
        self.reconfigure(line_buffering=True)
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def close(self) -> None:
        """Stay open."""
        self.flush()

    def detach(self) -> Any:
        """Return a new binary stream, and stay attached."""
        self.flush()
        return _buffer(self.fileno())


def _buffer(descriptor: int) -> _Buffer:
    return _Buffer(_Descriptor(descriptor, "w", closefd=False))
