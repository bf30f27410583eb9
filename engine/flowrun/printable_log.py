"""Makes the log records of libraries safe to display: they may hold text of models, tools and servers, and secrets."""

import logging
from collections.abc import Callable, Iterable

from flowrun.unicode import printable_styled


class PrintableFormatter(logging.Formatter):
    """A formatter that makes the output of another formatter printable; colours are preserved.

    Args:
        mask: replaces the secrets in a text.
    """

    def __init__(self, inner: logging.Formatter, mask: Callable[[str], str] = str) -> None:
        super().__init__()
        self._inner = inner
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        return printable_styled(self._mask(self._inner.format(record)))


def make_printable(handlers: Iterable[logging.Handler | None], mask: Callable[[str], str] = str) -> None:
    """Wrap the formatters of log handlers, so that their output holds no command of a terminal or a CI system."""
    for handler in handlers:
        if handler is not None and not isinstance(handler.formatter, PrintableFormatter):
            handler.setFormatter(PrintableFormatter(handler.formatter or logging.Formatter(), mask))
