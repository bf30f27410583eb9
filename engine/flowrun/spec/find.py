"""Search for the spec files of a folder."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_IS_SPEC: Final = re.compile(rb"^[\"']?flowrun[\"']?\s*:", re.MULTILINE)


def find_specs(path: Path) -> Iterator[Path]:
    """Yield the specs below a folder, sorted: YAML files with a top-level key ``flowrun``.

    Args:
        path: a folder, or a file, which is yielded whatever it contains.
    """
    if path.is_dir():
        yield from sorted(file for file in path.rglob("*") if _is_visible_yaml(file, path) and _is_spec(file))
    else:
        yield path


def _is_spec(file: Path) -> bool:
    """Return whether a file is a spec. An unreadable file counts as one, so that loading it reports the error."""
    try:
        return is_spec(file.read_bytes())
    except OSError:
        return True


def is_spec(content: bytes) -> bool:
    """Return whether a YAML file's content has the top-level key ``flowrun``."""
    return _IS_SPEC.search(content) is not None


def _is_visible_yaml(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and file.suffix in (".yaml", ".yml") and file.is_file()
