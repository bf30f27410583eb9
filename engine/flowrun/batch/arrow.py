"""Imports pyarrow, which reading and writing Parquet needs."""

from pathlib import Path
from typing import Any

from flowrun.errors import UsageError, install_extra


def load_arrow(path: Path | None = None) -> Any:
    """Return the module ``pyarrow``, with ``pyarrow.parquet``.

    Args:
        path: the file that needs it, for the error.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import pyarrow.parquet
    except ImportError as exc:
        where = "" if path is None else f"{path}: "
        raise UsageError(f"{where}Parquet needs pyarrow: {install_extra('parquet')}") from exc
    return pyarrow
