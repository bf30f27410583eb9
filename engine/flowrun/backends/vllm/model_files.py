"""Finds the model that a spec names: a file of a package, a path beside the spec, or a repository of the hub.

No weights are loaded and no vLLM is imported here. The result is a value of vLLM's argument ``model``: the path of a
Hugging Face folder, or the id of a repository that the hub has.
"""

import asyncio
import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path

from flowrun.backends.vllm.gguf import convert_gguf, converted_folder, is_gguf
from flowrun.errors import BackendError

PACKAGE = "package:"
HUB_TIMEOUT = 10.0  # seconds for one small request to the hub
CONFIGS = ("config.json", "params.json")  # Hugging Face's and Mistral's
LISTED = 12  # names in a message
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PATH = re.compile(r"[./~].*|.*\.gguf|.*/.*/.*")


async def find_model(
    name: str,
    *,
    base_dir: Path,
    revision: str | None = None,
    cache_dir: Path | None = None,
    progress: Callable[[str], None] = lambda message: None,
    note: Callable[[str], None] = lambda message: None,
) -> str:
    """Return the value of vLLM's argument ``model``; a GGUF file is converted on its first use.

    Args:
        base_dir: the spec's folder; paths are relative to it.
        cache_dir: the folder of converted models; the user's cache if None.
        progress: called when a conversion begins.
        note: called with the notes of a conversion.

    Raises:
        BackendError: the package, file, folder or repository does not exist, or holds no model.
    """
    if "://" in name:  # an object store, which vLLM reads itself
        return name
    path = find_local_model(name, base_dir)
    if path is None:
        return await asyncio.to_thread(find_on_hub, name, revision)
    if is_gguf(path):
        cache = cache_dir or default_cache_dir()
        return str(await convert_gguf(path, cache_dir=cache, progress=progress, note=note))
    if path.is_file():
        raise BackendError(f"{path} is not a GGUF file: name a GGUF file, or the folder that the model's files are in")
    if not any((path / config).is_file() for config in CONFIGS):
        raise BackendError(f"{path} holds no model, for it has no {' or '.join(CONFIGS)}; {listing(path)}")
    return str(path)


async def find_model_here(
    name: str, *, base_dir: Path, revision: str | None = None, cache_dir: Path | None = None
) -> str:
    """Return what ``find_model`` does, of a model that is on this machine in the form that vLLM loads.

    Raises:
        BackendError: it is not, or it exists nowhere.
    """
    if "://" in name:
        raise BackendError("it is in an object store, and not on this machine")
    path = find_local_model(name, base_dir)
    if path is None:
        cached = await asyncio.to_thread(find_in_hub_cache, name, revision)
        if cached is None:
            raise BackendError("it is not in the hub's cache on this machine, and nothing is fetched")
        return cached
    if not is_gguf(path):
        return await find_model(name, base_dir=base_dir, revision=revision)
    converted = await asyncio.to_thread(converted_folder, path, cache_dir or default_cache_dir())
    if not converted.is_dir():
        raise BackendError(f"{path.name} was not converted on this machine yet, which its first run does")
    return str(converted)


def default_cache_dir() -> Path:
    """Return the folder of converted models, by the XDG base directory specification."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "flowrun" / "models"


def find_local_model(name: str, base_dir: Path) -> Path | None:
    """Find a package's file or a path; None if the name can only be that of a repository.

    Raises:
        BackendError: the name is that of a path or a package's file, which does not exist.
    """
    if name.startswith(PACKAGE):
        return find_package_file(name.removeprefix(PACKAGE))
    path = base_dir / Path(name).expanduser()
    if path.exists():
        return path.resolve()
    if _PATH.fullmatch(name):
        raise BackendError(f"model not found: there is no {path}; {listing(path.parent)}")
    if not _HUB_ID.fullmatch(name):
        raise BackendError(
            f"model not found: {name!r} is no path that exists, and no repository of the hub can be called so; "
            f"write a path, 'organisation/model', or '{PACKAGE}<module>/<file>'"
        )
    return None


def find_package_file(reference: str) -> Path:
    """Find ``<module>/<file>`` in an installed package without importing it.

    Raises:
        BackendError: the package is not installed, or has no such file.
    """
    module, _, file = reference.partition("/")
    package, *parts = module.split(".")
    if not package or not file:
        raise BackendError(f"{PACKAGE}{reference} names no file: write {PACKAGE}<module>/<file>")
    spec = importlib.util.find_spec(package)
    if spec is None:
        raise BackendError(
            f"model not found: the package {package!r} is not installed; "
            f"`pip install {package.replace('_', '-')}` may help"
        )
    folders = [Path(folder, *parts) for folder in spec.submodule_search_locations or ()]
    if not folders:
        raise BackendError(f"model not found: {package!r} is a module of one file, not a package that holds files")
    for folder in folders:
        if (folder / file).exists():
            return (folder / file).resolve()
    raise BackendError(f"model not found: the package {package!r} has no {file}; {listing(folders[0])}")


def listing(folder: Path) -> str:
    """Return a clause that lists the entries of a folder."""
    if not folder.is_dir():
        return f"there is no folder {folder} either"
    names = sorted(entry.name + "/" * entry.is_dir() for entry in folder.iterdir() if entry.name[0] not in "._")
    if not names:
        return f"{folder} is empty"
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"in {folder} there are {', '.join(names[:LISTED])}{more}"


def find_on_hub(name: str, revision: str | None) -> str:
    """Return a repository's id if the hub has it, or its folder in the hub's cache.

    The hub is asked only once, while vLLM would wait and retry. A hub that cannot be reached is no error if the cache
    has the model.

    Raises:
        BackendError: neither the hub nor its cache has the repository, or the hub refuses access.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if os.environ.get("VLLM_USE_MODELSCOPE", "").lower() in ("1", "true"):  # another hub, which vLLM reads itself
        return name
    cached = find_in_hub_cache(name, revision)
    if constants.HF_HUB_OFFLINE:
        if cached is None:
            raise BackendError(f"model not found: {name!r} is not in the hub's cache, and HF_HUB_OFFLINE is set")
        return cached
    try:
        HfApi().model_info(name, revision=revision, timeout=HUB_TIMEOUT)
    except Exception as exc:
        if cached is not None:
            return cached
        if isinstance(exc, GatedRepoError):
            why = "the hub gives it only to those who accepted its terms: accept them there and set HF_TOKEN"
        elif isinstance(exc, RevisionNotFoundError):
            why = f"the hub has it, but not the revision {revision!r}"
        elif isinstance(exc, RepositoryNotFoundError):
            why = "the hub has no such repository, or a private one: check the name, or set HF_TOKEN"
        else:
            why = f"it is no path beside the spec, it is not in the hub's cache, and the hub cannot be reached ({exc})"
        raise BackendError(f"model not found: {name!r}: {why}") from exc
    return name


def find_in_hub_cache(name: str, revision: str | None) -> str | None:
    """Return a repository's folder in the hub's cache, or None."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except Exception:  # with any error of the cache, the model is not in it
        return None
    return str(folder) if any((folder / config).is_file() for config in CONFIGS) else None


def commit_in_cache(name: str, revision: str | None) -> str | None:
    """Return the commit of a revision by the hub's cache, or None. One small file is read.

    The cache is that of ``huggingface_hub``: ``models--ORGANISATION--MODEL/refs/REVISION`` holds the commit.
    """
    if os.environ.get("VLLM_USE_MODELSCOPE", "").lower() in ("1", "true"):  # another hub, which vLLM reads itself
        return None
    if revision is not None and _COMMIT.fullmatch(revision):
        return revision
    try:
        from huggingface_hub import constants

        repository = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
        return (repository / "refs" / (revision or "main")).read_text(encoding="utf-8").strip() or None
    except (ImportError, OSError, ValueError):
        return None
