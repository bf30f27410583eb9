"""Which files of a folder are specs."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_IS_SPEC: Final = re.compile(rb"^[\"']?flowrun[\"']?\s*:", re.MULTILINE)


def find_specs(path: Path) -> Iterator[Path]:
    """Give the specs below a folder, sorted: YAML files with a top-level key ``flowrun``. A file stands for itself."""
    if path.is_dir():
        yield from sorted(file for file in path.rglob("*") if _may_be_spec(file, path) and _is_spec(file))
    else:
        yield path


def _is_spec(file: Path) -> bool:
    """Tell whether a file is a spec; one that cannot be read may be, and whoever reads it says why."""
    try:
        return is_spec(file.read_bytes())
    except OSError:
        return True


def is_spec(content: bytes) -> bool:
    """Tell whether a YAML file's content is meant as a spec."""
    return _IS_SPEC.search(content) is not None


def _may_be_spec(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and file.suffix in (".yaml", ".yml") and file.is_file()
