"""A batch's results on disk: one line of JSON per row, written when the row ends; no row has two lines or half a line.

They are in one file or in shards (``sinks``). The sidecar file holds their fingerprint, and is locked while a batch
writes. A batch that is started again reads which rows are finished, and removes the broken lines that a crash left.
New results of retried rows are in a file of their own until they replace the old ones; if that is interrupted, the
next process starts it again.
"""

import fcntl
import itertools
import os
import secrets
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from flowrun.batch.lines import (
    GONE,
    Line,
    ends_within_a_line,
    inputs_of,
    is_debris,
    lines,
    parse_line,
    raw_lines,
    with_row,
)
from flowrun.batch.row_ids import Marks, RowIds
from flowrun.batch.rows import Row
from flowrun.batch.sinks import Sink
from flowrun.errors import StoreError, UsageError
from flowrun.files import PRIVATE, file_errors, open_private, sync_folder
from flowrun.runtime.run_result import mask_result
from flowrun.spec import mask
from flowrun.spec.strict_json import same
from flowrun.unicode import one_json_line

OnChange = Literal["refuse", "restart", "continue", "reconcile"]
"""The treatment of existing results of another spec or input: refuse them, move them away, keep them, or keep those
whose rows have the same inputs as before."""

SUCCEEDED: Final = "succeeded"


class Fingerprint(msgspec.Struct, frozen=True, kw_only=True):
    """The spec, input and batch that results belong to, as the sidecar file stores them.

    Attributes:
        spec: the digest of the spec's snapshot.
        input: the digest of the bytes of the row file.
        batch: the id of the batch, which its run ids start with; ``Results`` generates it.
        journal: the journal of a durable batch.
        rows: the number of rows; 0: not known.
        samples: the number of runs a row.
    """

    spec: str
    input: str
    batch: str = ""
    journal: str | None = None
    rows: int = 0
    samples: int = 1


class Results:
    """The results of one batch; only this process writes to them.

    Attributes:
        finished: the runs that have a result, by their numbers in the batch (``Row.place``).
        failed: the runs that had a result other than success when the results were opened.
        outcomes: the number of results at that time by error name, or by status if there is no error.
        mended: the number of lines that were removed, because they are broken, or no results of this batch.
        foreign: the number of these lines that a crash does not explain; they are kept in another file.
        gone: the number of results whose rows or samples the batch does not have any more; they are kept, and count as
            none.
        without_messages: the number of results of success at that time that have no messages.
        batch: the id of the batch, which its run ids start with.
    """

    def __init__(
        self,
        sink: Sink,
        fingerprint: Fingerprint,
        *,
        on_change: OnChange = "refuse",
        rows: Iterable[Row] = (),
        secrets: Mapping[str, str] = {},
        defaults: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
    ) -> None:
        """Open or create the results. If they are refused, no file is made or changed.

        Args:
            rows: the rows of the input; results of another input are kept for the rows that have their ids.
            defaults: adds the defaults of the flow to the inputs of a row, to compare them with those of a result.
            secrets: the secrets that no result may hold, each with the text that replaces it.

        Raises:
            UsageError: they belong to another spec or input, or are no results, or another process writes to them.
            StoreError: they cannot be read or written.
        """
        self.path = sink.path
        self.finished = Marks()
        self.failed = Marks()
        self.outcomes: Counter[str] = Counter()
        self.mended = self.foreign = self.gone = self.without_messages = 0
        self.batch = ""
        self.sink = sink
        self._samples = fingerprint.samples
        self._secrets = secrets
        self._defaults = defaults
        self._retrying = False
        self._unsynced = False
        self._syncing = threading.Lock()
        self._full: list[int] = []  # descriptors of full shards that are not synced yet
        self._index = self._line_count = 0  # the shard that is written to, and the number of its lines
        if special := sink.special():
            raise UsageError(f"-o {self.path}: {special} is no regular file: name another one")
        made = [path for path in (sink.sidecar, *sink.sidecar.parents) if not path.exists()]
        with self._store_errors():
            sink.sidecar.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(sink.sidecar, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        try:
            self._acquire_lock()
            with self._store_errors():
                self._claim(fingerprint, on_change, rows)
                self._read()
                self._file = self._open(sink.shard(self._index))
        except BaseException:
            _remove(made)
            os.close(self._lock)
            raise

    def _store_errors(self) -> AbstractContextManager[None]:
        remedy = "; the results written before are kept: mend this, then run the same command again"
        return file_errors(str(self.path), StoreError, remedy)

    # --- lock and fingerprint

    def _acquire_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            theirs = not os.path.samestat(os.fstat(self._lock), self.sink.sidecar.stat())  # a process removed it
        except OSError:
            theirs = True
        if theirs:
            raise UsageError(f"another process is writing to {self.path}")

    def _claim(self, fingerprint: Fingerprint, on_change: OnChange, rows: Iterable[Row]) -> None:
        exists = bool(self._files())
        known = self._read_fingerprint()
        if exists and on_change == "restart":
            self.sink.retried.unlink(missing_ok=True)  # first: a crash must not leave it without the results
            if self.sink.shards():
                self.sink.back_up()
        elif exists and on_change == "refuse":
            self._require_fingerprint(fingerprint, known)
        elif exists and known is None and not self._holds_results():
            raise UsageError(f"{self.path} holds no results of a batch: choose another -o")
        self.batch = known.batch if exists and known is not None and on_change != "restart" else ""
        self.batch = self.batch or secrets.token_hex(4)
        own = msgspec.structs.replace(fingerprint, batch=self.batch)
        if exists and on_change in ("continue", "reconcile") and (known is None or known.input != fingerprint.input):
            self._write_fingerprint(msgspec.structs.replace(own, input=""))  # a crash leaves some with new numbers
            self._merge_retried()
            self._renumber(rows, fingerprint.rows, compared=on_change == "reconcile")
        else:
            self._merge_retried()
        self._write_fingerprint(own)

    def _write_fingerprint(self, fingerprint: Fingerprint) -> None:
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, msgspec.json.encode(fingerprint) + b"\n", 0)
        os.fsync(self._lock)

    def _renumber(self, rows: Iterable[Row], count: int, *, compared: bool) -> None:
        """Give each result the number of the row that has its id in the changed input, or ``GONE``.

        Args:
            compared: so does one whose row has other inputs now.
        """
        if not count:
            return
        ids, inputs = RowIds(count), dict[int, Mapping[str, Any]]()
        for row in rows:
            ids.add(row.id, row.number)
            if compared:
                inputs[row.number] = mask(dict(row.inputs), self._secrets)

        def renumbered(raw: bytes) -> bytes:
            line = parse_line(raw)
            if line is None:
                return raw
            number = ids.number_of(line.row if line.id is None else line.id) or GONE
            if number in inputs and not self._is_about(inputs[number], inputs_of(raw)):
                number = GONE
            return raw if number == line.row else with_row(raw, number)

        for shard in self.sink.shards():
            if any(renumbered(raw) is not raw for _, raw in raw_lines(shard)):
                self._rewrite(shard, (renumbered(raw) for _, raw in raw_lines(shard)))

    def _is_about(self, row: Mapping[str, Any], recorded: Mapping[str, Any]) -> bool:
        """Return whether a result is about the inputs of a row, which have no defaults if its run could not begin."""
        return same(recorded, row) or same(recorded, self._defaults(row))

    def _require_fingerprint(self, fingerprint: Fingerprint, known: Fingerprint | None) -> None:
        path = self.path if self.sink.shards() else self.sink.retried
        away = f"moves them to {self.sink.backup.name}" if self.sink.shards() else "removes them"
        choices = (
            "--continue keeps its results, by the ids of the rows or else their numbers, and runs only those that have "
            "none; "
            f"--restart {away} and runs every row; or choose another -o"
        )
        if known is None:
            raise UsageError(f"{path} is there, and nothing says what it belongs to: {choices}")
        if known.journal != fingerprint.journal:
            how = f"with --durable --journal {known.journal}" if known.journal else "without --durable"
            raise UsageError(f"{path} was begun {how}: begin it so again, or calls may be made twice; {choices}")
        changed = [name for name in ("spec", "input", "samples") if getattr(known, name) != getattr(fingerprint, name)]
        if changed:
            how = "grew" if known.rows < fingerprint.rows else "shrank"
            resized = f"; the input {how} from {known.rows:,} to {fingerprint.rows:,} rows"
            same = "input" not in changed or known.rows in (0, fingerprint.rows)
            what = " and the ".join(changed)
            raise UsageError(f"the {what} changed since {path} was begun{'' if same else resized}: {choices}")

    def _files(self) -> list[Path]:
        """Return the existing files with results. Those of retried rows may be all that is left of a batch."""
        retried = self.sink.retried
        return [*self.sink.shards(), *([retried] if retried.exists() else [])]

    def _holds_results(self) -> bool:
        """Return whether the files are empty or hold at least one result; other files must not be overwritten."""
        files = self._files()
        return all(file.stat().st_size == 0 for file in files) or any(
            parse_line(raw) is not None for file in files for _, raw in raw_lines(file)
        )

    def _read_fingerprint(self) -> Fingerprint | None:
        try:
            return msgspec.json.decode(os.pread(self._lock, 4096, 0), type=Fingerprint)
        except ValueError:
            return None

    # --- reading

    def _read(self) -> None:
        """Read which rows are finished, and remove broken lines and repeated rows, which a crash may leave."""
        for index, shard in enumerate(self.sink.shards()):
            self._index, self._line_count = index, 0
            removed: set[int] = set()
            foreign: list[bytes] = []
            for offset, raw in raw_lines(shard):
                line = parse_line(raw)
                if line is None or line.place(self._samples) in self.finished:
                    removed.add(offset)
                    foreign += [] if is_debris(raw) else [raw]
                else:
                    self._record(line)
            self._keep_foreign(foreign)
            self.mended += len(removed)
            if len(removed) == 1 and ends_within_a_line(shard):
                os.truncate(shard, removed.pop())
            elif removed:
                self._rewrite(shard, (raw for offset, raw in raw_lines(shard) if offset not in removed))

    def _record(self, line: Line) -> None:
        self._line_count += 1
        place = line.place(self._samples)
        if place == GONE:
            self.gone += 1
            return
        self.finished.add(place)
        self.outcomes[line.outcome] += 1
        if line.status != SUCCEEDED:
            self.failed.add(place)
        elif not len(line.messages):
            self.without_messages += 1

    def _keep_foreign(self, found: Sequence[bytes]) -> None:
        """Append lines to a file of their own before they are removed: they may be somebody else's."""
        if not found:
            return
        descriptor = self._open(self.sink.foreign)
        with os.fdopen(descriptor, "ab") as file:
            file.writelines(found)
            file.flush()
            os.fsync(descriptor)
        self.foreign += len(found)

    def _rewrite(self, shard: Path, content: Iterable[bytes]) -> None:
        """Replace a shard by these lines; its permissions stay."""
        fresh = shard.with_name(f"{shard.name}.new")
        with open_private(fresh, like=shard) as file:
            file.writelines(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, shard)
        sync_folder(shard)

    # --- writing

    def _open(self, path: Path) -> int:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
        sync_folder(path)
        return descriptor

    def retry(self) -> None:
        """Write the following results to the file of retried rows; ``close`` replaces the old results by them."""
        with self._store_errors():
            retried = self._open(self.sink.retried)
        os.close(self._file)
        self._file, self._retrying = retried, True

    def write(self, result: Mapping[str, Any]) -> str:
        """Write a row's result and return its outcome. A crash of this process after this call does not lose it.

        Raises:
            StoreError: it cannot be written; the results before it are kept.
        """
        raw = one_json_line(msgspec.json.encode(mask_result(result, self._secrets))) + b"\n"
        line = parse_line(raw)
        if line is None:
            raise StoreError(f"{self.path}: a result without row and status")
        with self._store_errors():
            self._rotate()
            before = os.fstat(self._file).st_size
            try:
                written = os.write(self._file, raw)
                while written < len(raw):
                    written += os.write(self._file, raw[written:])
            except OSError:
                os.ftruncate(self._file, before)
                raise
        self._line_count += 1
        self._unsynced = True
        self.finished.add(line.place(self._samples))
        return line.outcome

    def _rotate(self) -> None:
        """Open a new shard if the current one is full."""
        if self._retrying or self.sink.rows is None or self._line_count < self.sink.rows:
            return
        fresh = self._open(self.sink.shard(self._index + 1))
        self._full.append(self._file)
        self._file, self._index, self._line_count = fresh, self._index + 1, 0

    def sync(self) -> None:
        """Sync the written results to disk, so that a power cut does not lose them. Blocks; any thread may call it."""
        with self._syncing, self._store_errors():
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
        """Sync, replace old results by the retried ones, and release the lock."""
        try:
            self.sync()
            os.close(self._file)
            with self._store_errors():
                self._merge_retried()
        finally:
            os.close(self._lock)

    def _merge_retried(self) -> None:
        retried = self.sink.retried
        if not retried.exists():
            return
        retried_rows = Marks()
        for _, line in lines(retried):
            retried_rows.add(line.place(self._samples))
        shards = self.sink.shards() or [self.sink.shard(0)]
        for shard in shards:
            old = {offset for offset, raw in raw_lines(shard) if self._is_of(raw, retried_rows)}
            kept = (raw for offset, raw in raw_lines(shard) if offset not in old and raw.endswith(b"\n"))
            if shard == shards[-1]:
                self._rewrite(shard, itertools.chain(kept, (raw for raw, _ in lines(retried))))
            elif old:
                self._rewrite(shard, kept)
        retried.unlink()

    def _is_of(self, raw: bytes, runs: Marks) -> bool:
        """Return whether a line is the result of one of these runs."""
        line = parse_line(raw)
        return line is not None and line.place(self._samples) in runs


def _remove(made: Iterable[Path]) -> None:
    """Remove a file and the folders that were made for it, the innermost first."""
    with suppress(OSError):  # another process uses one of the folders by now
        for path in made:
            if path.is_dir():
                path.rmdir()
            else:
                path.unlink()


def count_outcomes(sink: Sink, samples: int = 1) -> Counter[str]:
    """Count the runs of closed results by error name, or by status if there is no error."""
    found = (line for shard in sink.shards() for _, line in lines(shard))
    return Counter(line.outcome for line in found if line.place(samples) != GONE)
