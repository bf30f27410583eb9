"""The lock of models: what the files of a model were, in the member ``model`` of ``NAME.lock.json``.

``flowrun lock`` writes it. A run compares it with the files that it finds; checks and comparisons of specs read it
alone.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from flowrun.errors import Issue, Path, Place, UnreadableFile
from flowrun.spec.document import Document
from flowrun.spec.lock_file import lock_path, parse_lock
from flowrun.spec.model import Model

if TYPE_CHECKING:
    from flowrun.spec.load import Files

MEMBER: Final = "model"
"""The member of the lock file."""

_SHOWN: Final = 12  # digits of a digest in messages


class LockedFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file of a model: its size in bytes, and its SHA-256 in hexadecimal, empty if that was not computed."""

    size: int
    sha256: str = ""

    def __str__(self) -> str:
        return f"{self.size:,} bytes{f', sha256 {self.sha256[:_SHOWN]}' if self.sha256 else ''}"


class LockedAdapter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A LoRA adapter: by the commit of its repository, or by its files."""

    name: str
    commit: str | None = None
    files: Mapping[str, LockedFile] = {}


class LockedModel(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is locked of a model.

    Attributes:
        name, revision, tool_call_parser, reasoning_parser: as the spec has them.
        commit: the commit of its repository on the hub; it stands for all files.
        files: the files of a model that is no repository, by their names in its folder.
        tokenizer: the SHA-256 of what its tokenizer is made of, without its chat template.
        chat_template: the SHA-256 of the template that is in effect; None if the tokenizer has its format built in.
        vllm: the version of vLLM, without that of its build.
    """

    name: str
    revision: str | None = None
    commit: str | None = None
    files: Mapping[str, LockedFile] = {}
    tokenizer: str | None = None
    chat_template: str | None = None
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    adapter: LockedAdapter | None = None
    vllm: str | None = None

    @property
    def digest(self) -> str:
        """Return the first 16 hexadecimal digits of the SHA-256 of all that is locked."""
        return hashlib.sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:16]


class ModelLock(msgspec.Struct, frozen=True, kw_only=True):
    """The lock of a spec, as it is loaded with a profile.

    Attributes:
        file, text: the lock file, with its other members.
        models: by the model's name; with a profile by ``NAME@PROFILE``. Those of a local flow have its name and a slash
            before theirs.
    """

    file: str
    text: str
    profile: str | None
    models: Mapping[str, LockedModel] = {}

    @property
    def has_profile(self) -> bool:
        """Return whether something was locked with this profile. A lock need not have all profiles."""
        return self.profile is None or any(key.endswith(f"@{self.profile}") for key in self.models)

    def find(self, key: str, model: Model) -> LockedModel | None:
        """Return what is locked of a model; with a profile that has none of its own, that of the plain spec if it fits.

        Args:
            key: the model's key without a profile; see ``key_of``.
        """
        if self.profile is not None:
            own = self.models.get(f"{key}@{self.profile}")
            plain = self.models.get(key)
            return own or (plain if plain is not None and not list(departures(model, plain)) else None)
        return self.models.get(key)


def key_of(base: Path, name: str, profile: str | None = None) -> str:
    """Return the key of a model in the lock.

    Args:
        base: the path of its flow in the file.
    """
    return "/".join([*map(str, base[1::2]), name]) + (f"@{profile}" if profile else "")


def include_model_lock(document: Document, files: "Files", profile: str | None) -> tuple[Document, list[Issue]]:
    """Return a document with the lock of its models, if it has one, and the issue of one that cannot be read."""
    path = lock_path(FilePath(document.file))
    if not files.has(path):
        return document, []
    try:
        text = files.read(path).decode()
        models = read_models(text)
    except (UnreadableFile, ValueError) as exc:
        place, remedy = Place(str(path), 1, 1), f"write it anew: delete it, then flowrun lock {document.file}"
        return document, [Issue(code="FR719", place=place, message=f"the lock cannot be read: {exc}", remedy=remedy)]
    if not models:
        return document, []
    lock = ModelLock(file=str(path), text=text, profile=profile, models=models)
    return msgspec.structs.replace(document, lock=lock), []


def read_models(text: str) -> dict[str, LockedModel]:
    """Return the models of a lock file. Raises ``ValueError``."""
    return msgspec.convert(parse_lock(text).get(MEMBER, {}), dict[str, LockedModel])


def as_data(models: Mapping[str, LockedModel]) -> dict[str, Any]:
    """Return models as the member of a lock file."""
    data: dict[str, Any] = msgspec.to_builtins(models)
    return data


def departures(model: Model, locked: LockedModel) -> Iterator[str]:
    """Yield what a spec says otherwise than when its model was locked: the lock is not that of this model."""
    adapter = None if locked.adapter is None else locked.adapter.name
    for what, now, then in (
        ("name", model.name, locked.name),
        ("revision", model.revision, locked.revision),
        ("adapter", model.adapter, adapter),
        ("tool_call_parser", model.tool_call_parser, locked.tool_call_parser),
        ("reasoning_parser", model.reasoning_parser, locked.reasoning_parser),
    ):
        if now != then and "${" not in (now or ""):
            yield f"{what} is {_said(now)}, and {_said(then)} in the lock"


class Difference(NamedTuple):
    """A difference between two states of a model; the values are texts for people, None where there is none."""

    path: tuple[str, ...]
    old: str | None
    new: str | None

    def __str__(self) -> str:
        return f"{' '.join(self.path)} is {_said(self.new)}, and {_said(self.old)} in the lock"


def compare_models(old: LockedModel, new: LockedModel, *, unknown: frozenset[str] = frozenset()) -> list[Difference]:
    """Return the differences between what is locked and what is found, or between two locks.

    Args:
        unknown: the members of ``new`` that could not be looked at.
    """
    found: list[Difference] = []
    for member in ("name", "revision", "commit", "tokenizer", "chat_template", "tool_call_parser", "reasoning_parser"):
        if member not in unknown:
            found += _compare((member,), getattr(old, member), getattr(new, member))
    if "files" not in unknown:
        found += _compare_files(("files",), old.files, new.files)
    if "adapter" not in unknown:
        before, after = (one or LockedAdapter(name="") for one in (old.adapter, new.adapter))
        found += _compare(("adapter",), before.name or None, after.name or None)
        found += _compare(("adapter", "commit"), before.commit, after.commit)
        found += _compare_files(("adapter", "files"), before.files, after.files)
    return found if "vllm" in unknown else [*found, *_compare(("vllm",), old.vllm, new.vllm)]


def _compare(path: tuple[str, ...], old: str | None, new: str | None) -> Iterator[Difference]:
    if old != new:
        yield Difference(path, _short(old), _short(new))


def _compare_files(
    path: tuple[str, ...], old: Mapping[str, LockedFile], new: Mapping[str, LockedFile]
) -> Iterator[Difference]:
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if before is None or after is None:
            shown = (None if one is None else str(one) for one in (before, after))
            yield Difference((*path, name), *shown)
        elif before.size != after.size or (before.sha256 != after.sha256 and before.sha256 and after.sha256):
            yield Difference((*path, name), str(before), str(after))


def _short(value: str | None) -> str | None:
    """Return a digest or a commit cut, and any other text as it is."""
    if value is not None and len(value) >= 40 and set(value) <= set("0123456789abcdef"):
        return value[:_SHOWN]
    return value


def _said(value: str | None) -> str:
    return "none" if value is None else value
