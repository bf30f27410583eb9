"""Search for the specs and the eval files of a folder."""

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from flowrun.spec.project import is_file
from flowrun.spec.suggestions import closest
from flowrun.spec.yaml.reader import read_document

EVAL_SUFFIX: Final = ".eval.yaml"
"""The end of the name of an eval file."""

_WORDS: Final = re.compile(rb"flowrun|states|messages")
"""Of which one stands in each spec. Other files are not parsed."""

_KEY: Final = re.compile(rb"(?:^[\xef\xbb\xbf\xff\xfe]*|[\r\n{,])\s*[\"']?flowrun[\"']?\s*:")
"""The key in a file that is no valid YAML."""


def find_specs(path: Path) -> Iterator[Path]:
    """Yield the specs below a folder, sorted: YAML files with a top-level key ``flowrun``.

    Args:
        path: a folder, or a file, which is yielded whatever it contains.
    """
    if path.is_dir():
        yield from (file for file in find_files(path, (".yaml", ".yml")) if _is_spec(file))
    else:
        yield path


def find_evals(paths: Iterable[Path]) -> list[Path]:
    """Find the eval files among files and below folders, each once."""
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            found |= dict.fromkeys(find_files(path, (EVAL_SUFFIX,)))
        elif path.name.endswith(EVAL_SUFFIX):
            found[path] = None
    return list(found)


def find_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the visible files below a folder whose names have one of the suffixes, sorted; see ``walk_files``."""
    return sorted(file for files in walk_files(folder) for file in files if file.name.endswith(suffixes))


def walk_files(folder: Path) -> Iterator[list[Path]]:
    """Yield the visible files of a folder, then those of each folder below it, the nearest first.

    Hidden files and folders are left out, and so are virtual environments: their packages bring specs that are not the
    project's own. A folder that cannot be read has no files.
    """
    folders = deque([folder])
    while folders:
        files: list[Path] = []
        with suppress(OSError), os.scandir(folders.popleft()) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.name.startswith("."):
                    continue
                if not entry.is_dir(follow_symlinks=False):
                    files += [Path(entry.path)] if is_file(Path(entry.path)) else []
                elif not Path(entry.path, "pyvenv.cfg").is_file():
                    folders.append(Path(entry.path))
        yield files


def _is_spec(file: Path) -> bool:
    """Return whether a file is a spec. An unreadable file counts as one, so that loading it reports the error."""
    try:
        return is_spec(file.read_bytes())
    except OSError:
        return True


def is_spec(content: bytes) -> bool:
    """Return whether a file is meant as a spec: it has the top-level key ``flowrun``, in whatever form YAML allows.

    So is one whose key is misspelt, and one that is no valid YAML or not in UTF-8, but seems to have the key: they are
    reported rather than skipped.
    """
    plain = content.replace(b"\0", b"")  # UTF-16 has one in each character
    if not _WORDS.search(plain):
        return False
    value = read_document(content, "").value
    if not isinstance(value, dict):
        return _KEY.search(plain) is not None
    if "flowrun" in value:
        return True
    return "version" in value and not {"states", "messages"}.isdisjoint(value) and bool(closest("flowrun", value))
