"""The files of a batch's results: one file, or a folder with shards, which may be merged. They are only read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from flowrun.batch.lines import raw_lines
from flowrun.batch.sinks import Folder, OneFile
from flowrun.errors import UsageError
from flowrun.files import file_errors
from flowrun.records.record import Entry, parse_record

_MERGED: Final = "jsonl"


class RecordFiles:
    """The result files at a path.

    Attributes:
        files: those that are read. A merged file has the records in the order of the rows: it goes before the shards.
        retried: a file with new results, which replace others when the batch ends, and are not read; None without one.
        broken: the number of lines of the last reading that are no records.
    """

    def __init__(self, path: Path) -> None:
        """Find the files.

        Raises:
            UsageError: there are none.
        """
        if not path.exists():
            raise UsageError(f"{path}: there is no such file")
        sink = Folder(path) if path.is_dir() else OneFile(path)
        self.path = path
        self.files = _files_of(sink)
        self.retried = sink.retried if sink.retried.exists() else None
        self.broken = 0

    def entries(self) -> Iterator[Entry]:
        """Yield the records, in the order of the lines. Empty lines count neither as records nor as broken.

        Raises:
            UsageError: a file cannot be read.
        """
        self.broken = 0
        for file in self.files:
            with file_errors(str(file)):
                for number, (_, raw) in enumerate(raw_lines(file), 1):
                    record = parse_record(raw)
                    if record is not None:
                        yield Entry(str(file), number, raw, record)
                    elif raw.strip():
                        self.broken += 1


def _files_of(sink: OneFile | Folder) -> list[Path]:
    if isinstance(sink, OneFile):
        return [sink.path]
    merged = sink.merged(_MERGED)
    files = [merged] if merged.exists() else sink.shards()
    if not files:
        raise UsageError(f"{sink.path} holds no results: a batch writes {merged.name} or part-*.jsonl into a folder")
    return files
