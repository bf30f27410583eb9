"""What others log is shown as all else is: records hold what models wrote, exceptions what tools and servers say."""

import logging
from collections.abc import Iterable

from flowrun.unicode import printable_styled


class PrintableFormatter(logging.Formatter):
    """Formats a record as another formatter does, and makes it printable; colours stay."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        return printable_styled(self._inner.format(record))


def make_printable(handlers: Iterable[logging.Handler | None]) -> None:
    """Have handlers of logs write nothing that a terminal or a CI system would obey."""
    for handler in handlers:
        if handler is not None and not isinstance(handler.formatter, PrintableFormatter):
            handler.setFormatter(PrintableFormatter(handler.formatter or logging.Formatter()))
