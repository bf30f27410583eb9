"""Search for the spec files of a folder."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from flowrun.spec.project import is_file

_IS_SPEC: Final = re.compile(rb"^[\"']?flowrun[\"']?\s*:", re.MULTILINE)


def find_specs(path: Path) -> Iterator[Path]:
    """Yield the specs below a folder, sorted: YAML files with a top-level key ``flowrun``.

    Args:
        path: a folder, or a file, which is yielded whatever it contains.
    """
    if path.is_dir():
        yield from (file for file in find_files(path, (".yaml", ".yml")) if _is_spec(file))
    else:
        yield path


def find_files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """Return the files below a folder whose names have one of the suffixes, sorted.

    Hidden files and folders are left out, and so are virtual environments: their packages bring specs that are not the
    project's own.
    """
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name[0] != "." and not Path(parent, name, "pyvenv.cfg").is_file()]
        found += [Path(parent, name) for name in names if name.endswith(suffixes) and name[0] != "."]
    return sorted(file for file in found if is_file(file))


def _is_spec(file: Path) -> bool:
    """Return whether a file is a spec. An unreadable file counts as one, so that loading it reports the error."""
    try:
        return is_spec(file.read_bytes())
    except OSError:
        return True


def is_spec(content: bytes) -> bool:
    """Return whether a YAML file's content has the top-level key ``flowrun``."""
    return _IS_SPEC.search(content) is not None
