"""A batch's results on disk: one line of JSON a row, written as the row ends, never twice, never half.

They lie in one file or in many (``sinks``). Beside them lies what they belong to, locked while a batch writes. A
batch that is begun again finds the rows that are done, and mends what a crash left. Results of rows that are tried anew
are kept beside, until they take the place of the old ones: if that is interrupted, it is done again from its start.
"""

import fcntl
import os
import secrets
import threading
from collections import Counter
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from flowrun.batch.lines import Line, ends_within_a_line, lines, parse_line, raw_lines
from flowrun.batch.sinks import Sink
from flowrun.errors import StoreError, UsageError

OnChange = Literal["refuse", "restart", "continue"]
"""What to do with results that belong to another spec or input."""

SUCCEEDED: Final = "succeeded"


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """What results belong to: digests of the spec, as ``snapshots`` has it, and of the input's bytes.

    ``batch`` is the name that their runs have in common, given when the results are begun; ``journal`` the file that a
    durable batch writes to.
    """

    spec: str
    input: str
    batch: str = ""
    journal: str | None = None


class Marks:
    """A set of row numbers, a bit each."""

    def __init__(self) -> None:
        self._bits = bytearray()

    def add(self, number: int) -> None:
        """Put a number in."""
        place, bit = divmod(number, 8)
        if place >= len(self._bits):
            self._bits.extend(bytes(place + 1 - len(self._bits)))
        self._bits[place] |= 1 << bit

    def __contains__(self, number: int) -> bool:
        place, bit = divmod(number, 8)
        return place < len(self._bits) and bool(self._bits[place] >> bit & 1)


class Results:
    """The results of one batch; this process alone writes to them.

    ``finished`` are the rows whose results are there, ``failed`` those of them that did not succeed, ``outcomes``
    counts them by error name, or by status where there is none. ``mended`` counts the broken lines that were dropped.
    ``batch`` is the name that the runs have in common.
    """

    def __init__(self, sink: Sink, fingerprint: Fingerprint, *, on_change: OnChange = "refuse") -> None:
        """Open or create the results.

        Raises:
            UsageError: they belong to something else, or another process writes to them.
            StoreError: they cannot be read or written.
        """
        self.path = sink.path
        self.finished = Marks()
        self.failed = Marks()
        self.outcomes: Counter[str] = Counter()
        self.mended = 0
        self.batch = ""
        self.sink = sink
        self._retrying = False
        self._unsynced = False
        self._syncing = threading.Lock()
        self._full: list[int] = []  # files that get no more lines, and are not yet synced
        self._index = self._held = 0  # the part that is written to, and the lines in it
        with _told(self.path):
            sink.beside.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(sink.beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            self._take_lock()
            with _told(self.path):
                self._settle(fingerprint, on_change)
                self._merge_retried()
                self._read()
                self._file = self._open(sink.part(self._index))
        except BaseException:
            os.close(self._lock)
            raise

    # --- what the results belong to

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            raise UsageError(f"another process is writing to {self.path}") from exc

    def _settle(self, fingerprint: Fingerprint, on_change: OnChange) -> None:
        there = bool(self.sink.parts())
        if there and on_change == "restart":
            self.sink.put_aside()
            self.sink.retried.unlink(missing_ok=True)
        elif there and on_change == "refuse":
            self._check(fingerprint)
        elif there and self._known() is None and not self._holds_results():
            raise UsageError(f"{self.path} holds no results of a batch: choose another -o")
        known = self._known()
        self.batch = known.batch if there and known is not None and on_change != "restart" else ""
        self.batch = self.batch or secrets.token_hex(4)
        kept = msgspec.structs.replace(fingerprint, batch=self.batch)
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, msgspec.json.encode(kept) + b"\n", 0)
        os.fsync(self._lock)

    def _check(self, fingerprint: Fingerprint) -> None:
        ways = (
            "--continue keeps its results, by the numbers of the rows, and runs only those that have none; "
            "--restart puts them aside, as "
            f"{self.sink.aside.name}, and runs every row; or choose another -o"
        )
        known = self._known()
        if known is None:
            raise UsageError(f"{self.path} is there, and nothing says what it belongs to: {ways}")
        if known.journal != fingerprint.journal:
            how = f"with --durable --journal {known.journal}" if known.journal else "without --durable"
            raise UsageError(f"{self.path} was begun {how}: begin it so again, or calls may be made twice; {ways}")
        changed = [name for name in ("spec", "input") if getattr(known, name) != getattr(fingerprint, name)]
        if changed:
            what = " and the ".join(changed)
            raise UsageError(f"the {what} changed since {self.path} was begun: {ways}")

    def _holds_results(self) -> bool:
        """Tell whether what is there is empty or has a result at least, so that it is nobody's notes."""
        parts = self.sink.parts()
        return all(part.stat().st_size == 0 for part in parts) or any(
            parse_line(raw) is not None for part in parts for _, raw in raw_lines(part)
        )

    def _known(self) -> Fingerprint | None:
        try:
            return msgspec.json.decode(os.pread(self._lock, 4096, 0), type=Fingerprint)
        except ValueError:
            return None

    # --- reading

    def _read(self) -> None:
        """Learn which rows are finished, and drop what a crash left half-written."""
        for index, part in enumerate(self.sink.parts()):
            self._index, self._held = index, 0
            broken: set[int] = set()
            for at, raw in raw_lines(part):
                line = parse_line(raw)
                if line is None or line.row in self.finished:
                    broken.add(at)
                else:
                    self._note(line)
            self.mended += len(broken)
            if len(broken) == 1 and ends_within_a_line(part):
                os.truncate(part, broken.pop())
            elif broken:
                self._rewrite(part, broken)

    def _note(self, line: Line) -> None:
        self._held += 1
        self.finished.add(line.row)
        self.outcomes[line.outcome] += 1
        if line.status != SUCCEEDED:
            self.failed.add(line.row)

    def _rewrite(self, part: Path, dropped: Container[int], *, added: Path | None = None) -> None:
        """Write the lines that are not dropped, then those of another file, and put the whole in the place of the old.

        A line is dropped by where it begins.
        """
        fresh = part.with_name(f"{part.name}.new")
        with fresh.open("wb") as file:
            for at, raw in raw_lines(part):
                if at not in dropped:
                    file.write(raw)
            for raw, _ in lines(added) if added is not None else ():
                file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, part)
        _sync_folder(part)

    # --- writing

    def _open(self, path: Path) -> int:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        _sync_folder(path)
        return descriptor

    def retry(self) -> None:
        """Write from now on what takes the place of older results of the same rows, once the file is closed."""
        with _told(self.path):
            retried = self._open(self.sink.retried)
        os.close(self._file)
        self._file, self._retrying = retried, True

    def write(self, result: Mapping[str, Any]) -> str:
        """Write a row's result, which a crash of this process cannot take back any more; give its outcome.

        Raises:
            StoreError: it cannot be written; what was written before it is kept.
        """
        raw = msgspec.json.encode(result) + b"\n"
        line = parse_line(raw)
        if line is None:
            raise StoreError(f"{self.path}: a result without row and status")
        with _told(self.path):
            self._turn_over()
            before = os.fstat(self._file).st_size
            try:
                written = os.write(self._file, raw)
                while written < len(raw):
                    written += os.write(self._file, raw[written:])
            except OSError:
                os.ftruncate(self._file, before)
                raise
        self._held += 1
        self._unsynced = True
        self.finished.add(line.row)
        return line.outcome

    def _turn_over(self) -> None:
        """Go on with a new part if this one is full."""
        if self._retrying or self.sink.rows is None or self._held < self.sink.rows:
            return
        fresh = self._open(self.sink.part(self._index + 1))
        self._full.append(self._file)
        self._file, self._index, self._held = fresh, self._index + 1, 0

    def sync(self) -> None:
        """Bring to the disk what was written, so that a power cut cannot take it back. Blocks; any thread may call."""
        with self._syncing, _told(self.path):
            if self._unsynced:
                self._unsynced = False
                try:
                    while self._full:
                        os.fsync(self._full[-1])
                        os.close(self._full.pop())
                    os.fsync(self._file)
                except OSError:
                    self._unsynced = True
                    raise

    def close(self) -> None:
        """Sync, put retried results in their places, and let the next process write."""
        try:
            self.sync()
            os.close(self._file)
            with _told(self.path):
                self._merge_retried()
        finally:
            os.close(self._lock)

    def _merge_retried(self) -> None:
        retried = self.sink.retried
        if not retried.exists():
            return
        anew = Marks()
        for _, again in lines(retried):
            anew.add(again.row)
        parts = self.sink.parts() or [self.sink.part(0)]
        for part in parts:
            last = part == parts[-1]
            old = {at for at, raw in raw_lines(part) if (line := parse_line(raw)) is None or line.row in anew}
            if old or last:
                self._rewrite(part, old, added=retried if last else None)
        retried.unlink()


def count_outcomes(sink: Sink) -> Counter[str]:
    """Count the rows of closed results by error name, or by status where there is none."""
    return Counter(line.outcome for part in sink.parts() for _, line in lines(part))


class _told:
    """Says of an error of the operating system which results it is about, and that none is lost."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, exc: BaseException | None, traceback: Any) -> None:
        if isinstance(exc, OSError):
            raise StoreError(
                f"{self._path}: {exc.strerror or exc}; the results written before are kept: mend this, then run the "
                "same command again"
            ) from exc


def _sync_folder(path: Path) -> None:
    """Bring to the disk that a file is there."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
